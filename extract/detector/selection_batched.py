"""The score after per-class NMS for all classes and frames at once: the form of the selection for a GPU.

The same numbers as :func:`~regionvlp.extract.detector.selection.suppressed_scores`, which stops early and is the form
for a CPU. Shape letters: B frames, N proposals (of the frame that has most), O object classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from regionvlp.extract.detector import boxes as box_ops
from regionvlp.extract.detector.config import BoxConfig


def suppressed_at_once(
    boxes: Sequence[Tensor], probabilities: Sequence[Tensor], nms: float, convention: BoxConfig
) -> list[Tensor]:
    """For each frame the largest probability of each box among the classes whose NMS keeps it, or 0.

    N rounds: in round r every class of every frame decides about its box of rank r, and a box that it keeps takes the
    boxes that it overlaps out of that class. Ties inside a class go to the lower index.

    Args:
        boxes: for each frame [N, 4] float32; probabilities: for each frame [N, O] float32; all on one device.

    Returns:
        For each frame [N] float32, on that device.
    """
    padded = pad_sequence(list(boxes), batch_first=True)
    # Padding has probability 0: it comes last in every class, and its score stays 0.
    values, order = pad_sequence(list(probabilities), batch_first=True).mT.sort(dim=2, descending=True, stable=True)
    over = _overlaps(padded, nms, convention)
    free = torch.ones_like(order, dtype=torch.bool)
    scores = values.new_zeros(padded.shape[:2])
    frame = torch.arange(len(padded), device=padded.device)[:, None]
    for rank in range(padded.shape[1]):
        index = order[:, :, rank]
        kept = free.gather(2, index[:, :, None])
        scores.scatter_reduce_(1, index, values[:, :, rank] * kept[:, :, 0], "amax")
        free &= ~(over[frame, index] & kept)
    return [row[: len(found)] for row, found in zip(scores, boxes, strict=True)]


def _overlaps(boxes: Tensor, nms: float, convention: BoxConfig) -> Tensor:
    """[B, N, N] bool: which boxes overlap too much; the operations and their order are those of the CPU's form."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    if convention.plus_one:
        x2, y2 = x2 + 1, y2 + 1
    area = (x2 - x1) * (y2 - y1)
    width = torch.minimum(x2[:, :, None], x2[:, None]) - torch.maximum(x1[:, :, None], x1[:, None])
    height = torch.minimum(y2[:, :, None], y2[:, None]) - torch.maximum(y1[:, :, None], y1[:, None])
    common = width.clamp(min=0) * height.clamp(min=0)
    return common / (area[:, :, None] + area[:, None] - common) > box_ops.strict_threshold(nms, convention)
