"""Regions: the unit that crosses from extraction to learning.

Shape letters: F frames of one video, R region slots per frame, C feature width.
In: whatever a detector found, frame by frame. Out: :class:`VideoRegions`, one per video, in numpy.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray


@dataclass(frozen=True)
class FrameRegions:
    """What a detector found in one frame, best region first; k regions, k may be 0.

    Attributes:
        features: [k, C] float32, the pooled fifth stage of each region.
        boxes: [k, 4] float32, ``x1 y1 x2 y2`` in pixels of the frame as decoded (and turned upright).
        scores: [k] float32, probability of the best object class.
        class_ids: [k] int32, index into the detector's object vocabulary (background not counted).
        attribute_ids: [k] int32, index into its attribute vocabulary; -1 where the detector has none.
        attribute_scores: [k] float32, probability of that attribute; 0 where the detector has none.
    """

    features: NDArray[np.float32]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int32]
    attribute_ids: NDArray[np.int32]
    attribute_scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        return f"<FrameRegions: {len(self)} regions, features {self.features.shape[-1]} wide>"


@dataclass(frozen=True)
class VideoRegions:
    """All regions of one video. Rows of a frame past ``num_regions`` are padding and hold zeros.

    Attributes:
        video_id: path of the video relative to the folder that was extracted, POSIX form, extension kept.
        frame_index: [F] int64, number of each frame in display order, from 0.
        frame_time: [F] float64, its timestamp in seconds.
        image_size: [F, 2] int32, (height, width) of the frame as decoded and turned upright.
        features: [F, R, C] float16 or float32.
        boxes: [F, R, 4] float32, ``x1 y1 x2 y2`` in pixels of the frame.
        scores: [F, R] float32.
        class_ids: [F, R] int32.
        attribute_ids: [F, R] int32; -1 where the detector has no attributes (and in padding 0).
        attribute_scores: [F, R] float32.
        num_regions: [F] int32, how many of the R slots are real.
    """

    video_id: str
    frame_index: NDArray[np.int64]
    frame_time: NDArray[np.float64]
    image_size: NDArray[np.int32]
    features: NDArray[np.floating]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int32]
    attribute_ids: NDArray[np.int32]
    attribute_scores: NDArray[np.float32]
    num_regions: NDArray[np.int32]

    def __post_init__(self) -> None:
        f, r, _ = self.features.shape
        shapes = {
            "frame_index": (f,),
            "frame_time": (f,),
            "image_size": (f, 2),
            "boxes": (f, r, 4),
            "scores": (f, r),
            "class_ids": (f, r),
            "attribute_ids": (f, r),
            "attribute_scores": (f, r),
            "num_regions": (f,),
        }
        for name, shape in shapes.items():
            found = getattr(self, name).shape
            assert found == shape, f"{self.video_id}: {name} has shape {found}, expected {shape}"
        assert ((self.num_regions >= 0) & (self.num_regions <= r)).all(), f"{self.video_id}: num_regions out of range"

    def __repr__(self) -> str:
        f, r, c = self.features.shape
        real = int(self.num_regions.sum())
        features = f"{real} regions in {r} slots each, features {c} wide, {self.features.dtype}"
        return f"<VideoRegions {self.video_id!r}: {f} frames, {features}>"

    @property
    def num_frames(self) -> int:
        """F, the number of frames."""
        return len(self.frame_index)

    def mask(self) -> NDArray[np.bool_]:
        """[F, R] bool, True where a slot holds a real region."""
        slots = np.arange(self.features.shape[1])
        return slots[None, :] < self.num_regions[:, None]

    def of_frames(self, chosen: Sequence[int] | NDArray[np.integer[Any]]) -> VideoRegions:
        """The same video with some of its frames, by number."""
        fields = {
            name: value[np.asarray(chosen)] for name, value in vars(self).items() if isinstance(value, np.ndarray)
        }
        return VideoRegions(video_id=self.video_id, **fields)

    def equals(self, other: VideoRegions) -> bool:
        """True where every field is the same, bit for bit, dtypes included."""
        for field in fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            if isinstance(mine, np.ndarray):
                if mine.dtype != theirs.dtype or not np.array_equal(mine, theirs):
                    return False
            elif mine != theirs:
                return False
        return True

    @classmethod
    def from_frames(
        cls,
        video_id: str,
        frames: Sequence[FrameRegions],
        *,
        frame_index: Sequence[int] | NDArray[np.int64],
        frame_time: Sequence[float] | NDArray[np.float64],
        image_size: Sequence[tuple[int, int]],
        slots: int,
        dtype: str = "float16",
    ) -> VideoRegions:
        """Packs the frames of one video into R = ``slots`` slots a frame, padded with zeros.

        Args:
            video_id: see the class.
            frames: one entry per frame, each with at most ``slots`` regions and the same feature width.
            frame_index, frame_time, image_size: one entry per frame, see the class.
            slots: R.
            dtype: of the stored features, ``float16`` or ``float32``.
        """
        assert frames, f"{video_id}: a video without frames has no regions"
        width = frames[0].features.shape[1]
        size = (len(frames), slots)
        features = np.zeros((*size, width), dtype)
        boxes = np.zeros((*size, 4), np.float32)
        scores, attribute_scores = np.zeros(size, np.float32), np.zeros(size, np.float32)
        class_ids, attribute_ids = np.zeros(size, np.int32), np.zeros(size, np.int32)
        for f, frame in enumerate(frames):
            k = len(frame)
            cast_features(frame.features, dtype, out=features[f, :k])
            boxes[f, :k] = frame.boxes
            scores[f, :k] = frame.scores
            class_ids[f, :k] = frame.class_ids
            attribute_ids[f, :k] = frame.attribute_ids
            attribute_scores[f, :k] = frame.attribute_scores
        return cls(
            video_id=video_id,
            frame_index=np.asarray(frame_index, np.int64),
            frame_time=np.asarray(frame_time, np.float64),
            image_size=np.asarray(image_size, np.int32).reshape(-1, 2),
            features=features,
            boxes=boxes,
            scores=scores,
            class_ids=class_ids,
            attribute_ids=attribute_ids,
            attribute_scores=attribute_scores,
            num_regions=np.array([len(frame) for frame in frames], np.int32),
        )


def cast_features(
    features: NDArray[np.floating], dtype: DTypeLike, out: NDArray[np.floating] | None = None
) -> NDArray[np.floating]:
    """``features`` as float16 or float32: in ``out`` where that is given, else the array itself where it is that.

    Rounds to the nearest, ties to even, as numpy does; beyond float16 a number becomes infinite, which no shard takes.
    numpy converts halves one by one in software; torch uses the instructions that processors have for it and was
    measured 70 times faster, which decides how fast shards are written and batches are loaded. The numbers are the
    same, so torch is used where it is loaded already: a detector that needs none should not wait for its import.
    """
    if features.dtype == dtype:
        if out is None:
            return features
        out[...] = features
        return out
    if out is None:
        out = np.empty(features.shape, dtype)
    if "torch" not in sys.modules:
        with np.errstate(over="ignore"):
            out[...] = features
        return out
    import torch

    source = np.require(features, requirements=("C", "W"))  # torch warns of arrays that it must not write to
    torch.from_numpy(out).copy_(torch.from_numpy(source))
    return out


def location_vectors(
    boxes: NDArray[np.float32], image_size: NDArray[np.int32], dim: Literal[6, 7] = 7
) -> NDArray[np.float32]:
    """Where a region lies in its frame, as the models read it.

    Args:
        boxes: [..., R, 4] ``x1 y1 x2 y2`` in pixels.
        image_size: [..., 2] (height, width) of the frame, one per leading index of ``boxes``.
        dim: 7 for the paper (DemoVLP section 3.1: ``x1 y1 x2 y2 w h w*h``), 6 for its public code (without the
            area), which released checkpoints need. All values are relative to the size of the frame.

    Returns:
        [..., R, dim] float32.
    """
    height, width = (image_size[..., None, i : i + 1].astype(np.float32) for i in (0, 1))
    x1, y1, x2, y2 = np.split(boxes.astype(np.float32), 4, axis=-1)
    w, h = (x2 - x1) / width, (y2 - y1) / height
    # The far corner is formed from the near one and the side, as the public code does: the same to rounding.
    parts = [x1 / width, y1 / height, x1 / width + w, y1 / height + h, w, h]
    return np.concatenate([*parts, w * h] if dim == 7 else parts, axis=-1)
