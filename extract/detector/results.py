"""From the tensors of one frame to the :class:`~regionvlp.regions.FrameRegions` that leaves the detector."""

from __future__ import annotations

import torch
from torch import Tensor

from regionvlp.extract.detector.selection import Selection
from regionvlp.regions import FrameRegions


def keep_all(boxes: Tensor, probabilities: Tensor) -> Selection:
    """Every box [N, 4] in its order, with its best class of ``probabilities`` [N, O]."""
    scores, classes = probabilities.max(dim=1)
    return Selection(torch.arange(len(boxes)), boxes, scores, classes)


def frame_regions(chosen: Selection, features: Tensor, attribute_ids: Tensor, scores: Tensor) -> FrameRegions:
    """The k regions of ``chosen`` with their features [k, C], attributes [k] and the attributes' scores [k]."""
    return FrameRegions(
        features=features.float().numpy(),
        boxes=chosen.boxes.float().numpy(),
        scores=chosen.scores.float().numpy(),
        class_ids=chosen.class_ids.int().numpy(),
        attribute_ids=attribute_ids.int().numpy(),
        attribute_scores=scores.float().numpy(),
    )


def no_regions(feature_width: int) -> FrameRegions:
    """A frame in which nothing was found."""
    nothing = torch.zeros(0)
    chosen = Selection(nothing.long(), nothing.reshape(0, 4), nothing, nothing.long())
    return frame_regions(chosen, nothing.reshape(0, feature_width), nothing, nothing)
