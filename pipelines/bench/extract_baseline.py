"""What ``bench extract`` compares with: the same network and weights, run as the public extractors run them.

One image at a time, float32, the default memory layout, every norm a step of its own, all regions of an image through
res5 at once, box regressions and attributes for all of them, and one NMS call per object class.
In: weights and frames. Out: regions as scores, to be timed.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from regionvlp.extract.detector import boxes as box_ops
from regionvlp.extract.detector.config import BoxConfig
from regionvlp.extract.detector.head import RegionHead
from regionvlp.extract.detector.layout import ANCHORS, NORM_PARTS
from regionvlp.extract.detector.preprocess import plan_resize, preprocess
from regionvlp.extract.detector.rpn import propose
from regionvlp.extract.detector.weights import NORM_EPSILON, Weights


class ImageByImage:
    """The baseline's network, on ``device``."""

    def __init__(self, weights: Weights, device: torch.device) -> None:
        self.config = weights.config
        self.state = {name: value.to(device) for name, value in weights.state.items()}
        with torch.device(device):
            self.head = RegionHead(self.config).eval().requires_grad_(False)
        part = "roi_heads."
        linear = {n.removeprefix(part): v for n, v in self.state.items() if n.startswith(part) and ".res5." not in n}
        self.head.load_state_dict(linear, strict=False)

    def regions(self, frame: Tensor) -> tuple[Tensor, Tensor]:
        """A frame [H, W, 3] uint8 on the device to its boxes [N, 4] in original pixels and probabilities [N, O]."""
        config = self.config
        resize = plan_resize(frame.shape[0], frame.shape[1], config.input)
        x = preprocess(frame[None], resize, config.input).to(frame.device).contiguous()
        pool = config.backbone.pool_padding, config.backbone.pool_ceil
        x = self._normed("backbone.stem.conv1", x, stride=2, padding=3).relu_()
        x = functional.max_pool2d(x, 3, 2, padding=pool[0], ceil_mode=pool[1])
        for stage, stride in (("res2", 1), ("res3", 2), ("res4", 2)):
            x = self._stage(f"backbone.{stage}", x, stride, 1)
        boxes, _ = propose(*self._rpn(x), self.state[ANCHORS], resize, config)[0]
        pooled = self.head.pool(x, functional.pad(boxes, (1, 0)))
        backbone = config.backbone
        maps = self._stage("roi_heads.res5", pooled, backbone.res5_stride, backbone.res5_dilation)
        features = maps.mean(dim=(2, 3))
        logits = self.head.class_logits(features)
        self.head.box_deltas(features)
        if config.head.attributes:
            self.head.attribute_probabilities(features, logits)
        first = config.head.first_class
        scale = boxes.new_tensor((resize.scale_x, resize.scale_y) * 2)
        return boxes / scale, logits.softmax(dim=1)[:, first : first + config.head.classes]

    def _rpn(self, x: Tensor) -> tuple[Tensor, Tensor]:
        def convolve(layer: str, x: Tensor, padding: int) -> Tensor:
            name = f"proposal_generator.rpn_head.{layer}"
            return functional.conv2d(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"], padding=padding)

        x = convolve("conv", x, 1).relu_()
        return convolve("objectness_logits", x, 0), convolve("anchor_deltas", x, 0)

    def _stage(self, stage: str, x: Tensor, stride: int, dilation: int) -> Tensor:
        block = 0
        while f"{stage}.{block}.conv1.weight" in self.state:
            name, step = f"{stage}.{block}", stride if block == 0 else 1
            y = self._normed(f"{name}.conv1", x, stride=step).relu_()
            y = self._normed(f"{name}.conv2", y, padding=dilation, dilation=dilation).relu_()
            y = self._normed(f"{name}.conv3", y)
            y += self._normed(f"{name}.shortcut", x, stride=step) if block == 0 else x
            x, block = y.relu_(), block + 1
        return x

    def _normed(self, name: str, x: Tensor, stride: int = 1, padding: int = 0, dilation: int = 1) -> Tensor:
        y = functional.conv2d(x, self.state[f"{name}.weight"], None, stride, padding, dilation)
        scale, bias, mean, variance = (self.state[f"{name}.norm.{part}"] for part in NORM_PARTS)
        return functional.batch_norm(y, mean, variance, scale, bias, eps=NORM_EPSILON)


def scores_class_by_class(boxes: Tensor, probabilities: Tensor, nms: float, convention: BoxConfig) -> Tensor:
    """The public loop: one NMS over all boxes per class; each box's best probability among those that keep it, [N]."""
    scores = probabilities.new_zeros(len(boxes))
    for column in probabilities.T:
        kept = box_ops.nms(boxes, column, nms, convention)
        scores[kept] = torch.maximum(scores[kept], column[kept])
    return scores
