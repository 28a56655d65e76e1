"""Weights: reading a file, telling what it holds, checking it, folding its norms.

In: a file, or a seed. Out: :class:`Weights`, a canonical state dict (see ``layout``) that fits its configuration.
Files are read by what they are, and never executed: see :mod:`regionvlp.weights.reading`.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regionvlp.config import load_config
from regionvlp.errors import WeightsError, nearest
from regionvlp.extract.detector import layout
from regionvlp.extract.detector.config import FAMILIES, DetectorConfig
from regionvlp.extract.detector.random_weights import random_state
from regionvlp.extract.detector.registry import DetectorFiles
from regionvlp.extract.detector.rpn import cell_anchors
from regionvlp.weights.kinds import DETECTOR, stranger
from regionvlp.weights.modules import check_shapes, shapes_of
from regionvlp.weights.reading import read_tensors

log = logging.getLogger(__name__)

NORM_EPSILON = 1e-5
State = dict[str, Tensor]


@dataclass(frozen=True)
class Weights:
    """A checked set of weights.

    Attributes:
        config: the detector that they belong to, overrides applied.
        state: canonical names to float32 tensors, norms not yet folded, anchors always present.
        sha256: of names, shapes and values, so that two files with the same weights agree whatever their format.
    """

    config: DetectorConfig
    state: State
    sha256: str

    def identity(self) -> dict[str, Any]:
        """What decides a detector's numbers apart from how it is run; ``settings`` is a digest of all settings."""
        config = self.config
        everything = json.dumps(config.model_dump(mode="json"), sort_keys=True)
        return {
            "name": config.name,
            "family": config.family,
            "weights": self.sha256,
            "input": config.input.model_dump(mode="json"),
            "proposals": config.rpn.proposals,
            "regions": config.selection.regions,
            "selection": config.selection.model_dump(mode="json"),
            "boxes": config.selection.boxes,
            "plus_one": config.boxes.plus_one,
            "classes": config.head.classes,
            "attributes": config.head.attributes,
            "feature_width": config.feature_width,
            "settings": hashlib.sha256(everything.encode()).hexdigest()[:16],
        }


def load_weights(files: DetectorFiles, overrides: Mapping[str, Any]) -> Weights:
    """Reads or draws the weights of a detector and settles its configuration.

    Later ones win: the family's values, what the shapes in the file show, ``detector.yaml``, ``overrides``.

    Raises:
        WeightsError: the file is unreadable, of another family, or does not fit. ConfigError: a setting is wrong.
    """
    source = f"the detector's settings ({files.source})"
    if files.weights is None:
        family = _family(files, None)
        config = load_config(DetectorConfig, family.model_dump(), files.settings, overrides, source=source)
        assert files.random_seed is not None, "a detector has weights or a seed"
        state = {name: torch.from_numpy(value) for name, value in random_state(config, files.random_seed).items()}
    else:
        native = _read_detector(files.weights)
        if layout.is_preactivation_r152(native):
            raise WeightsError(
                f"{files.weights} is bottom-up-attention's pre-activation ResNet-152, which is not supported",
                "use bua-caffe-frcn-r101-k10-100.pth or another ResNet-101",
            )
        family = _family(files, layout.family_of(shapes_of(native)))
        state = canonical_state(native)
        shown = layout.architecture_of(shapes_of(state), family)
        shown = shown | _pixel_mean(state, files.weights)
        config = load_config(DetectorConfig, family.model_dump(), shown, files.settings, overrides, source=source)
    state = _with_anchors(state, config, files)
    _check(state, config, files)
    sha256 = state_hash(state)
    if files.sha256 not in (None, sha256):
        raise WeightsError(
            f"{files.weights} has the checksum {sha256[:16]}..., but {files.source} says {str(files.sha256)[:16]}...",
            "the file was damaged or replaced: fetch or convert it again, or take 'sha256' out",
        )
    return Weights(config, state, sha256)


def canonical_state(native: Mapping[str, Tensor]) -> State:
    """The state under our names, float32 and contiguous, without counters."""
    named = ((layout.canonical_name(name), value) for name, value in native.items())
    return {name: value.to(torch.float32).contiguous() for name, value in named if name is not None}


def state_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over the sorted names, shapes and little-endian float32 values of a canonical state."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].numpy().astype("<f4", copy=False)
        digest.update(f"{name} {value.shape}\n".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def fold_norms(state: Mapping[str, Tensor]) -> State:
    """Folds each convolution's norm (always with its running statistics) into a weight and a bias.

    Computed in float64 and rounded once: weight * g and bias - mean * g with g = scale / sqrt(variance + 1e-5).
    """
    folded: State = {}
    for name, value in state.items():
        base, is_norm, part = name.partition(".norm.")
        if not is_norm:
            folded.setdefault(name, value)
        elif part == "weight":
            scale, bias, mean, variance = (state[f"{base}.norm.{key}"].double() for key in layout.NORM_PARTS)
            gain = scale / (variance + NORM_EPSILON).sqrt()
            folded[f"{base}.weight"] = (state[f"{base}.weight"].double() * gain[:, None, None, None]).float()
            folded[f"{base}.bias"] = (bias - mean * gain).float()
    return folded


def _read_detector(path: Path) -> State:
    """The tensors of a detector; a file of another known kind, objects of its trainer inside or not, is named.

    Raises:
        InputError, WeightsError: see :func:`~regionvlp.weights.reading.read_tensors`, or naming that kind.
    """
    try:
        native = read_tensors(path)
    except WeightsError:
        # Refused for what else it holds, which its names can be read without.
        names: Iterable[str] = ()
        with suppress(WeightsError):
            names = read_tensors(path, foreign=True)
        if complaint := stranger(path, names, DETECTOR):
            raise complaint from None
        raise
    if layout.family_of(shapes_of(native)) is None and (complaint := stranger(path, native, DETECTOR)):
        raise complaint
    return native


def _family(files: DetectorFiles, shown: str | None) -> DetectorConfig:
    """The family that ``detector.yaml`` names, else the one that the weights show."""
    name = files.family or shown
    if name is None:
        raise WeightsError(
            f"{files.weights or files.source} shows no known detector family ({', '.join(FAMILIES)})",
            "give a bottom-up-attention checkpoint, or name the family in detector.yaml",
        )
    if name not in FAMILIES:
        hint = nearest(name, FAMILIES) or f"known families: {', '.join(FAMILIES)}"
        raise WeightsError(f"unknown detector family '{name}' in {files.source}", hint)
    if shown not in (None, name):
        raise WeightsError(
            f"{files.weights} holds weights of family '{shown}', but {files.source} says '{name}'",
            f"give weights of family '{name}', or name these by their path: --detector {files.weights}",
        )
    return FAMILIES[name]


def _pixel_mean(state: State, path: Path) -> dict[str, Any]:
    """Takes the pixel mean out of ``state``, where detectron2 saved one: it is a setting of the input."""
    mean, std = state.pop(layout.PIXEL_MEAN, None), state.pop(layout.PIXEL_STD, None)
    if std is not None and not bool((std == 1).all()):
        raise WeightsError(
            f"{path} wants its input divided by {std.flatten().tolist()}", "only a pixel_std of 1 is known"
        )
    # Rounded, so that the float32 of 103.53 counts as the same setting as 103.53.
    return {} if mean is None else {"input": {"mean_bgr": [round(value, 4) for value in mean.flatten().tolist()]}}


def _with_anchors(state: State, config: DetectorConfig, files: DetectorFiles) -> State:
    """Adds the anchors where the file has none, and says so where it has others (detectron2 changed them silently)."""
    computed = torch.from_numpy(cell_anchors(config.rpn.anchors))
    stored = state.get(layout.ANCHORS)
    if stored is None:
        return state | {layout.ANCHORS: computed}
    if stored.shape == computed.shape and not torch.allclose(stored, computed, atol=1e-3):
        log.warning("%s brings anchors of its own, which differ from the configured ones; they are used", files.weights)
    return state


def _check(state: State, config: DetectorConfig, files: DetectorFiles) -> None:
    """Compares ``state`` with what ``config`` needs; one line for the first fault."""
    where = str(files.weights or files.source)
    check_shapes(
        where,
        shapes_of(state),
        layout.parameter_shapes(config),
        verdict=f"is not a whole detector of family '{config.family}'",
        hint="give the weights of one and nothing else, or correct the settings beside them",
    )
    for name, value in state.items():
        if not bool(value.isfinite().all()):
            raise WeightsError(
                f"{where}: {name} holds values that are not numbers", "the file is damaged: get it again"
            )


def anchors_of(state: Mapping[str, Tensor]) -> tuple[State, Tensor]:
    """Splits a canonical state into the network's parameters and the anchors of one cell [A, 4]."""
    rest = dict(state)
    return rest, rest.pop(layout.ANCHORS)
