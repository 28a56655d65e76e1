"""The schema: one description of what a shard stores, which both formats write and read.

Shape letters: N videos of one shard, F frames of one video, S frame slots of the folder (F <= S), R region slots per
frame, C feature width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from regionvlp.errors import ShardError
from regionvlp.regions import VideoRegions

SCHEMA_VERSION = 1  # of manifests and data files
RECEIPT_VERSION = 2  # of receipts; from 2 on they say where everything lies in the data file, with checksums

SUFFIXES = {"hdf5": ".h5", "parquet": ".parquet"}
DTYPES = ("float16", "float32", "uint8")
SCALE = "feature_scale"


@dataclass(frozen=True)
class Column:
    """One stored field of :class:`VideoRegions`.

    Attributes:
        name: the field's name, in both formats.
        dtype: little-endian numpy dtype.
        shape: of one frame's values, without the frame axis.
        about: meaning and unit, stored beside the data for readers without this package.
    """

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    about: str

    @cached_property
    def frame_bytes(self) -> int:
        """Bytes per frame."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, kw_only=True)
class ShardSpec:
    """What decides the shape of a data file.

    Attributes:
        format: ``hdf5`` or ``parquet``.
        dtype: of the stored features: ``float16``, ``float32``, or ``uint8`` with a scale per region, see
            :mod:`regionvlp.shards.codec`.
        frames: S, frame slots per video; a video may have fewer frames, never more.
        regions: R, region slots per frame.
        feature_width: C.
        schema_version: of the description in this file.

    Raises:
        ShardError: a value that no shard can have.
    """

    format: str
    dtype: str
    frames: int
    regions: int
    feature_width: int
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if self.format not in SUFFIXES:
            raise ShardError(f"unknown shard format '{self.format}'", f"choose one of {', '.join(SUFFIXES)}")
        if self.dtype not in DTYPES:
            raise ShardError(f"unknown feature dtype '{self.dtype}'", f"choose one of {', '.join(DTYPES)}")
        if min(self.frames, self.regions, self.feature_width) < 1:
            raise ShardError("frames, regions and feature width of a shard must be at least 1", "correct the settings")

    @cached_property
    def features(self) -> Column:
        """The column of features, stored frame by frame so that one frame can be read alone."""
        shape = (self.regions, self.feature_width)
        about = "feature vector of each region" + (f", to be multiplied by {SCALE}" if self.dtype == "uint8" else "")
        return Column("features", np.dtype(self.dtype).newbyteorder("<"), shape, about)

    @cached_property
    def memory_dtype(self) -> np.dtype[np.floating]:
        """Of the features of a :class:`VideoRegions` on its way into or out of these shards."""
        return np.dtype(np.float16 if self.dtype == "float16" else np.float32)

    @cached_property
    def small_columns(self) -> tuple[Column, ...]:
        """All other per-frame columns, in the order in which they are stored."""
        r = self.regions
        scale = Column(SCALE, np.dtype("<f4"), (r,), "what the whole numbers in features are to be multiplied by")
        fields = tuple(
            Column(name, np.dtype(dtype), shape, about)
            for name, dtype, shape, about in (
                ("frame_index", "<i8", (), "number of the frame in display order, from 0"),
                ("frame_time", "<f8", (), "time of the frame in seconds"),
                ("image_size", "<i4", (2,), "height and width of the frame in pixels"),
                ("num_regions", "<i4", (), "how many region slots are real; the others hold zeros"),
                ("boxes", "<f4", (r, 4), "x1 y1 x2 y2 in pixels of the frame"),
                ("scores", "<f4", (r,), "probability of the best object class"),
                ("class_ids", "<i4", (r,), "index into the detector's object vocabulary"),
                ("attribute_ids", "<i4", (r,), "index into the detector's attribute vocabulary, -1 for none"),
                ("attribute_scores", "<f4", (r,), "probability of that attribute"),
            )
        )
        return (*fields, scale) if self.dtype == "uint8" else fields

    @cached_property
    def column(self) -> dict[str, Column]:
        """Every column by its name."""
        return {column.name: column for column in (*self.small_columns, self.features)}


def check_regions(regions: VideoRegions, spec: ShardSpec) -> None:
    """Refuses what must not be stored, before anything is written. For a worker to call on every video.

    Raises:
        ShardError: shapes or dtypes that are not the spec's, an id that cannot be stored, numbers that are not finite
            (a float16 overflow shows as infinite), boxes that are inside out, padding that is not zero, negative
            features where the spec has no sign to store.
    """
    problem = _misfit(regions, spec) or find_problem(regions, spec)
    if problem:
        raise ShardError(f"{regions.video_id!r} cannot be stored: {problem}", "report the video as failed")


def _misfit(regions: VideoRegions, spec: ShardSpec) -> str | None:
    """Where ``regions`` is not what ``spec`` describes, or None."""
    try:
        regions.video_id.encode()
    except UnicodeEncodeError:
        return "its id is not valid Unicode"
    if not regions.video_id or "\0" in regions.video_id:
        return "its id is empty or holds a NUL character"
    if not 1 <= regions.num_frames <= spec.frames:
        return f"{regions.num_frames} frames, and these shards take 1 to {spec.frames}"
    for column in spec.column.values():
        if column.name == SCALE:
            continue
        values, dtype = getattr(regions, column.name), column.dtype
        if column.name == "features":
            dtype = spec.memory_dtype
        if values.dtype != dtype or values.shape[1:] != column.shape:
            return (
                f"{column.name} is {values.dtype} with shape {values.shape[1:]} a frame, "
                f"and these shards take {dtype} with shape {column.shape}"
            )
    return None


def find_problem(regions: VideoRegions, spec: ShardSpec) -> str | None:
    """What is wrong with the numbers themselves, in words, or None. Verification asks the same question of a file."""
    for name in ("features", "boxes", "scores", "attribute_scores", "frame_time"):
        if not all_finite(getattr(regions, name)):
            return f"{name} holds numbers that are not finite"
    if spec.dtype == "uint8" and regions.features.min(initial=0) < 0:
        return "features holds negative numbers, which uint8 cannot store"
    boxes = regions.boxes
    if (boxes[..., 2:] < boxes[..., :2]).any():
        return "a box has x2 < x1 or y2 < y1"
    padding = ~regions.mask()
    if padding.any():
        for name in ("features", "boxes", "scores", "class_ids", "attribute_ids", "attribute_scores"):
            if getattr(regions, name)[padding].any():
                return f"{name} holds numbers other than zero beyond num_regions"
    return None


def all_finite(values: NDArray[np.generic]) -> bool:
    """Whether no number is infinite or none."""
    if values.dtype == np.float16:
        # numpy tests halves one at a time; with the sign cleared, their bits compare as integers, ten times faster.
        return bool((values.view(np.uint16) & 0x7FFF).max(initial=0) < 0x7C00)
    return bool(np.isfinite(values).all())
