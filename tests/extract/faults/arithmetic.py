"""A detector that costs nothing, needs no torch, and tells every picture from every other."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from regionvlp.regions import FrameRegions

WIDTH = 1024  # so that a frame is too large to share a write with others


class ArithmeticDetector:
    """Sums of pixels as regions; every call sleeps for ``seconds``."""

    max_batch = 4
    feature_width = WIDTH

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds

    @classmethod
    def load(cls, *args: object, **options: object) -> Self:
        """In the place of :meth:`RegionDetector.load`."""
        return cls()

    def identity(self) -> dict[str, Any]:
        return {"name": "arithmetic"}

    def detect(self, frames: Sequence[NDArray[np.uint8]]) -> list[FrameRegions]:
        time.sleep(self._seconds)
        return [_regions(frame) for frame in frames]


def _regions(frame: NDArray[np.uint8]) -> FrameRegions:
    sums = frame.astype(np.int64).sum(axis=(0, 1))
    features = (np.outer([1, 2], np.resize(sums, WIDTH)) % 97).astype(np.float32)
    boxes = np.array([[0, 0, 4, 4], [1, 2, 8, 9]], np.float32)
    ids = (sums[:2] % 1000).astype(np.int32)
    return FrameRegions(features, boxes, np.array([0.9, 0.5], np.float32), ids, ids, np.zeros(2, np.float32))


def make(settings: object) -> ArithmeticDetector:
    """For ``detector.factory``; the environment variable ``SECONDS_PER_BATCH`` makes it slow."""
    return ArithmeticDetector(float(os.environ.get("SECONDS_PER_BATCH", "0")))
