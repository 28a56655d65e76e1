"""What a worker asks of a detector, and how it comes by one."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from regionvlp.errors import ConfigError
from regionvlp.extract.settings import DetectorSettings
from regionvlp.regions import FrameRegions


class Detector(Protocol):
    """Frames in, regions out; :class:`~regionvlp.extract.detector.RegionDetector` is one.

    Attributes:
        max_batch: frames that it likes to get together.
        feature_width: C, the width of a region's feature.
    """

    max_batch: int

    @property
    def feature_width(self) -> int: ...

    def identity(self) -> dict[str, Any]:
        """What decides whether two detectors give the same features: JSON values, free of paths and devices."""

    def detect(self, frames: Sequence[NDArray[np.uint8]]) -> list[FrameRegions]:
        """The regions of each frame, in order; see :meth:`RegionDetector.detect`."""


def load_detector(settings: DetectorSettings) -> Detector:
    """The detector that the settings describe.

    Raises:
        WeightsError: no such detector, no weights, or weights that do not fit. ConfigError: a setting is wrong.
    """
    if settings.factory is not None:
        return _made_by(settings.factory, settings)
    from regionvlp.extract.detector import RegionDetector  # brings torch along

    return RegionDetector.load(
        settings.name,
        device=settings.device,
        regions=settings.regions,
        selection=settings.selection,
        proposals=settings.proposals,
        precision=settings.precision,
        compile=settings.compile,
        backend=settings.backend,
        max_batch=settings.batch,
    )


def _made_by(factory: str, settings: DetectorSettings) -> Detector:
    module, _, name = factory.partition(":")
    try:
        make = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"detector.factory = '{factory}': {error}", "write package.module:function") from None
    return cast(Detector, make(settings))
