"""Plain arrays of one frame, from anybody's detector or file, checked and brought into the form that shards store.

In: a mapping with ``boxes`` [n, 4] (``x1 y1 x2 y2`` in pixels), ``scores`` [n] (0 to 1), ``class_ids`` [n],
``features`` [n, C] and, where there are any, ``attribute_ids`` [n] and ``attribute_scores`` [n]. Out:
:class:`FrameRegions`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regionvlp.errors import nearest
from regionvlp.regions import FrameRegions

_REQUIRED = ("boxes", "scores", "class_ids")
_KEYS = (*_REQUIRED, "features", "attribute_ids", "attribute_scores")


def frame_regions(
    found: Mapping[str, Any],
    size: tuple[int, int] | Sequence[int],
    *,
    width: int,
    most: int,
    classes: int,
    attributes: int = 0,
) -> FrameRegions:
    """Plain arrays of one frame as the regions that shards store, best first.

    Args:
        found: see the top of this file.
        size: (height, width) of the frame in pixels.
        width: C; 0 where there are no features, which are then stored as a single 0.
        most: the most regions to keep.
        classes, attributes: how many names there are of either.

    Raises:
        ValueError: in words that follow the name of who gave the arrays.
    """
    unknown = next((key for key in found if key not in _KEYS), None)
    if unknown is not None and (close := nearest(str(unknown), _KEYS)):
        raise ValueError(f"gives '{unknown}' for a frame; {close}")
    missing = [key for key in (*_REQUIRED, *(("features",) if width else ())) if key not in found]
    if missing:
        raise ValueError(f"gives no {', '.join(missing)} for a frame")
    scores = _numbers(found, "scores", (None,))
    n = len(scores)
    boxes = _numbers(found, "boxes", (n, 4))
    features = _numbers(found, "features", (n, width)) if width else np.zeros((n, 1))
    if ((scores < 0) | (scores > 1)).any():
        raise ValueError("gives scores beyond 0 to 1")
    attribute_ids = _ids(found, "attribute_ids", n, attributes, least=-1) if "attribute_ids" in found else None
    attribute_scores = _numbers(found, "attribute_scores", (n,)) if "attribute_scores" in found else np.zeros(n)
    order = np.argsort(-scores, kind="stable")[:most]
    return FrameRegions(
        features=features.astype(np.float32)[order],
        boxes=_clipped(boxes, size).astype(np.float32)[order],
        scores=scores.astype(np.float32)[order],
        class_ids=_ids(found, "class_ids", n, classes, least=0)[order],
        attribute_ids=(np.full(n, -1, np.int32) if attribute_ids is None else attribute_ids)[order],
        attribute_scores=attribute_scores.astype(np.float32)[order],
    )


def _numbers(found: Mapping[str, Any], name: str, shape: tuple[int | None, ...]) -> NDArray[np.float64]:
    """An array of finite real numbers of a shape; None stands for any length. Nothing at all is a fit of 0 rows."""
    values = np.asarray(found[name])
    if values.dtype.kind not in "fiub":
        raise ValueError(f"gives {name} of {values.dtype}, which are no numbers")
    if values.size == 0 and shape[0] in (0, None):
        return np.zeros([length or 0 for length in shape])
    if values.ndim != len(shape) or any(want not in (None, got) for want, got in zip(shape, values.shape, strict=True)):
        wanted = ", ".join("n" if length is None else str(length) for length in shape)
        raise ValueError(f"gives {name} of shape {list(values.shape)}, not [{wanted}]")
    if not np.isfinite(values).all():
        raise ValueError(f"gives {name} that are not finite")
    return values.astype(np.float64)


def _ids(found: Mapping[str, Any], name: str, n: int, count: int, *, least: int) -> NDArray[np.int32]:
    values = _numbers(found, name, (n,))
    if (values != np.floor(values)).any():
        raise ValueError(f"gives {name} that are no whole numbers")
    bad = values[(values < least) | (values >= count)]
    if len(bad):
        raise ValueError(f"gives {name} such as {bad[0]:.0f}, and there are {count} names")
    return values.astype(np.int32)


def _clipped(boxes: NDArray[np.float64], size: Sequence[int]) -> NDArray[np.float64]:
    height, width = size[:2]
    if (boxes[:, 2:] < boxes[:, :2]).any():
        raise ValueError("gives a box with x2 < x1 or y2 < y1: boxes are x1 y1 x2 y2")
    outside = (boxes[:, :2] >= [width, height]).any(1) | (boxes[:, 2:] <= 0).any(1)
    if outside.any():
        box = ", ".join(f"{side:.1f}" for side in boxes[outside][0])
        raise ValueError(f"gives a box outside the picture: [{box}] in {width}x{height} pixels")
    return np.clip(boxes, 0, [width, height, width, height])
