"""Box arithmetic in the conventions of :class:`~regionvlp.extract.detector.config.BoxConfig`.

Boxes are ``x1 y1 x2 y2`` in the last dimension, float32. In: tensors on any device. Out: tensors on the same device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor, stack
from torchvision import ops

from regionvlp.extract.detector.config import BoxConfig

# The largest log of a size ratio that a regression may ask for (detectron2; the Caffe original had no limit).
LARGEST_LOG_RATIO = math.log(1000.0 / 16)


def decode(boxes: Tensor, deltas: Tensor, weights: Sequence[float], convention: BoxConfig) -> Tensor:
    """Applies regressions to boxes.

    In the plus-one convention only the size that is measured changes: the new corners are centre -/+ half the new
    size, without taking the one back (MILVLG, caffe mode).

    Args:
        boxes: [..., 4]; deltas: [..., 4], (dx, dy, dw, dh), in units of the box's size and of its logarithm.
        weights: the deltas are divided by these.

    Returns:
        [..., 4], not clipped.
    """
    x1, y1, x2, y2 = boxes.unbind(-1)
    one = float(convention.plus_one)
    width, height = x2 - x1 + one, y2 - y1 + one
    dx, dy, dw, dh = (delta / weight for delta, weight in zip(deltas.unbind(-1), weights, strict=True))
    x = dx * width + (x1 + 0.5 * width)
    y = dy * height + (y1 + 0.5 * height)
    half_w = 0.5 * (dw.clamp(max=LARGEST_LOG_RATIO).exp() * width)
    half_h = 0.5 * (dh.clamp(max=LARGEST_LOG_RATIO).exp() * height)
    return stack((x - half_w, y - half_h, x + half_w, y + half_h), dim=-1)


def clip(boxes: Tensor, height: float, width: float, convention: BoxConfig) -> Tensor:
    """Boxes [..., 4] cut at the frame (``height`` and ``width`` in the boxes' own pixels)."""
    last = float(convention.clip == "last_pixel")
    x1, y1, x2, y2 = boxes.unbind(-1)
    right, bottom = width - last, height - last
    return stack((x1.clamp(0, right), y1.clamp(0, bottom), x2.clamp(0, right), y2.clamp(0, bottom)), dim=-1)


def nms(boxes: Tensor, scores: Tensor, threshold: float, convention: BoxConfig) -> Tensor:
    """Indices of the boxes [N, 4] that greedy non-maximum suppression keeps, best score first, ties by index.

    torchvision's NMS, which measures ``x2 - x1`` and suppresses above the threshold, serves both conventions: one added
    to x2 and y2 makes its IoU the inclusive one, and "at or above t" is "above the float32 just below t".
    """
    if convention.plus_one:
        boxes = boxes + boxes.new_tensor((0, 0, 1, 1))
    kept: Tensor = ops.nms(boxes, scores, strict_threshold(threshold, convention))
    return kept


def strict_threshold(threshold: float, convention: BoxConfig) -> float:
    """The t with which "IoU > t" in float32 is the convention's "IoU > threshold" or "IoU >= threshold"."""
    exact = np.float32(threshold)
    return float(np.nextafter(exact, np.float32(-1)) if convention.suppress_equal else exact)
