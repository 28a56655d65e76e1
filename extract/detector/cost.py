"""What the detector costs per frame: multiply-adds by closed form, and torch's own count of the same network.

In: a configuration and the size of the network's input. Out: :class:`FrameCost`. Only convolutions and linear layers
count; FLOPs are twice the multiply-adds. No weights are needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from regionvlp.config import load_config
from regionvlp.extract.detector.catalogue import ENTRIES, TOY
from regionvlp.extract.detector.config import FAMILIES, BackboneConfig, DetectorConfig
from regionvlp.extract.detector.network import RegionNetwork
from regionvlp.extract.detector.registry import find_detector
from regionvlp.extract.detector.weights import load_weights
from regionvlp.models.cost import counted_flops, parameters


@dataclass(frozen=True)
class FrameCost:
    """Multiply-adds of one frame, by part.

    Attributes:
        backbone: stem to res4, on the whole frame.
        proposals: the proposal network.
        res5: the fifth stage on every proposal: nearly everything.
        scores: classes of every proposal, attributes of the regions kept, boxes where the selection moves them.
    """

    backbone: int
    proposals: int
    res5: int
    scores: int

    @property
    def total(self) -> int:
        """All parts."""
        return self.backbone + self.proposals + self.res5 + self.scores


def known_config(name_or_path: str) -> DetectorConfig:
    """The configuration of a named detector, whether or not its weights are here, or of a file or folder.

    Raises:
        WeightsError: no such detector.
    """
    entry = ENTRIES.get(name_or_path)
    if entry is not None and entry.name != TOY and not entry.refused:
        named = {"name": entry.name}
        return load_config(DetectorConfig, FAMILIES[entry.family].model_dump(), entry.settings, named)
    return load_weights(find_detector(name_or_path), {}).config


def frame_cost(config: DetectorConfig, height: int, width: int) -> FrameCost:
    """The closed form, for an input of ``height`` x ``width`` resized pixels and as many proposals as there may be."""
    backbone, rpn, head = config.backbone, config.rpn, config.head
    h, w = math.ceil(height / 2), math.ceil(width / 2)
    whole = 3 * backbone.stem * 49 * h * w
    h, w = _pooled(h, backbone), _pooled(w, backbone)
    for stage in (2, 3, 4):
        stride = 1 if stage == 2 else 2
        h, w = math.ceil(h / stride), math.ceil(w / stride)
        whole += _stage(backbone, stage) * h * w
    channels = config.feature_width // 2
    anchors = rpn.anchors.count * (2 if rpn.objectness == "softmax" else 1)
    proposals = (9 * channels * rpn.width + rpn.width * (anchors + 4 * rpn.anchors.count)) * h * w
    side = math.ceil(head.pool_size / backbone.res5_stride)
    res5 = _stage(backbone, 5) * side * side * rpn.proposals
    scores = rpn.proposals * config.feature_width * (head.classes + 1)
    if config.selection.boxes == "regressed":
        scores += rpn.proposals * config.feature_width * 4 * (head.classes + head.background_box)
    if head.attributes:
        columns = head.attributes + (head.no_attribute != "absent")
        hidden = head.hidden * (config.feature_width + head.embedding + columns)
        scores += min(config.selection.regions, rpn.proposals) * hidden
    return FrameCost(whole, proposals, res5, scores)


def counted_frame(config: DetectorConfig, height: int, width: int) -> tuple[FrameCost, int]:
    """The same by torch's counter (halved, so in multiply-adds), and the network's parameters, norms folded."""
    with torch.device("meta"):
        network = RegionNetwork(config)
        image = torch.zeros(1, 3, height, width)
        side, proposals = config.head.pool_size, config.rpn.proposals
        pooled = torch.zeros(proposals, config.feature_width // 2, side, side)
        features = torch.zeros(proposals, config.feature_width)
    res4 = network.res4(image)
    head = network.roi_heads

    def scores() -> None:
        logits = head.class_logits(features)
        if config.selection.boxes == "regressed":
            head.box_deltas(features)
        if config.head.attributes:
            kept = slice(config.selection.regions)
            head.attribute_probabilities(features[kept], logits[kept])

    steps = (lambda: network.res4(image), lambda: network.rpn(res4), lambda: head.res5(pooled), scores)
    return FrameCost(*(counted_flops(step) // 2 for step in steps)), parameters(network)


def _stage(backbone: BackboneConfig, stage: int) -> int:
    """Multiply-adds of res2 to res5 per output cell; the stride sits in the first layer, so all cells are equal."""
    width, out = backbone.bottleneck << (stage - 2), backbone.channels << (stage - 2)
    first = backbone.stem if stage == 2 else out // 2
    blocks = backbone.blocks[stage - 2]
    inner = 9 * width * width + width * out
    return first * width + first * out + (blocks - 1) * out * width + blocks * inner


def _pooled(side: int, backbone: BackboneConfig) -> int:
    """Cells along a side after the stem's 3x3 max pool of stride 2."""
    spare = side + 2 * backbone.pool_padding - 3
    if not backbone.pool_ceil:
        return spare // 2 + 1
    cells = math.ceil(spare / 2) + 1
    # A window that would start past the padded edge is dropped.
    return cells - 1 if (cells - 1) * 2 >= side + backbone.pool_padding else cells
