"""Detectors of one's own: an object that gives plain arrays becomes a detector of an extraction. Free of torch.

``regionvlp extract --detector package.module:factory`` imports ``package.module`` (the folder one stands in counts) and
calls ``factory()``, or ``factory(settings)`` where it takes an argument: the section
:class:`~regionvlp.extract.settings.DetectorSettings` of the configuration, with ``device`` and ``regions``. What it
returns has

* ``names``: the class names, in the order of ``class_ids``;
* ``feature_width``: C, the width of a region's feature; 0 where there are none;
* ``identity``: a mapping of JSON values that decides whether two runs give the same features (model, version, hash of
  the weights, preprocessing), free of paths and devices; it stands in the manifest of the shards;
* ``detect(frames)``: frames are uint8 [H, W, 3] RGB of any sizes; it returns one mapping a frame, in order, with
  ``boxes`` [n, 4] (``x1 y1 x2 y2`` in pixels of the frame), ``scores`` [n] (0 to 1), ``class_ids`` [n] and ``features``
  [n, C]; where there are any, ``attribute_ids`` [n] (-1 for none) and ``attribute_scores`` [n] as well;
* optionally ``attribute_names``, and ``max_batch``, how many frames it likes to get together (8).

The adapter does the rest: numbers of any real type are cast, boxes are clipped to the frame, and the best ``regions``
are kept, best first. What cannot be mended (a wrong shape, NaN, a box wholly outside the frame or inside out, a class
without a name) fails the video at hand, as a row that says which detector and why. ::

    class Halves:
        names = ["left half", "right half"]
        feature_width = 3
        identity = {"detector": "halves", "version": 1}

        def detect(self, frames):
            return [self.halves(frame) for frame in frames]

        def halves(self, frame):
            height, width = frame.shape[:2]
            parts = [frame[:, : width // 2], frame[:, width // 2 :]]
            return {
                "boxes": [[0, 0, width // 2, height], [width // 2, 0, width, height]],
                "scores": [0.9, 0.8],
                "class_ids": [0, 1],
                "features": [part.mean((0, 1)) for part in parts],
            }
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from regionvlp.errors import ConfigError, RegionVLPError, first_line
from regionvlp.extract.settings import DetectorSettings
from regionvlp.regions import FrameRegions
from regionvlp.shards.interop.plain import frame_regions

MAX_BATCH = 8
_WANTED = ("names", "feature_width", "identity", "detect")
# What the frames of a video look like, for the one trial before anything is written.
_TRIAL = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)


class Plugin(Protocol):
    """What a factory returns; see the top of this file."""

    names: Sequence[str]
    feature_width: int
    identity: Mapping[str, Any]

    def detect(self, frames: list[NDArray[np.uint8]]) -> list[Mapping[str, Any]]: ...


class PluginError(RegionVLPError, RuntimeError):
    """A detector of one's own that failed on a frame; within an extraction, the failure row of the video."""


def load_plugin(factory: str, settings: DetectorSettings) -> Any:
    """Imports and calls a factory.

    Returns:
        What it returned where that is a detector of our own kind (``identity`` is a method, ``detect`` gives
        :class:`FrameRegions`), else a :class:`PluginDetector` around it.

    Raises:
        ConfigError: there is no such factory, it raises, or what it returns is no detector or fails on a test picture.
    """
    make = _imported(factory)
    try:
        made = make(settings) if _takes_argument(make) else make()
    except RegionVLPError:
        raise
    except Exception as error:
        raise ConfigError(f"{factory} fails with {_words(error)}", "call it in Python to see why") from error
    if callable(getattr(made, "identity", None)):
        return made
    detector = PluginDetector(made, factory, settings.regions)
    detector.try_out()
    return detector


class PluginDetector:
    """Wraps a :class:`Plugin` for the workers.

    Args:
        plugin: what the factory returned.
        factory: what errors call it.
        regions: R, the most regions of a frame that are kept.

    Raises:
        ConfigError: it lacks a part, or one of them is not of its kind.
    """

    def __init__(self, plugin: Plugin, factory: str, regions: int) -> None:
        missing = [name for name in _WANTED if not hasattr(plugin, name)]
        if missing:
            raise ConfigError(f"what {factory} returns has no {', '.join(missing)}", f"it needs {', '.join(_WANTED)}")
        self._plugin, self._factory, self._regions = plugin, factory, regions
        self.object_names = self._texts("names")
        self.attribute_names = self._texts("attribute_names") if hasattr(plugin, "attribute_names") else None
        self.max_batch = self._whole("max_batch", 1) if hasattr(plugin, "max_batch") else MAX_BATCH
        self._width = self._whole("feature_width", 0)
        self._identity = self._json_identity()

    @property
    def feature_width(self) -> int:
        """C; a detector without features has one that is always 0."""
        return max(1, self._width)

    def identity(self) -> dict[str, Any]:
        """The plug-in's own identity under the name of its factory, and how many regions are kept."""
        identity = {"name": self._factory, "plugin": self._identity, "regions": self._regions}
        return identity if self._width else {**identity, "features": "none"}

    def try_out(self) -> None:
        """Runs it on one small picture of noise.

        Raises:
            ConfigError: it fails.
        """
        try:
            self.detect([_TRIAL])
        except PluginError as error:
            raise ConfigError(
                f"{error.message}, tried on a picture of noise",
                "see help(regionvlp.extract.plugin)",
            ) from error

    def detect(self, frames: Sequence[NDArray[np.uint8]]) -> list[FrameRegions]:
        """The regions of each frame, in order.

        Raises:
            PluginError: the plug-in raises, or what it returns cannot be used.
        """
        try:
            # Copies of their own: a detector that draws on its input must not change anybody else's.
            found: Any = self._plugin.detect([frame.copy() for frame in frames])
        except Exception as error:
            raise PluginError(f"{self._factory} raises {_words(error)}") from error
        if not isinstance(found, Sequence) or len(found) != len(frames):
            count = len(found) if isinstance(found, Sequence) else type(found).__name__
            raise PluginError(f"{self._factory} gives {count} results for {len(frames)} frames")
        return [self._regions_of(result, frame) for result, frame in zip(found, frames, strict=True)]

    def _regions_of(self, result: Any, frame: NDArray[np.uint8]) -> FrameRegions:
        if isinstance(result, FrameRegions):
            result = {field.name: getattr(result, field.name) for field in fields(result)}
        if not isinstance(result, Mapping):
            raise self._fault(f"gives a {type(result).__name__} for a frame, not a mapping of arrays")
        try:
            return frame_regions(
                result, frame.shape[:2], width=self._width, most=self._regions, classes=len(self.object_names),
                attributes=len(self.attribute_names or ()),
            )  # fmt: skip
        except ValueError as error:
            raise self._fault(str(error)) from None

    def _fault(self, text: str) -> PluginError:
        return PluginError(f"{self._factory} {text}")

    def _texts(self, name: str) -> list[str]:
        values = getattr(self._plugin, name)
        if isinstance(values, str) or not isinstance(values, Sequence) or not all(isinstance(v, str) for v in values):
            raise ConfigError(f"{name} of {self._factory} is no list of texts", "give a list of class names")
        if name == "names" and not values:
            raise ConfigError(f"{name} of {self._factory} is empty", "give a list of class names")
        return [" ".join(value.split()) for value in values]

    def _whole(self, name: str, least: int) -> int:
        value = getattr(self._plugin, name)
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
            raise ConfigError(f"{name} of {self._factory} is {value!r}", f"give a whole number from {least}")
        return int(value)

    def _json_identity(self) -> dict[str, Any]:
        try:
            identity = json.loads(json.dumps(dict(self._plugin.identity), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"identity of {self._factory}: {first_line(error)}", "give a mapping of JSON values"
            ) from None
        return cast(dict[str, Any], identity)


def _imported(factory: str) -> Any:
    module, _, name = factory.partition(":")
    here = os.getcwd()
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)  # a command's own folder is that of its script, not the one the user stands in
    try:
        make = getattr(importlib.import_module(module), name)
    except Exception as error:  # the user's module may fail in any way
        raise ConfigError(f"the detector '{factory}': {_words(error)}", "write package.module:function") from error
    finally:
        if added and here in sys.path:
            sys.path.remove(here)
    if not callable(make):
        raise ConfigError(f"the detector '{factory}' is a {type(make).__name__}", "name a function or a class")
    return make


def _takes_argument(make: Any) -> bool:
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):
        return False
    usual = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(p.kind in usual and p.default is inspect.Parameter.empty for p in parameters)


def _words(error: BaseException) -> str:
    """Kind and first line of somebody else's error, and the place in their file."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" ({Path(trace.tb_frame.f_code.co_filename).name}, line {trace.tb_lineno})" if trace else ""
    return f"{type(error).__name__}: {first_line(error)}{place}"
