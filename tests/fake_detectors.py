"""Detectors that cost nothing, for ``detector.factory``; what they do besides is told by environment variables."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regionvlp.extract.settings import DetectorSettings
from regionvlp.regions import FrameRegions


class PixelSums:
    """Tells every picture from every other, and detects it in ``FAKE_NAP`` seconds."""

    max_batch = 4
    feature_width = 8

    def identity(self) -> dict[str, Any]:
        return {"name": "pixel sums"}

    def detect(self, frames: Sequence[NDArray[np.uint8]]) -> list[FrameRegions]:
        time.sleep(float(os.environ.get("FAKE_NAP", "0")) * len(frames))
        return [self._regions(frame) for frame in frames]

    def _regions(self, frame: NDArray[np.uint8]) -> FrameRegions:
        sums = frame.astype(np.int64).sum(axis=(0, 1))
        features = (np.outer([1, 2], np.resize(sums, self.feature_width)) % 97).astype(np.float32)
        boxes = np.array([[0, 0, 4, 4], [1, 2, 8, 9]], np.float32)
        ids = (sums[:2] % 1000).astype(np.int32)
        return FrameRegions(features, boxes, np.array([0.9, 0.5], np.float32), ids, ids, np.zeros(2, np.float32))


class Suicidal(PixelSums):
    """Dies at a white picture; only once where ``FAKE_ONCE`` names a file, which it makes before."""

    def detect(self, frames: Sequence[NDArray[np.uint8]]) -> list[FrameRegions]:
        if any((frame == 255).all() for frame in frames):
            once = os.environ.get("FAKE_ONCE")
            if once is None or not Path(once).exists():
                if once is not None:
                    Path(once).touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().detect(frames)


def pixel_sums(settings: DetectorSettings) -> PixelSums:
    return PixelSums()


def suicidal(settings: DetectorSettings) -> PixelSums:
    return Suicidal()
