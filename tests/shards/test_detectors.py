"""Whether a detector's boxes count their last pixel: what its identity says, and what it leaves to its family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regionvlp.errors import ShardError
from regionvlp.extract.detector import FAMILIES
from regionvlp.extract.detector.registry import DetectorFiles
from regionvlp.extract.detector.weights import load_weights
from regionvlp.pipelines.measure import region_edges
from regionvlp.regions import VideoRegions
from regionvlp.shards import Manifest
from regionvlp.shards.detectors import box_edges, completed, counts_last_pixel
from regionvlp.training.identity import check_detector

SMALL = {
    "backbone": {"blocks": [1, 1, 1, 1], "stem": 8, "bottleneck": 4, "channels": 8},
    "rpn": {"width": 8},
    "head": {"classes": 3, "attributes": 0},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_family_decides_where_nothing_is_said(family: str) -> None:
    assert counts_last_pixel({"family": family}) is FAMILIES[family].boxes.plus_one
    assert counts_last_pixel({"family": family, "plus_one": not FAMILIES[family].boxes.plus_one}) is (
        not FAMILIES[family].boxes.plus_one
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("stated", [None, True, False])
def test_a_detector_says_it(family: str, stated: bool | None) -> None:
    settings: dict[str, Any] = {**SMALL, "boxes": {} if stated is None else {"plus_one": stated}}
    files = DetectorFiles("a test", None, family=family, random_seed=1, settings=settings)
    identity = load_weights(files, {}).identity()
    assert identity["plus_one"] is (FAMILIES[family].boxes.plus_one if stated is None else stated)
    assert counts_last_pixel(identity) is identity["plus_one"]


def test_detectors_of_no_family() -> None:
    assert not counts_last_pixel({})
    assert not counts_last_pixel({"name": "somebody's", "family": "theirs"})
    assert counts_last_pixel({"name": "somebody's", "plus_one": True})
    assert counts_last_pixel({"name": "public-npz"})
    assert completed({"name": "somebody's"}) == {"name": "somebody's"}


def test_old_folders_and_new_ones_agree(tmp_path: Path, make_manifest: Callable[..., Manifest]) -> None:
    old, new = {"name": "x", "family": "caffe"}, {"name": "x", "family": "caffe", "plus_one": True}
    for number, (first, second) in enumerate(((old, new), (new, old))):
        Manifest.create_or_check(tmp_path / str(number), make_manifest(detector=first))
        found = Manifest.create_or_check(tmp_path / str(number), make_manifest(detector=second))
        assert found.detector == first
        check_detector(first, second, "another")
    other = {**old, "plus_one": False}
    with pytest.raises(ShardError, match=r"detector.plus_one is true there and false in this run"):
        Manifest.create_or_check(tmp_path / "0", make_manifest(detector=other))
    with pytest.raises(ShardError, match="plus_one is false there, not true"):
        check_detector(old, other, "another")


def test_edges(make_video: Callable[..., VideoRegions]) -> None:
    boxes = np.array([[3, 4, 5, 9]], np.float32)
    assert box_edges(boxes, True).tolist() == [[3, 4, 6, 10]]
    assert box_edges(boxes, False).tolist() == [[3, 4, 5, 9]]
    assert box_edges(boxes, True).dtype == np.float32
    video = make_video("a", counts=[2, 1, 0, 3])
    one, other = (region_edges(video, 7, last_pixel) for last_pixel in (True, False))
    assert one.shape == other.shape == (4, 7, 4)
    np.testing.assert_array_equal(other[:, :5], video.boxes)
    np.testing.assert_array_equal(one - other, np.broadcast_to(np.float32([0, 0, 1, 1]), one.shape))
