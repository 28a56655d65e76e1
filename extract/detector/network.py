"""The whole network: backbone, proposal head and region head under the names that checkpoints use."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from regionvlp.errors import ConfigError
from regionvlp.extract.detector.config import DetectorConfig
from regionvlp.extract.detector.head import RegionHead
from regionvlp.extract.detector.precision import StageTypes
from regionvlp.extract.detector.preprocess import Resize
from regionvlp.extract.detector.resnet import Backbone
from regionvlp.extract.detector.rpn import RPNHead, propose
from regionvlp.extract.detector.weights import Weights, anchors_of, fold_norms


class ProposalGenerator(nn.Module):
    """Holds the RPN's layers; the steps after them are :func:`~regionvlp.extract.detector.rpn.propose`."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.rpn_head = RPNHead(config)


class RegionNetwork(nn.Module):
    """The learned part of a detector, in the stages in which it is run and tested.

    Normalisations are already folded into the convolutions (``weights.fold_norms``), so ``state_dict`` holds a weight
    and a bias per convolution and no statistics.
    """

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.backbone)
        self.proposal_generator = ProposalGenerator(config)
        self.roi_heads = RegionHead(config)
        self.types = StageTypes()

    def set_types(self, types: StageTypes) -> None:
        """Brings each stage's weights into its number format."""
        self.types = types
        self.backbone.to(types.backbone)
        self.proposal_generator.rpn_head.conv.to(types.backbone)
        self.roi_heads.res5.to(types.res5)
        self.roi_heads.res5_type = types.res5

    def res4(self, images: Tensor) -> Tensor:
        """[B, 3, h, w] float32 BGR minus the mean to [B, C/2, about h/16, about w/16] in the backbone's type."""
        found: Tensor = self.backbone(images.to(self.types.backbone))
        return found

    def rpn(self, res4: Tensor) -> tuple[Tensor, Tensor]:
        """Raw objectness [B, A or 2A, h, w] and box regressions [B, 4A, h, w], float32."""
        objectness, deltas = self.proposal_generator.rpn_head(res4)
        return objectness, deltas

    def propose(self, res4: Tensor, resize: Resize, anchors: Tensor) -> list[tuple[Tensor, Tensor]]:
        """For each image its proposals [N, 4] in resized pixels and their scores; see :func:`rpn.propose`."""
        return propose(*self.rpn(res4), anchors, resize, self.config)


def build_network(weights: Weights, backend: str) -> tuple[RegionNetwork, Tensor]:
    """The network of a set of weights, ready to run in float32 on the CPU, and the anchors of one cell [A, 4].

    Raises:
        ConfigError: ``backend`` is neither ``native`` nor ``detectron2``, or the latter cannot be used here.
    """
    state, anchors = anchors_of(weights.state)
    if backend == "detectron2":
        from regionvlp.extract.detector.detectron2_backend import build_detectron2

        network = build_detectron2(weights.config, state, anchors)
    elif backend == "native":
        with torch.device("meta"):
            network = RegionNetwork(weights.config)
        network.load_state_dict(fold_norms(state), assign=True)
    else:
        raise ConfigError(f"unknown detector.backend '{backend}'", "use native or detectron2")
    return network.eval().requires_grad_(False), anchors
