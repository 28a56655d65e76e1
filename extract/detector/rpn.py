"""Proposals: where something might be.

Shape letters: B images, A anchors per cell, h, w the size of res4, N proposals of one image (best first).
In: res4 [B, C4, h, w]. Out: for each image boxes [N, 4] in resized pixels and their scores [N].
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from regionvlp.extract.detector import boxes as box_ops
from regionvlp.extract.detector.config import AnchorConfig, DetectorConfig
from regionvlp.extract.detector.preprocess import Resize

STRIDE = 16


def cell_anchors(config: AnchorConfig) -> NDArray[np.float32]:
    """The anchors of one cell, [A, 4] float32.

    ``caffe``: py-faster-rcnn's integer boxes around the middle (7.5) of a 16-pixel cell whose sides are counted with
    plus one, ratio-major. ``centred``: detectron2's exact boxes around 0, size-major.
    """
    anchors = []
    if config.style == "caffe":
        for ratio in config.ratios:
            width = round((STRIDE * STRIDE / ratio) ** 0.5)
            height = round(width * ratio)
            for size in config.sizes:
                half_w = 0.5 * (width * size / STRIDE - 1)
                half_h = 0.5 * (height * size / STRIDE - 1)
                middle = 0.5 * (STRIDE - 1)
                anchors.append((middle - half_w, middle - half_h, middle + half_w, middle + half_h))
    else:
        for size in config.sizes:
            for ratio in config.ratios:
                half_w, half_h = 0.5 * size / ratio**0.5, 0.5 * size * ratio**0.5
                anchors.append((-half_w, -half_h, half_w, half_h))
    return np.asarray(anchors, np.float32)


def shifted_anchors(cell: Tensor, height: int, width: int) -> Tensor:
    """The anchors [A, 4] of every cell of a ``height`` x ``width`` map: [h * w * A, 4], rows first, anchors last."""
    x = torch.arange(width, device=cell.device, dtype=cell.dtype) * STRIDE
    y = torch.arange(height, device=cell.device, dtype=cell.dtype) * STRIDE
    y, x = torch.meshgrid(y, x, indexing="ij")
    shifts = torch.stack((x, y, x, y), dim=-1)
    return (shifts[:, :, None] + cell).reshape(-1, 4)


class RPNHead(nn.Module):
    """res4 to raw objectness [B, A or 2A, h, w] and raw box regressions [B, 4A, h, w], both float32.

    Only the 3x3 convolution may be in half precision.
    """

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        anchors = config.rpn.anchors.count
        channels = config.feature_width // 2
        scores = 2 * anchors if config.rpn.objectness == "softmax" else anchors
        self.conv = nn.Conv2d(channels, config.rpn.width, 3, padding=1)
        self.objectness_logits = nn.Conv2d(config.rpn.width, scores, 1)
        self.anchor_deltas = nn.Conv2d(config.rpn.width, 4 * anchors, 1)

    def forward(self, res4: Tensor) -> tuple[Tensor, Tensor]:
        x = functional.relu_(self.conv(res4)).float()
        return self.objectness_logits(x), self.anchor_deltas(x)


def propose(
    objectness: Tensor, deltas: Tensor, cell: Tensor, resize: Resize, config: DetectorConfig
) -> list[tuple[Tensor, Tensor]]:
    """Turns the raw outputs of the RPN into proposals.

    Args:
        objectness: [B, A or 2A, h, w]; deltas: [B, 4A, h, w]; cell: [A, 4], the anchors of one cell.
        resize: the size of the image that the RPN saw, and its scale (``rpn.min_side`` counts original pixels).

    Returns:
        For each image boxes [N, 4] in resized pixels and scores [N] (probability or logit, as ``rpn.objectness``
        says), best first, N <= ``rpn.proposals``; N may be 0.
    """
    batch, channels, height, width = deltas.shape
    anchors = shifted_anchors(cell, height, width)
    if config.rpn.objectness == "softmax":
        objectness = objectness.reshape(batch, 2, channels // 4, height, width).softmax(dim=1)[:, 1]
    scores = objectness.permute(0, 2, 3, 1).reshape(batch, -1)
    deltas = deltas.permute(0, 2, 3, 1).reshape(batch, -1, 4)
    return [_propose_one(s, d, anchors, resize, config) for s, d in zip(scores, deltas, strict=True)]


def _propose_one(
    scores: Tensor, deltas: Tensor, anchors: Tensor, resize: Resize, config: DetectorConfig
) -> tuple[Tensor, Tensor]:
    rpn = config.rpn
    if rpn.order == "top_then_clip":
        top = scores.sort(descending=True, stable=True).indices[: rpn.candidates]
        scores, deltas, anchors = scores[top], deltas[top], anchors[top]
    boxes = box_ops.decode(anchors, deltas, (1, 1, 1, 1), config.boxes)
    boxes = box_ops.clip(boxes, resize.new_height, resize.new_width, config.boxes)
    keep = _large_enough(boxes, resize, config)
    boxes, scores = boxes[keep], scores[keep]
    if rpn.order == "clip_then_top":
        top = scores.sort(descending=True, stable=True).indices[: rpn.candidates]
        boxes, scores = boxes[top], scores[top]
    kept = _first_nms(boxes, scores, config)
    return boxes[kept], scores[kept]


def _large_enough(boxes: Tensor, resize: Resize, config: DetectorConfig) -> Tensor:
    """[M] bool: boxes that are not empty and wider and higher than ``min_side`` original pixels."""
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    one, side = float(config.boxes.plus_one), config.rpn.min_side
    return (width > 0) & (height > 0) & (width + one > side * resize.scale_x) & (height + one > side * resize.scale_y)


def _first_nms(boxes: Tensor, scores: Tensor, config: DetectorConfig) -> Tensor:
    """The first ``rpn.proposals`` boxes that NMS keeps of boxes sorted best first.

    What comes later never changes what was kept before, so a prefix that keeps enough settles the matter.
    """
    rpn = config.rpn
    prefix = min(8 * rpn.proposals, len(boxes))
    kept = box_ops.nms(boxes[:prefix], scores[:prefix], rpn.nms, config.boxes)
    if len(kept) < rpn.proposals and prefix < len(boxes):
        kept = box_ops.nms(boxes, scores, rpn.nms, config.boxes)
    return kept[: rpn.proposals]
