"""What a worker asks of a detector, and how it comes by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from regionvlp.extract.plugin import load_plugin
from regionvlp.extract.settings import DetectorSettings
from regionvlp.regions import FrameRegions
from regionvlp.shards.vocabulary import Vocabulary


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


def class_names(detector: Detector) -> Vocabulary | None:
    """What a detector calls its classes and attributes; None where it does not say."""
    objects = getattr(detector, "object_names", None)
    return None if objects is None else Vocabulary(objects, getattr(detector, "attribute_names", None) or [])


def load_detector(settings: DetectorSettings) -> Detector:
    """The detector that the settings describe.

    Raises:
        WeightsError: no such detector, no weights, or weights that do not fit. ConfigError: a setting is wrong.
    """
    if settings.factory is not None:
        return cast(Detector, load_plugin(settings.factory, settings))
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
