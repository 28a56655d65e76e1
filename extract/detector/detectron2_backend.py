"""detectron2 as a second backend: the same weights and conventions through its stock modules.

Used only where the package can be imported; everything that imports it is in this file. Its compiled part is not
needed for these networks, and its ``model_zoo`` is never imported. Families with detectron2's own conventions (``d2``,
``maxnms``) take its backbone, RPN, pooler, res5 and box head; ``caffe``, whose proposals it does not know, takes
backbone and res5. Norms are not folded, so it is the slower of the two. Checked with detectron2 at 02b5c4e.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from regionvlp.errors import ConfigError
from regionvlp.extract.detector.config import DetectorConfig
from regionvlp.extract.detector.network import RegionNetwork
from regionvlp.extract.detector.preprocess import Resize

_DEPTHS = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152}


def build_detectron2(config: DetectorConfig, state: Mapping[str, Tensor], anchors: Tensor) -> RegionNetwork:
    """A network whose stages are detectron2's.

    Args:
        config: the detector. state: canonical names, norms not folded. anchors: [A, 4], of one cell.

    Raises:
        ConfigError: detectron2 is not installed, or has no ResNet of these stages.
    """
    if importlib.util.find_spec("detectron2") is None:
        raise ConfigError(
            "detector.backend=detectron2, but detectron2 is not installed",
            "leave the default (native), use the image of docker/Dockerfile, or: "
            "pip install --no-build-isolation git+https://github.com/facebookresearch/detectron2",
        )
    if config.backbone.blocks not in _DEPTHS:
        raise ConfigError(
            f"detectron2 has no ResNet with {config.backbone.blocks} blocks", "use detector.backend=native"
        )
    network = _Detectron2Network(config, _stock_model(config))
    missing, _ = network.load_state_dict(_renamed(state), strict=False)
    assert not missing, f"not in the weights: {missing[:3]}"
    if network.stock_rpn is not None:
        next(iter(network.stock_rpn.anchor_generator.cell_anchors)).copy_(anchors)
    return network


def is_stock(config: DetectorConfig) -> bool:
    """True where proposals, pooling and box regression follow detectron2's own conventions."""
    own_boxes = not config.boxes.plus_one and not config.boxes.suppress_equal and config.boxes.clip == "edge"
    own_order = config.rpn.order == "top_then_clip" and config.rpn.min_side == 0
    return own_boxes and own_order and config.rpn.objectness == "logit" and not config.head.background_box


class _Detectron2Network(RegionNetwork):
    def __init__(self, config: DetectorConfig, model: Any) -> None:
        super().__init__(config)
        self.backbone = _Res4(model.backbone)  # type: ignore[assignment]
        self.roi_heads.res5 = model.roi_heads.res5
        self.stock_rpn: Any = None
        if is_stock(config):
            self.stock_rpn = model.proposal_generator
            self.proposal_generator.rpn_head = model.proposal_generator.rpn_head
            self.roi_heads.box_predictor = model.roi_heads.box_predictor
            self.roi_heads.pool = _pool_with(model.roi_heads.pooler)  # type: ignore[method-assign]

    def propose(self, res4: Tensor, resize: Resize, anchors: Tensor) -> list[tuple[Tensor, Tensor]]:
        if self.stock_rpn is None:
            return super().propose(res4, resize, anchors)
        from detectron2.structures import ImageList

        size = (resize.new_height, resize.new_width)
        images = ImageList(res4.new_empty((len(res4), 3, *size)), [size] * len(res4))
        found, _ = self.stock_rpn(images, {"res4": res4})
        return [(one.proposal_boxes.tensor, one.objectness_logits) for one in found]


class _Res4(nn.Module):
    """detectron2's backbone returns its stages by name."""

    def __init__(self, stages: Any) -> None:
        super().__init__()
        self.stages = stages

    def forward(self, x: Tensor) -> Tensor:
        res4: Tensor = self.stages(x)["res4"]
        return res4


def _pool_with(pooler: Any) -> Any:
    """Its pooler wants the boxes image by image; ours come with the image's number, in order."""
    from detectron2.structures import Boxes

    def pool(res4: Tensor, rois: Tensor) -> Tensor:
        boxes = [Boxes(rois[rois[:, 0] == image, 1:]) for image in range(len(res4))]
        pooled: Tensor = pooler([res4], boxes)
        return pooled

    return pool


def _stock_model(config: DetectorConfig) -> Any:
    """``GeneralizedRCNN`` with ``Res5ROIHeads``, and what the Caffe network does otherwise on top."""
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    backbone, rpn, head = config.backbone, config.rpn, config.head
    cfg = get_cfg()
    model = cfg.MODEL
    model.DEVICE, model.MASK_ON = "cpu", False
    model.RESNETS.DEPTH, model.RESNETS.NORM = _DEPTHS[backbone.blocks], "FrozenBN"
    model.RESNETS.STEM_OUT_CHANNELS, model.RESNETS.RES2_OUT_CHANNELS = backbone.stem, backbone.channels
    model.RESNETS.WIDTH_PER_GROUP = backbone.bottleneck
    model.ANCHOR_GENERATOR.SIZES = [list(rpn.anchors.sizes)]
    model.ANCHOR_GENERATOR.ASPECT_RATIOS = [list(rpn.anchors.ratios)]
    model.RPN.CONV_DIMS, model.RPN.NMS_THRESH = [rpn.width], rpn.nms
    model.RPN.PRE_NMS_TOPK_TEST, model.RPN.POST_NMS_TOPK_TEST = rpn.candidates, rpn.proposals
    model.ROI_HEADS.NAME, model.ROI_HEADS.NUM_CLASSES = "Res5ROIHeads", head.classes
    model.ROI_BOX_HEAD.POOLER_TYPE = "ROIAlignV2" if head.pooler == "roi_align" else "ROIPool"
    model.ROI_BOX_HEAD.POOLER_RESOLUTION = head.pool_size
    model.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO = head.sampling_ratio
    built: Any = build_model(cfg)
    built.eval().requires_grad_(False)
    built.backbone.stem.forward = _stem_forward(built.backbone.stem, backbone.pool_padding, backbone.pool_ceil)
    if backbone.res5_stride == 1:
        built.roi_heads.res5[0].conv1.stride = built.roi_heads.res5[0].shortcut.stride = (1, 1)
    for block in built.roi_heads.res5:
        block.conv2.dilation = block.conv2.padding = (backbone.res5_dilation,) * 2
    return built


def _stem_forward(stem: Any, padding: int, ceil: bool) -> Any:
    def forward(x: Tensor) -> Tensor:
        convolved = torch.nn.functional.relu_(stem.conv1(x))
        return torch.nn.functional.max_pool2d(convolved, 3, stride=2, padding=padding, ceil_mode=ceil)

    return forward


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Canonical names are detectron2's; only our wrapper around its backbone and its two ways to the RPN add some."""
    renamed = {name.replace("backbone.", "backbone.stages.", 1): value for name, value in state.items()}
    rpn = "proposal_generator.rpn_head."
    inner = {"stock_rpn.rpn_head." + n.removeprefix(rpn): v for n, v in state.items() if n.startswith(rpn)}
    return renamed | inner
