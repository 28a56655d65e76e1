"""Box arithmetic against loops that follow the conventions word for word."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from regionvlp.extract.detector import FAMILIES
from regionvlp.extract.detector.boxes import clip, decode, nms
from regionvlp.extract.detector.config import BoxConfig
from regionvlp.extract.detector.rpn import cell_anchors, shifted_anchors

CAFFE, PLAIN = FAMILIES["caffe"].boxes, FAMILIES["maxnms"].boxes


def slow_nms(boxes: NDArray[np.float32], scores: NDArray[np.float32], threshold: float, rule: BoxConfig) -> list[int]:
    one, kept = np.float32(rule.plus_one), []
    limit = np.float32(threshold)
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        for j in kept:
            (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = boxes[i], boxes[j]
            width = max(np.float32(0), min(ax2, bx2) - max(ax1, bx1) + one)
            height = max(np.float32(0), min(ay2, by2) - max(ay1, by1) + one)
            common = width * height
            union = (ax2 - ax1 + one) * (ay2 - ay1 + one) + (bx2 - bx1 + one) * (by2 - by1 + one) - common
            if common / union > limit or (rule.suppress_equal and common / union == limit):
                break
        else:
            kept.append(i)
    return kept


def random_boxes(rng: np.random.Generator, count: int, whole: bool) -> NDArray[np.float32]:
    corner, size = rng.uniform(0, 12, (count, 2)), rng.uniform(1, 10, (count, 2))
    boxes = np.concatenate((corner, corner + size), axis=1)
    return (boxes.round() if whole else boxes).astype(np.float32)


@pytest.mark.parametrize("rule", [CAFFE, PLAIN], ids=["caffe", "plain"])
@pytest.mark.parametrize("whole", [True, False], ids=["whole pixels, so exact ties", "fractions"])
def test_nms_is_the_slow_loop(rule: BoxConfig, whole: bool) -> None:
    rng = np.random.default_rng(1)
    for _ in range(60):
        boxes = random_boxes(rng, 24, whole)
        scores = rng.permutation(24).astype(np.float32)
        threshold = float(rng.choice([0.25, 0.3, 1 / 3, 0.5, 0.7]))
        ours = nms(torch.from_numpy(boxes), torch.from_numpy(scores), threshold, rule).tolist()
        assert ours == slow_nms(boxes, scores, threshold, rule)


def test_an_iou_at_the_threshold_is_suppressed_only_by_caffe() -> None:
    boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [0.0, 5.0, 9.0, 9.0]])  # 50 of 100 pixels, both ends counted
    scores = torch.tensor([0.9, 0.8])
    assert nms(boxes, scores, 0.5, CAFFE).tolist() == [0]
    assert nms(boxes, scores, 0.5, CAFFE.model_copy(update={"suppress_equal": False})).tolist() == [0, 1]


def test_decode_measures_sizes_by_the_convention() -> None:
    box, still = torch.tensor([10.0, 20.0, 19.0, 39.0]), torch.zeros(4)
    # With plus one the box is 10 x 20 around (15, 30), and the new corners do not take the one back.
    assert decode(box, still, (1, 1, 1, 1), CAFFE).tolist() == [10, 20, 20, 40]
    assert decode(box, still, (1, 1, 1, 1), PLAIN).tolist() == [10, 20, 19, 39]
    moved = decode(box, torch.tensor([1.0, 0.0, 5 * math.log(2), 0.0]), (10, 10, 5, 5), PLAIN)
    torch.testing.assert_close(moved, torch.tensor([6.4, 20.0, 24.4, 39.0]))


def test_decode_caps_the_growth() -> None:
    grown = decode(torch.tensor([0.0, 0.0, 16.0, 16.0]), torch.tensor([0.0, 0.0, 50.0, 0.0]), (1, 1, 1, 1), PLAIN)
    assert grown[2] - grown[0] == pytest.approx(1000)


def test_clip_ends_at_the_last_pixel_or_at_the_edge() -> None:
    box = torch.tensor([[-5.0, -1.0, 200.0, 300.0]])
    assert clip(box, 100, 150, CAFFE).tolist() == [[0, 0, 149, 99]]
    assert clip(box, 100, 150, PLAIN).tolist() == [[0, 0, 150, 100]]


def test_caffe_anchors_are_the_known_table() -> None:
    table = [
        [-38, -16, 53, 31], [-84, -40, 99, 55], [-176, -88, 191, 103], [-360, -184, 375, 199],
        [-24, -24, 39, 39], [-56, -56, 71, 71], [-120, -120, 135, 135], [-248, -248, 263, 263],
        [-14, -36, 29, 51], [-36, -80, 51, 95], [-80, -168, 95, 183], [-168, -344, 183, 359],
    ]  # fmt: skip
    assert cell_anchors(FAMILIES["caffe"].rpn.anchors).tolist() == table


def test_centred_anchors_are_size_major_and_keep_their_area() -> None:
    anchors = cell_anchors(FAMILIES["d2"].rpn.anchors)
    sides = anchors[:, 2:] - anchors[:, :2]
    assert anchors.shape == (15, 4)
    np.testing.assert_allclose(sides.prod(axis=1) ** 0.5, np.repeat([32, 64, 128, 256, 512], 3), rtol=1e-6)
    np.testing.assert_allclose(sides[:, 1] / sides[:, 0], [0.5, 1, 2] * 5, rtol=1e-6)
    np.testing.assert_allclose(anchors[:, :2], -anchors[:, 2:])


def test_anchors_go_over_the_map_row_by_row() -> None:
    cell = torch.tensor([[0.0, 0.0, 1.0, 1.0], [2.0, 2.0, 3.0, 3.0]])
    every = shifted_anchors(cell, 2, 3)
    assert every.shape == (12, 4)
    assert every[2 * (1 * 3 + 2) + 1].tolist() == [34, 18, 35, 19]  # row 1, column 2, anchor 1
