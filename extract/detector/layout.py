"""Names and shapes of a detector's parameters, and what they say about the network. Free of torch.

One layout is used inside: detectron2's names for what detectron2 has (``backbone``, ``proposal_generator``,
``roi_heads``), and ``roi_heads.attribute_head.{embedding,hidden,score}`` for the attribute head, which every public
code names differently. Source: state dicts of MILVLG (caffe, d2) and airsplay.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from regionvlp.extract.detector.config import FAMILIES, DetectorConfig

Shape = tuple[int, ...]

ANCHORS = "proposal_generator.anchor_generator.cell_anchors.0"
PIXEL_MEAN, PIXEL_STD = "pixel_mean", "pixel_std"
_OBJECTNESS = "proposal_generator.rpn_head.objectness_logits.weight"

# How each public code calls the parts of the attribute head, and the family that its names give away.
_BOX, _ATTRIBUTE, _OURS = "roi_heads.box_predictor.", "roi_heads.attribute_predictor.", "roi_heads.attribute_head."
_RENAMED: dict[str, tuple[str, str]] = {
    _BOX + "cls_embed.": (_OURS + "embedding.", "caffe"),
    _BOX + "attr_linear1.": (_OURS + "hidden.", "caffe"),
    _BOX + "attr_linear2.": (_OURS + "score.", "caffe"),
    _BOX + "cls_embedding.": (_OURS + "embedding.", "maxnms"),
    _BOX + "fc_attr.": (_OURS + "hidden.", "maxnms"),
    _BOX + "attr_score.": (_OURS + "score.", "maxnms"),
    _ATTRIBUTE + "obj_embed.": (_OURS + "embedding.", "d2"),
    _ATTRIBUTE + "fc.0.": (_OURS + "hidden.", "d2"),
    _ATTRIBUTE + "attr_score.": (_OURS + "score.", "d2"),
}
_R152 = ("roi_heads.res5_bn.", "roi_heads.res5.0.norm.", "backbone.stem.norm.")
NORM_PARTS = ("weight", "bias", "running_mean", "running_var")


def canonical_name(name: str) -> str | None:
    """Our name of a checkpoint's parameter; None for counters that play no part."""
    if name.endswith(".num_batches_tracked"):
        return None
    for native, (ours, _) in _RENAMED.items():
        if name.startswith(native):
            return ours + name.removeprefix(native)
    return name


def is_preactivation_r152(names: Iterable[str]) -> bool:
    """True for MILVLG's Caffe ResNet-152 (version 2), a network of another kind that is not built here."""
    return any(name.startswith(_R152) for name in names)


def family_of(shapes: Mapping[str, Shape]) -> str | None:
    """The family that a checkpoint's names give away, else its number of objectness channels; None if neither does."""
    for native, (_, family) in _RENAMED.items():
        if any(name.startswith(native) for name in shapes):
            return family
    channels = shapes.get(_OBJECTNESS, (0,))[0]
    for family, config in FAMILIES.items():
        softmax = config.rpn.objectness == "softmax"
        if channels == config.rpn.anchors.count * (2 if softmax else 1):
            return family
    return None


def architecture_of(shapes: Mapping[str, Shape], family: DetectorConfig) -> dict[str, Any]:
    """The depth, widths and class counts that canonical ``shapes`` show, as overrides of a family's configuration.

    What a missing parameter would have shown is left as the family has it; the check against
    :func:`parameter_shapes` then names what is missing.
    """
    found: dict[str, Any] = {"backbone": {}, "rpn": {}, "head": {}}

    def put(section: str, key: str, parameter: str, dimension: int, less: int = 0) -> None:
        shape = shapes.get(parameter, ())
        if len(shape) > dimension and shape[dimension] > less:
            found[section][key] = shape[dimension] - less

    counts = [
        len({name.split(".")[2] for name in shapes if name.startswith(prefix)})
        for prefix in ("backbone.res2.", "backbone.res3.", "backbone.res4.", "roi_heads.res5.")
    ]
    if all(counts):
        found["backbone"]["blocks"] = counts
    put("backbone", "stem", "backbone.stem.conv1.weight", 0)
    put("backbone", "bottleneck", "backbone.res2.0.conv1.weight", 0)
    put("backbone", "channels", "backbone.res2.0.conv3.weight", 0)
    put("rpn", "width", "proposal_generator.rpn_head.conv.weight", 0)
    put("head", "classes", _BOX + "cls_score.weight", 0, less=1)
    if any(name.startswith(_OURS) for name in shapes):
        put("head", "attributes", _OURS + "score.weight", 0, less=int(family.head.no_attribute != "absent"))
        put("head", "embedding", _OURS + "embedding.weight", 1)
        put("head", "hidden", _OURS + "hidden.weight", 0)
    else:
        found["head"]["attributes"] = 0
    return found


def parameter_shapes(config: DetectorConfig) -> dict[str, Shape]:
    """Every parameter of a detector by its canonical name, with its shape, anchors included."""
    shapes: dict[str, Shape] = {ANCHORS: (config.rpn.anchors.count, 4)}
    for name, shape in convolutions(config):
        shapes[f"{name}.weight"] = shape
        shapes |= {f"{name}.norm.{part}": shape[:1] for part in NORM_PARTS}
    for name, shape in _biased(config):
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    if config.head.attributes:
        shapes[_OURS + "embedding.weight"] = (config.head.classes + 1, config.head.embedding)
    return shapes


def convolutions(config: DetectorConfig) -> Iterator[tuple[str, Shape]]:
    """Name and weight shape of every normalised convolution."""
    backbone = config.backbone
    yield "backbone.stem.conv1", (backbone.stem, 3, 7, 7)
    channels = backbone.stem
    for stage, blocks in enumerate(backbone.blocks):
        width, out = backbone.bottleneck << stage, backbone.channels << stage
        prefix = f"backbone.res{stage + 2}" if stage < 3 else "roi_heads.res5"
        for block in range(blocks):
            yield f"{prefix}.{block}.conv1", (width, channels, 1, 1)
            yield f"{prefix}.{block}.conv2", (width, width, 3, 3)
            yield f"{prefix}.{block}.conv3", (out, width, 1, 1)
            if block == 0:
                yield f"{prefix}.{block}.shortcut", (out, channels, 1, 1)
            channels = out


def _biased(config: DetectorConfig) -> Iterator[tuple[str, Shape]]:
    """Name and weight shape of every layer with a bias of its own."""
    head, rpn, width = config.head, config.rpn, config.feature_width
    scores = rpn.anchors.count * (2 if rpn.objectness == "softmax" else 1)
    yield "proposal_generator.rpn_head.conv", (rpn.width, width // 2, 3, 3)
    yield "proposal_generator.rpn_head.objectness_logits", (scores, rpn.width, 1, 1)
    yield "proposal_generator.rpn_head.anchor_deltas", (4 * rpn.anchors.count, rpn.width, 1, 1)
    yield _BOX + "cls_score", (head.classes + 1, width)
    yield _BOX + "bbox_pred", (4 * (head.classes + head.background_box), width)
    if head.attributes:
        yield _OURS + "hidden", (head.hidden, width + head.embedding)
        yield _OURS + "score", (head.attributes + (head.no_attribute != "absent"), head.hidden)
