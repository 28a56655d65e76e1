"""The selection rules against the loops that they stand for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from regionvlp.extract.detector import FAMILIES
from regionvlp.extract.detector.boxes import nms
from regionvlp.extract.detector.config import DetectorConfig
from regionvlp.extract.detector.head import regress
from regionvlp.extract.detector.selection import select, stored_by_milvlg, suppressed_scores
from regionvlp.extract.detector.selection_batched import suppressed_at_once

CAFFE = FAMILIES["caffe"].boxes
Floats = NDArray[np.float32]


def slow_scores(boxes: Floats, probabilities: Floats) -> Floats:
    """One NMS per class; a box scores its best probability among the classes that keep it."""
    scores = np.zeros(len(boxes), np.float32)
    for column in probabilities.T:
        # Sorted beforehand, so that ties go to the lower index whatever torchvision does with them.
        order = np.argsort(-column, kind="stable")
        ranks = torch.arange(len(order), 0, -1, dtype=torch.float32)
        kept = order[nms(torch.from_numpy(boxes[order]), ranks, 0.3, CAFFE).numpy()]
        scores[kept] = np.maximum(scores[kept], column[kept])
    return scores


def slow_stored(scores: Floats, min_boxes: int, max_boxes: int, threshold: float) -> list[int]:
    best = np.argsort(-scores, kind="stable")
    passed = np.flatnonzero(scores >= np.float32(threshold))
    if len(passed) < min_boxes:
        return best[:min_boxes].tolist()
    if len(passed) > max_boxes:
        return best[:max_boxes].tolist()
    return passed.tolist()


def random_frame(seed: int, tied: bool, count: int = 60, classes: int = 25) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    corner, size = rng.integers(0, 60, (count, 2)), rng.integers(5, 50, (count, 2))
    boxes = np.concatenate((corner, corner + size), axis=1).astype(np.float32)
    logits = rng.normal(size=(count, classes)) * rng.choice([1, 3, 8])
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    if tied:
        probabilities = np.floor(probabilities * 16) / 16  # many equal, many zero
    return boxes, probabilities.astype(np.float32)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_the_walk_scores_like_one_nms_per_class(seed: int, tied: bool) -> None:
    boxes, probabilities = random_frame(seed, tied)
    expected = slow_scores(boxes, probabilities)
    order, scores = suppressed_scores(boxes, probabilities, 0.3, CAFFE, enough=len(boxes))
    assert order.tolist() == np.argsort(-expected, kind="stable").tolist()
    np.testing.assert_array_equal(expected[order], scores)
    for enough in (1, 7, 30):  # stopping early changes nothing in what was settled
        few, few_scores = suppressed_scores(boxes, probabilities, 0.3, CAFFE, enough=enough)
        assert few.tolist() == order[:enough].tolist()
        assert few_scores.tolist() == scores[:enough].tolist()


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", ["caffe", "maxnms"])
def test_all_classes_at_once_score_like_the_walk(family: str, tied: bool) -> None:
    """The form for a GPU, on frames with different numbers of proposals, one of them with none."""
    convention = FAMILIES[family].boxes
    frames = [random_frame(seed, tied, count) for seed, count in enumerate((60, 0, 33, 1, 47))]
    boxes, probabilities = ([torch.from_numpy(part) for part in parts] for parts in zip(*frames, strict=True))
    found = suppressed_at_once(boxes, probabilities, 0.3, convention)
    for scores, (box, probability) in zip(found, frames, strict=True):
        order, expected = suppressed_scores(box, probability, 0.3, convention, enough=len(box))
        np.testing.assert_array_equal(scores.numpy()[order], expected)
        assert np.argsort(-scores.numpy(), kind="stable").tolist() == order.tolist()
    assert [len(scores) for scores in suppressed_at_once(boxes[1:2], probabilities[1:2], 0.3, convention)] == [0]


@pytest.mark.parametrize("rule", ["public", "suppressed"])
@pytest.mark.parametrize("seed", range(4))
def test_known_scores_select_what_the_walk_selects(
    seed: int, rule: str, tiny_config: Callable[..., DetectorConfig]
) -> None:
    config = tiny_config(selection={"rule": rule, "regions": 12, "max_boxes": 20})
    boxes, probabilities = (torch.from_numpy(part) for part in random_frame(seed, tied=False))
    known = suppressed_at_once([boxes], [probabilities], config.selection.nms[0], config.boxes)[0]
    walked = select(boxes, probabilities, None, 200, 200, config)
    assert select(boxes, probabilities, None, 200, 200, config, known).index.tolist() == walked.index.tolist()


@pytest.mark.parametrize(
    "setting", [(10, 100, 0.2), (30, 30, 0.2), (5, 12, 0.2), (40, 50, 0.6), (0, 20, 0.2), (10, 100, 0.0), (5, 12, 0.0)]
)
@pytest.mark.parametrize("seed", range(8))
def test_what_milvlg_stores(seed: int, setting: tuple[int, int, float]) -> None:
    boxes, probabilities = random_frame(seed, tied=False)
    expected = slow_stored(slow_scores(boxes, probabilities), *setting)
    assert stored_by_milvlg(boxes, probabilities, 0.3, CAFFE, *setting).tolist() == expected


def test_the_threshold_is_inclusive_and_between_the_limits_the_order_is_the_proposals() -> None:
    boxes = np.asarray([[x, 0, x + 9, 9] for x in (0, 100, 200)], np.float32)
    probabilities = np.asarray([[0.2, 0.1], [0.19, 0.1], [0.3, 0.7]], np.float32)
    assert stored_by_milvlg(boxes, probabilities, 0.3, CAFFE, 1, 3, 0.2).tolist() == [0, 2]
    assert stored_by_milvlg(boxes, probabilities, 0.3, CAFFE, 3, 3, 0.2).tolist() == [2, 0, 1]


def test_no_proposals_and_fewer_than_asked() -> None:
    nothing = np.zeros((0, 4), np.float32), np.zeros((0, 25), np.float32)
    assert stored_by_milvlg(*nothing, 0.3, CAFFE, 10, 100, 0.2).tolist() == []
    boxes, probabilities = random_frame(0, tied=False, count=3)
    assert len(stored_by_milvlg(boxes, probabilities, 0.3, CAFFE, 10, 100, 0.2)) == 3


def chosen(
    config: DetectorConfig, seed: int, tied: bool = False
) -> tuple[Any, torch.Tensor, torch.Tensor, torch.Tensor]:
    boxes, probabilities = (torch.from_numpy(array) for array in random_frame(seed, tied, classes=20))
    deltas = torch.from_numpy(np.random.default_rng(seed).normal(size=(60, 20, 4)).astype(np.float32))
    needed = deltas if config.selection.boxes == "regressed" else None
    return select(boxes, probabilities, needed, 100, 110, config), boxes, probabilities, deltas


@pytest.mark.parametrize("seed", range(4))
def test_public_sorts_the_stored_regions_by_raw_probability(
    seed: int, tiny_config: Callable[..., DetectorConfig]
) -> None:
    ours, boxes, probabilities, _ = chosen(tiny_config(), seed, tied=True)
    scores = slow_scores(boxes.numpy(), probabilities.numpy())
    stored = slow_stored(scores, 10, 100, 0.2)
    raw = probabilities.max(dim=1).values
    expected = sorted(stored, key=lambda n: (-float(raw[n]), n))[:30]
    assert ours.index.tolist() == expected
    assert ours.scores.tolist() == raw[ours.index].tolist()
    assert ours.boxes.tolist() == boxes[ours.index].tolist()


def test_suppressed_takes_the_best_scores_first(tiny_config: Callable[..., DetectorConfig]) -> None:
    ours, boxes, probabilities, _ = chosen(tiny_config(selection={"rule": "suppressed", "regions": 12}), 1)
    scores = slow_scores(boxes.numpy(), probabilities.numpy())
    assert ours.index.tolist() == np.argsort(-scores, kind="stable")[:12].tolist()


def test_best_class_loosens_its_threshold(tiny_config: Callable[..., DetectorConfig]) -> None:
    config = tiny_config("maxnms", selection={"regions": 25})
    ours, boxes, probabilities, deltas = chosen(config, 2)
    scores, classes = probabilities.max(dim=1)
    moved = regress(boxes, deltas[torch.arange(60), classes], 100, 110, config)
    for threshold in config.selection.nms:
        kept = nms(moved, scores, threshold, config.boxes)
        if len(kept) >= 25:
            break
    assert ours.index.tolist() == kept[:25].tolist()
    torch.testing.assert_close(ours.boxes, moved[ours.index])
    assert ours.boxes.min() >= 0
    assert ours.boxes[:, 2].max() <= 110


def test_detections_suppress_within_each_class(tiny_config: Callable[..., DetectorConfig]) -> None:
    config = tiny_config("d2", selection={"regions": 40})
    ours, boxes, probabilities, deltas = chosen(config, 3)
    expected = []
    for column in range(20):
        members = (probabilities[:, column] > 0.05).nonzero()[:, 0]
        moved = regress(boxes[members], deltas[members, column], 100, 110, config)
        kept = members[nms(moved, probabilities[members, column], 0.5, config.boxes)]
        expected += [(-float(probabilities[n, column]), int(n), column) for n in kept]
    expected = sorted(expected)[:40]
    assert list(zip(ours.index.tolist(), ours.class_ids.tolist(), strict=True)) == [e[1:] for e in expected]
