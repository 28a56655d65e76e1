"""Frames of many videos at once, in arrays that were allocated once: what a loader asks of the shards.

Shape letters: B videos, F frames of each, R region slots per frame, C feature width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from regionvlp.shards.schema import ShardSpec


@dataclass(frozen=True)
class RegionBatch:
    """F frames of each of B videos.

    Attributes:
        rows: [B] int64, numbers of the videos, see :meth:`.ShardReader.rows`.
        features: [B, F, R, C] float16, or float32 from shards of float32 and uint8.
        boxes: [B, F, R, 4] float32, ``x1 y1 x2 y2`` in pixels of the frame.
        scores: [B, F, R] float32, probability of the best object class.
        num_regions: [B, F] int32, how many of the R slots are real; the others hold zeros.
        image_size: [B, F, 2] int32, (height, width) of the frame.
    """

    rows: NDArray[np.int64]
    features: NDArray[np.floating]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    num_regions: NDArray[np.int32]
    image_size: NDArray[np.int32]

    def mask(self) -> NDArray[np.bool_]:
        """[B, F, R] bool, True where a slot holds a real region."""
        return np.arange(self.features.shape[2]) < self.num_regions[..., None]

    @classmethod
    def empty(cls, spec: ShardSpec, videos: int, frames: int) -> RegionBatch:
        """Arrays for so many videos of so many frames each, with nothing in them yet."""
        size, regions = (videos, frames), spec.regions
        return cls(
            rows=np.empty(videos, np.int64),
            features=np.empty((*size, *spec.features.shape), spec.memory_dtype),
            boxes=np.empty((*size, regions, 4), np.float32),
            scores=np.empty((*size, regions), np.float32),
            num_regions=np.empty(size, np.int32),
            image_size=np.empty((*size, 2), np.int32),
        )

    def fits(self, other: RegionBatch) -> bool:
        """Whether both have the same shapes and dtypes, so that one can be read into the other's arrays."""
        mine, theirs = vars(self), vars(other)
        return all(
            values.shape == theirs[name].shape and values.dtype == theirs[name].dtype and values.flags.c_contiguous
            for name, values in mine.items()
        )
