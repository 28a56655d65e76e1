"""Between features as models read them and features as shards store them.

``float16`` and ``float32`` are stored as they are. ``uint8`` takes half of float16's bytes: the features of these
detectors are means of rectified numbers and so never negative, and every region x gets a scale of its own,

    scale = max(x) / 255, rounded up to 16 significant bits; code = round(x / scale); x is read as code * scale.

A code has 8 bits and a scale 16, so their product is exact in float32, and what was read is stored again as the very
same bytes. A region of zeros has the scale 0. The error of a number is at most half a scale.

Shape letters: R regions, C feature width; leading axes are free.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regionvlp.errors import ShardError
from regionvlp.regions import VideoRegions
from regionvlp.shards.schema import SCALE, ShardSpec

_DROPPED_BITS = np.uint32(8)  # of the 24 significant bits of a float32


def stored_columns(regions: VideoRegions, spec: ShardSpec) -> dict[str, NDArray[Any]]:
    """The columns of a checked video as they lie on the disk: name -> [F, ...]."""
    columns = {name: np.ascontiguousarray(getattr(regions, name)) for name in spec.column if name != SCALE}
    if spec.dtype == "uint8":
        columns["features"], columns[SCALE] = quantise(columns["features"])
    return columns


def video_regions(video_id: str, columns: Mapping[str, NDArray[Any]], spec: ShardSpec) -> VideoRegions:
    """The video of its stored columns, the inverse of :func:`stored_columns`.

    Raises:
        ShardError: ``num_regions`` is out of range.
    """
    fields = {name: columns[name] for name in spec.column if name != SCALE}
    if spec.dtype == "uint8":
        fields["features"] = dequantise(columns["features"], columns[SCALE])
    if bad_counts(fields["num_regions"][None], spec).any():
        raise ShardError(f"num_regions of {video_id!r} is out of range", "run: regionvlp shards verify")
    return VideoRegions(video_id=video_id, **fields)


def bad_counts(num_regions: NDArray[np.int32], spec: ShardSpec) -> NDArray[np.bool_]:
    """[B] bool, which of B videos have a count of regions, [B, F], that no frame can have."""
    bad: NDArray[np.bool_] = np.any((num_regions < 0) | (num_regions > spec.regions), axis=1)
    return bad


def quantise(features: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Non-negative finite ``features`` [..., R, C] as codes [..., R, C] and scales [..., R]."""
    largest = features.max(axis=-1, initial=0)
    scale = (largest / np.float32(255)).astype(np.float32)
    # Adding to the bits of a positive float moves it up; a carry into the exponent is the right next number.
    bits = scale.view(np.uint32)
    low = np.uint32((1 << _DROPPED_BITS) - 1)
    scale = ((bits + low) & ~low).view(np.float32)
    codes = features / np.where(scale > 0, scale, 1)[..., None]
    return np.rint(codes, out=codes).astype(np.uint8), scale


def dequantise(
    codes: NDArray[np.uint8], scale: NDArray[np.float32], out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """The features [..., R, C] float32 of codes [..., R, C] and scales [..., R], in ``out`` where that is given."""
    features = np.empty(codes.shape, np.float32) if out is None else out
    np.copyto(features, codes)
    return np.multiply(features, scale[..., None], out=features)
