"""What a region detector is, as data: every convention in which the public variants differ is one named option here.

The three public families (:data:`FAMILIES`) are three sets of values of one schema; no code asks for a family's name.
Sizes are in pixels; "resized" means the network's input, "original" the frame as decoded.
Source of the table: MILVLG bottom-up-attention.pytorch (modes caffe and d2), airsplay py-bottom-up-attention.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from regionvlp.config import Config

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class InputConfig(Config):
    """From a frame to the network's input.

    Attributes:
        mean_bgr: subtracted from the blue, green and red grey levels; there is no division.
        short_side, long_side: the shorter side is brought to ``short_side`` unless the longer would pass ``long_side``.
        resample: ``opencv_float`` (OpenCV's bilinear on floats, one exact scale for both axes, not antialiased),
            ``pillow_uint8`` (Pillow's bilinear on bytes, antialiased when shrinking) or ``torch_float`` (bilinear on
            floats to a whole size, as the transformers port of the LXMERT example does).
    """

    mean_bgr: tuple[float, float, float]
    short_side: Count
    long_side: Count
    resample: Literal["opencv_float", "pillow_uint8", "torch_float"]

    @model_validator(mode="after")
    def _sides(self) -> Self:
        if self.short_side > self.long_side:
            raise ValueError(f"short_side {self.short_side} is above long_side {self.long_side}")
        return self


class BackboneConfig(Config):
    """A bottleneck ResNet whose fifth stage runs per region; widths double from stage to stage.

    Attributes:
        blocks: blocks in res2, res3, res4, res5; (3, 4, 23, 3) is ResNet-101.
        stem, bottleneck, channels: output channels of the stem, of res2's 3x3 convolutions, of res2.
        pool_padding, pool_ceil: of the stem's 3x3 max pool of stride 2.
        res5_stride, res5_dilation: of the fifth stage; (1, 2) keeps the pooled size.
    """

    blocks: tuple[Count, Count, Count, Count]
    stem: Count
    bottleneck: Count
    channels: Count
    pool_padding: Literal[0, 1]
    pool_ceil: bool
    res5_stride: Literal[1, 2]
    res5_dilation: Literal[1, 2]


class BoxConfig(Config):
    """Conventions of box arithmetic, the same in proposals, regression and selection.

    Attributes:
        plus_one: a box from x1 to x2 is ``x2 - x1 + 1`` wide (corners are pixels) instead of ``x2 - x1``.
        suppress_equal: NMS suppresses at an IoU equal to its threshold, not only above it.
        clip: boxes end at the ``last_pixel`` (W - 1, H - 1) or at the ``edge`` (W, H).
    """

    plus_one: bool
    suppress_equal: bool
    clip: Literal["last_pixel", "edge"]


class AnchorConfig(Config):
    """Reference boxes of the proposals, used where a weights file does not bring its own.

    Attributes:
        style: ``caffe`` (sides rounded to whole pixels, centred on 7.5, ratio-major) or ``centred`` (exact sides,
            centred on 0, size-major).
        sizes: square root of the area, in resized pixels; ratios: height / width.
    """

    style: Literal["caffe", "centred"]
    sizes: tuple[float, ...] = Field(min_length=1)
    ratios: tuple[float, ...] = Field(min_length=1)

    @property
    def count(self) -> int:
        """A, the anchors per cell."""
        return len(self.sizes) * len(self.ratios)


class ProposalConfig(Config):
    """The region proposal network (RPN) and which of its boxes go on.

    Attributes:
        width: channels of the 3x3 convolution.
        objectness: ``softmax`` (two channels per anchor, all backgrounds first) or ``logit`` (one).
        order: ``clip_then_top`` clips and drops before the best ``candidates`` are taken, ``top_then_clip`` after.
        min_side: boxes not wider and higher than this many original pixels are dropped.
        nms: IoU threshold. candidates: boxes that enter NMS. proposals: boxes that leave it, N at most.
    """

    width: Count
    objectness: Literal["softmax", "logit"]
    anchors: AnchorConfig
    order: Literal["clip_then_top", "top_then_clip"]
    min_side: float = Field(ge=0)
    nms: Share
    candidates: Count
    proposals: Count


class HeadConfig(Config):
    """From a pooled region to its feature, class, box and attribute.

    Attributes:
        pooler, pool_size, sampling_ratio: how a proposal is pooled from res4 (the ratio is RoIAlign's).
        classes: object classes without background. background: which column of the class scores it is.
        background_box: ``bbox_pred`` has four unused rows for the background.
        box_weights: what the regression targets (dx, dy, dw, dh) were multiplied with.
        attributes: attribute classes without "none"; 0 where the detector has no attribute head.
        no_attribute: which column "none" is. no_attribute_competes: it takes part in the softmax.
        embedding, hidden: widths inside the attribute head.
    """

    pooler: Literal["roi_pool", "roi_align"]
    pool_size: Count
    sampling_ratio: int = Field(ge=0)
    classes: Count
    background: Literal["first", "last"]
    background_box: bool
    box_weights: tuple[float, float, float, float]
    attributes: int = Field(ge=0)
    no_attribute: Literal["first", "last", "absent"]
    no_attribute_competes: bool
    embedding: Count
    hidden: Count

    @property
    def first_class(self) -> int:
        """Column of the first object class."""
        return 1 if self.background == "first" else 0


class SelectionConfig(Config):
    """Which regions of a frame are kept, and in which order.

    Attributes:
        rule: ``public`` (what DemoVLP kept: the score after per-class NMS decides which regions a file holds, the raw
            class probability sorts and cuts them), ``suppressed`` (best first by the score after per-class NMS),
            ``best_class`` (one NMS over each proposal's best-class box, loosened until there are enough) or
            ``detections`` (per-class NMS over all classes above ``score_above``; one proposal may appear twice).
        regions: R, the most that a frame keeps.
        boxes: what is exported and suppressed, the ``proposals`` or the boxes ``regressed`` for the best class.
        min_boxes, max_boxes, threshold: of rule ``public``.
        nms: IoU thresholds, tried in turn until enough regions remain; the first two rules only use the first.
        score_above: of rule ``detections``.
    """

    rule: Literal["public", "suppressed", "best_class", "detections"]
    regions: Count
    boxes: Literal["proposals", "regressed"]
    min_boxes: int = Field(ge=0)
    max_boxes: Count
    threshold: Share
    nms: tuple[Share, ...] = Field(min_length=1)
    score_above: float = Field(ge=0, lt=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_boxes > self.max_boxes:
            raise ValueError(f"min_boxes {self.min_boxes} is above max_boxes {self.max_boxes}")
        if self.rule in ("best_class", "detections") and self.boxes != "regressed":
            raise ValueError(f"rule '{self.rule}' selects among regressed boxes: set selection.boxes to regressed")
        return self


class DetectorConfig(Config):
    """One region detector: a name for people, and everything that decides its numbers apart from the weights."""

    name: str
    family: str
    input: InputConfig
    backbone: BackboneConfig
    boxes: BoxConfig
    rpn: ProposalConfig
    head: HeadConfig
    selection: SelectionConfig

    @property
    def feature_width(self) -> int:
        """C, the width of a region's feature: the channels of res5."""
        return self.backbone.channels * 8


_RESNET_101: dict[str, Any] = {"blocks": (3, 4, 23, 3), "stem": 64, "bottleneck": 64, "channels": 256}
_VISUAL_GENOME: dict[str, Any] = {"classes": 1600, "attributes": 400, "embedding": 256, "hidden": 512}
_MINIMUM_10_MAXIMUM_100: dict[str, Any] = {"min_boxes": 10, "max_boxes": 100, "threshold": 0.2}

# The Caffe network of Anderson et al., as MILVLG's mode "caffe" runs it. DemoVLP's features come from this one.
_CAFFE = DetectorConfig.model_validate(
    {
        "name": "caffe",
        "family": "caffe",
        "input": {
            "mean_bgr": (102.9801, 115.9465, 122.7717),
            "short_side": 600,
            "long_side": 1000,
            "resample": "opencv_float",
        },
        "backbone": {**_RESNET_101, "pool_padding": 0, "pool_ceil": True, "res5_stride": 1, "res5_dilation": 2},
        "boxes": {"plus_one": True, "suppress_equal": True, "clip": "last_pixel"},
        "rpn": {
            "width": 512,
            "objectness": "softmax",
            "anchors": {"style": "caffe", "sizes": (64, 128, 256, 512), "ratios": (0.5, 1, 2)},
            "order": "clip_then_top",
            "min_side": 16,
            "nms": 0.7,
            "candidates": 6000,
            "proposals": 300,
        },
        "head": {
            **_VISUAL_GENOME,
            "pooler": "roi_pool",
            "pool_size": 14,
            "sampling_ratio": 0,
            "background": "first",
            "background_box": True,
            "box_weights": (1, 1, 1, 1),
            "no_attribute": "first",
            "no_attribute_competes": True,
        },
        "selection": {
            **_MINIMUM_10_MAXIMUM_100,
            "rule": "public",
            "regions": 30,
            "boxes": "proposals",
            "nms": (0.3,),
            "score_above": 0.05,
        },
    }
)

# airsplay's conversion of the same network to detectron2's conventions; also the Hub's unc-nlp/frcnn-vg-finetuned.
_MAXNMS = DetectorConfig.model_validate(
    {
        "name": "maxnms",
        "family": "maxnms",
        "input": {**_CAFFE.input.model_dump(), "resample": "pillow_uint8"},
        "backbone": _CAFFE.backbone.model_dump(),
        "boxes": {"plus_one": False, "suppress_equal": False, "clip": "edge"},
        "rpn": {
            **_CAFFE.rpn.model_dump(),
            "objectness": "logit",
            "anchors": {"style": "centred", "sizes": (64, 128, 256, 512), "ratios": (0.5, 1, 2)},
            "order": "top_then_clip",
            "min_side": 0,
        },
        "head": {
            **_CAFFE.head.model_dump(),
            "background": "last",
            "background_box": False,
            "box_weights": (10, 10, 5, 5),
            "no_attribute": "last",
            "no_attribute_competes": False,
        },
        "selection": {
            **_CAFFE.selection.model_dump(),
            "rule": "best_class",
            "boxes": "regressed",
            "nms": (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        },
    }
)

# MILVLG's mode "d2": a network trained in detectron2 from the start.
_D2 = DetectorConfig.model_validate(
    {
        "name": "d2",
        "family": "d2",
        "input": {**_CAFFE.input.model_dump(), "mean_bgr": (103.53, 116.28, 123.675)},
        "backbone": {**_RESNET_101, "pool_padding": 1, "pool_ceil": False, "res5_stride": 2, "res5_dilation": 1},
        "boxes": _MAXNMS.boxes.model_dump(),
        "rpn": {
            **_MAXNMS.rpn.model_dump(),
            "width": 1024,
            "anchors": {"style": "centred", "sizes": (32, 64, 128, 256, 512), "ratios": (0.5, 1, 2)},
            "proposals": 1000,
        },
        "head": {
            **_MAXNMS.head.model_dump(),
            "pooler": "roi_align",
            "sampling_ratio": 2,
            "no_attribute": "absent",
        },
        "selection": {**_MAXNMS.selection.model_dump(), "rule": "detections", "nms": (0.5,)},
    }
)

FAMILIES: dict[str, DetectorConfig] = {config.family: config for config in (_CAFFE, _MAXNMS, _D2)}
"""The public families at full size (ResNet-101, 1600 objects, 400 attributes)."""
