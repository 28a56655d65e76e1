"""Half precision against float32: features of given boxes, the only fair comparison on random weights.

Rounding moves proposals of random networks far more than of trained ones, so boxes are given and features compared.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from regionvlp.extract.detector import RegionDetector

from .detector_case import Array, DetectorCase, is_full_size
from .discovery import Case, cases

LOWEST_COSINE = {"bf16": 0.995, "fp16": 0.9998}
CASES = [
    *cases("detector", "caffe_", slow=is_full_size),
    *cases("detector", "maxnms_", slow=is_full_size),
    *cases("detector", "d2_", slow=is_full_size),
]


@pytest.mark.parametrize("precision", LOWEST_COSINE)
@pytest.mark.parametrize("case", CASES)
def test_features_of_given_boxes(case: Case, precision: str, tmp_path: Path) -> None:
    golden = DetectorCase(case, tmp_path)
    # fp16 is emulated on most processors: a few regions say as much as all.
    boxes = [_proposals(golden, image)[: 30 if is_full_size(case) else None] for image in golden.images]
    frames = [golden.frame(image) for image in golden.images]
    reduced = RegionDetector(golden.weights, device="cpu", precision=precision)
    assert reduced.identity() != golden.detector.identity()
    pairs = zip(golden.detector.regions_for_boxes(frames, boxes), reduced.regions_for_boxes(frames, boxes), strict=True)
    for exact, rounded in pairs:
        assert _cosines(exact.features, rounded.features).min() >= LOWEST_COSINE[precision]


def _proposals(golden: DetectorCase, image: int) -> Array:
    resize = golden.resize(image)
    scale = np.asarray([resize.scale_x, resize.scale_y] * 2, np.float32)
    boxes: Array = golden[f"img{image}/proposal_boxes"] / scale
    return boxes


def _cosines(a: Array, b: Array) -> Array:
    found: Array = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return found
