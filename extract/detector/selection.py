"""Which regions of one frame are kept, and in which order.

Shape letters: N proposals, O object classes, k regions kept.
In: boxes [N, 4] in original pixels and class probabilities [N, O] of one frame, on the CPU. Out: :class:`Selection`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from regionvlp.extract.detector import boxes as box_ops
from regionvlp.extract.detector.config import BoxConfig, DetectorConfig
from regionvlp.extract.detector.head import regress


@dataclass(frozen=True)
class Selection:
    """The k regions that a frame keeps, best first.

    Attributes:
        index: [k] int64, proposal numbers; rule ``detections`` may name one proposal twice.
        boxes: [k, 4] float32 in original pixels.
        scores: [k] float32, class probability before any NMS; class_ids: [k] int64.
    """

    index: Tensor
    boxes: Tensor
    scores: Tensor
    class_ids: Tensor


def select(
    proposals: Tensor,
    probabilities: Tensor,
    deltas: Tensor | None,
    height: float,
    width: float,
    config: DetectorConfig,
    suppressed: Tensor | None = None,
) -> Selection:
    """Applies ``config.selection`` to one frame.

    Args:
        proposals: [N, 4] float32, original pixels. probabilities: [N, O] float32.
        deltas: [N, O, 4] regressions; None where ``selection.boxes`` is ``proposals``.
        height, width: of the frame, in original pixels, for clipping regressed boxes.
        suppressed: [N], the scores after per-class NMS where they are known already (``selection_batched``); then
            ``probabilities`` may be on any device.
    """
    if config.selection.rule == "detections":
        assert deltas is not None, "detections are regressed boxes"
        return _detections(proposals, probabilities, deltas, height, width, config)
    scores, classes = (column.cpu() for column in probabilities.max(dim=1))
    boxes = proposals
    if config.selection.boxes == "regressed":
        assert deltas is not None, "regressed boxes need regressions"
        boxes = regress(proposals, deltas[torch.arange(len(deltas)), classes], height, width, config)
    if config.selection.rule == "best_class":
        index = _best_class(boxes, scores, config)
    else:
        index = torch.from_numpy(_by_suppressed_score(boxes, probabilities, scores, config, suppressed))
    return Selection(index, boxes[index], scores[index], classes[index])


def _by_suppressed_score(
    boxes: Tensor, probabilities: Tensor, scores: Tensor, config: DetectorConfig, suppressed: Tensor | None
) -> NDArray[np.int64]:
    rule = config.selection
    limits = rule.min_boxes, rule.max_boxes, rule.threshold
    if suppressed is not None:
        known = suppressed.cpu().numpy()
        order = np.argsort(-known, kind="stable")
        kept = order[: rule.regions] if rule.rule == "suppressed" else _stored(order, known[order], *limits)
    elif rule.rule == "suppressed":
        box, probability = boxes.numpy(), probabilities.numpy()
        kept = suppressed_scores(box, probability, rule.nms[0], config.boxes, enough=rule.regions)[0]
    else:
        kept = stored_by_milvlg(boxes.numpy(), probabilities.numpy(), rule.nms[0], config.boxes, *limits)
    if rule.rule == "suppressed":
        return kept
    # DemoVLP's loader sorts the regions of a file by raw probability; ties go to the lower proposal.
    order = np.lexsort((kept, -scores.numpy()[kept]))
    return kept[order[: rule.regions]]


def stored_by_milvlg(
    boxes: NDArray[np.float32],
    probabilities: NDArray[np.float32],
    nms: float,
    convention: BoxConfig,
    min_boxes: int,
    max_boxes: int,
    threshold: float,
) -> NDArray[np.int64]:
    """The proposals that MILVLG's extractor writes to a frame's file, in its order (caffe mode; Anderson's rule).

    With q boxes whose suppressed score reaches ``threshold``: the best ``min_boxes`` where q is smaller, the best
    ``max_boxes`` where it is larger, otherwise those q in the order of the proposals.
    """
    order, scores = suppressed_scores(
        boxes, probabilities, nms, convention, enough=max_boxes + 1, floor=threshold, at_least=min_boxes
    )
    return _stored(order, scores, min_boxes, max_boxes, threshold)


def _stored(
    order: NDArray[np.int64], scores: NDArray[np.float32], min_boxes: int, max_boxes: int, threshold: float
) -> NDArray[np.int64]:
    """MILVLG's cut through boxes in descending order of their suppressed ``scores``."""
    passed = int((scores >= np.float32(threshold)).sum())
    if passed < min_boxes:
        return order[:min_boxes]
    if passed > max_boxes:
        return order[:max_boxes]
    return np.sort(order[:passed])


def suppressed_scores(
    boxes: NDArray[np.float32],
    probabilities: NDArray[np.float32],
    nms: float,
    convention: BoxConfig,
    *,
    enough: int,
    floor: float = 0.0,
    at_least: int | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Scores proposals by the best class whose own NMS keeps them, without running one NMS per class.

    The reference runs NMS for each of 1600 classes over the same boxes; a box scores the largest probability among
    the classes that keep it, or 0. Here all (box, class) pairs are walked in descending probability, which is every
    class's NMS at once: a pair is kept unless a kept box of its class overlaps it, and the first kept pair of a box is
    its score. So boxes are settled best first, and the walk ends long before most pairs are seen. Exact, ties included:
    inside a class they go to the lower index.

    Args:
        boxes: [N, 4]; probabilities: [N, O].
        nms: IoU threshold. enough: stop when this many boxes are settled.
        floor, at_least: stop also where the next probability is below ``floor`` and ``at_least`` (by default
            ``enough``) boxes are settled.

    Returns:
        Box numbers [M] in descending score and their scores [M]; boxes that no class keeps follow in their own order
        with score 0, as far as they are asked for.
    """
    total = len(boxes)
    enough = min(enough, total)
    floor = float(np.float32(floor))
    # Every box reaches a floor of zero, even one that no class keeps.
    at_least = enough if at_least is None or floor == 0 else min(at_least, total)
    overlaps = _overlap_bits(boxes, nms, convention)
    blocked: dict[int, int] = {}  # per class one bit for every box that a kept box of the class overlaps
    settled: dict[int, float] = {}  # box to score, in the order of settling
    for box, column, probability in _descending_pairs(probabilities, enough, floor):
        if probability <= 0 or (probability < floor and len(settled) >= at_least) or len(settled) >= enough:
            break
        taken = blocked.get(column, 0)
        if taken >> box & 1:
            continue
        blocked[column] = taken | overlaps[box]
        settled.setdefault(box, probability)
    if len(settled) < at_least:
        rest = (box for box in range(total) if box not in settled)
        settled.update((box, 0.0) for box, _ in zip(rest, range(at_least - len(settled)), strict=False))
    return np.fromiter(settled.keys(), np.int64), np.fromiter(settled.values(), np.float32)


def _descending_pairs(
    probabilities: NDArray[np.float32], enough: int, floor: float
) -> Iterator[tuple[int, int, float]]:
    """All (box, class, probability), best first, ties by box; sorted in slices, since few are ever asked for."""
    if probabilities.size == 0:
        return
    flat, classes = probabilities.reshape(-1), probabilities.shape[1]
    best = np.sort(probabilities.max(axis=1))[::-1]
    upper, lower = np.inf, max(floor, float(best[min(enough, len(best)) - 1]))
    while upper > 0:
        inside = np.flatnonzero((flat >= lower) & (flat < upper))
        inside = inside[np.argsort(-flat[inside], kind="stable")]
        box, column = np.divmod(inside, classes)
        yield from zip(box.tolist(), column.tolist(), flat[inside].tolist(), strict=True)
        upper, lower = lower, lower / 2 if lower > best[0] / 4096 else 0.0


def _overlap_bits(boxes: NDArray[np.float32], nms: float, convention: BoxConfig) -> list[int]:
    """For each box one integer whose bit j says that box j overlaps it too much; float32 as in the compiled NMS."""
    x1, y1, x2, y2 = np.ascontiguousarray(boxes.T, np.float32)
    if convention.plus_one:
        x2, y2 = x2 + np.float32(1), y2 + np.float32(1)
    area = (x2 - x1) * (y2 - y1)
    width = np.minimum(x2[:, None], x2) - np.maximum(x1[:, None], x1)
    height = np.minimum(y2[:, None], y2) - np.maximum(y1[:, None], y1)
    common = np.maximum(width, 0) * np.maximum(height, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        iou = common / (area[:, None] + area - common)
    over = iou > np.float32(box_ops.strict_threshold(nms, convention))
    packed = np.packbits(over, axis=1, bitorder="little")
    return [int.from_bytes(row.tobytes(), "little") for row in packed]


def _best_class(boxes: Tensor, scores: Tensor, config: DetectorConfig) -> Tensor:
    """airsplay's rule: one NMS over every proposal's best-class box, loosened until ``regions`` remain."""
    rule = config.selection
    kept = torch.zeros(0, dtype=torch.int64)
    for threshold in rule.nms:
        kept = box_ops.nms(boxes, scores, threshold, config.boxes)
        if len(kept) >= rule.regions:
            break
    return kept[: rule.regions]


def _detections(
    proposals: Tensor, probabilities: Tensor, deltas: Tensor, height: float, width: float, config: DetectorConfig
) -> Selection:
    """detectron2's detections: every (proposal, class) above a score, NMS within each class, best first.

    Classes are suppressed one by one, not shifted apart by an offset: 1600 classes times a thousand pixels would leave
    float32 coordinates an eighth of a pixel.
    """
    rule = config.selection
    index, classes = (probabilities > rule.score_above).nonzero(as_tuple=True)
    scores = probabilities[index, classes]
    boxes = regress(proposals[index], deltas[index, classes], height, width, config)
    order = torch.zeros(0, dtype=torch.int64)
    for threshold in rule.nms:
        kept = [torch.zeros(0, dtype=torch.int64)]
        for column in sorted(set(classes.tolist())):
            members = (classes == column).nonzero()[:, 0]
            kept.append(members[box_ops.nms(boxes[members], scores[members], threshold, config.boxes)])
        order = torch.cat(kept).sort().values
        order = order[scores[order].sort(descending=True, stable=True).indices][: rule.regions]
        if len(order) >= rule.regions:
            break
    return Selection(index[order], boxes[order], scores[order], classes[order])
