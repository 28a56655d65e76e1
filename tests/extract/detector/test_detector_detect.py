"""Frames in, regions out: order, sizes, odd pictures, the bundled detector, what identifies a detector."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from regionvlp.errors import ConfigError, VideoError
from regionvlp.extract.detector import FAMILIES, RegionDetector
from regionvlp.extract.detector.precision import exact_float32
from regionvlp.regions import FrameRegions

Picture = Callable[..., NDArray[np.uint8]]


def check(found: FrameRegions, detector: RegionDetector, height: int, width: int) -> None:
    """Dtypes, shapes and ranges that every frame must keep to."""
    count, head = len(found), detector.config.head
    assert count <= detector.config.selection.regions
    assert found.features.shape == (count, detector.feature_width)
    assert found.boxes.shape == (count, 4)
    floats = (found.features, found.boxes, found.scores, found.attribute_scores)
    assert all(array.dtype == np.float32 and np.isfinite(array).all() for array in floats)
    assert found.class_ids.dtype == found.attribute_ids.dtype == np.int32
    assert ((found.class_ids >= 0) & (found.class_ids < head.classes)).all()
    assert ((found.attribute_ids >= 0) & (found.attribute_ids < head.attributes)).all()
    assert (found.boxes >= 0).all()
    assert (found.boxes <= np.asarray([width, height, width, height]) + 0.01).all()
    assert (np.diff(found.scores) <= 0).all()


def same(a: FrameRegions, b: FrameRegions) -> bool:
    return np.array_equal(a.boxes, b.boxes) and np.array_equal(a.features, b.features)


def test_mixed_sizes_keep_their_order(tiny: RegionDetector, picture: Picture) -> None:
    frames = [picture(n, height, width) for n, (height, width) in enumerate([(90, 120), (64, 64), (90, 120), (50, 99)])]
    tiny.max_batch = 1
    together = tiny.detect(frames)
    for found, frame in zip(together, frames, strict=True):
        check(found, tiny, *frame.shape[:2])
        assert len(found) > 0
        assert same(found, tiny.detect([frame])[0])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (2, 2), (1, 300), (300, 1), (30, 10000), (1, 10000), (16, 17), (700, 1300)]
)
def test_odd_sizes_never_crash(
    family: str, height: int, width: int, native_state: Callable[..., object], picture: Picture, tmp_path: Path
) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(native_state(family), path)
    overrides = {"input": {"short_side": 96, "long_side": 160}, "rpn": {"candidates": 500}}
    detector = RegionDetector.load(str(path), device="cpu", overrides=overrides, proposals=40)
    check(detector.detect([picture(0, height, width)])[0], detector, height, width)


def test_flat_frames(tiny: RegionDetector) -> None:
    for level in (0, 128, 255):
        check(tiny.detect([np.full((90, 120, 3), level, np.uint8)])[0], tiny, 90, 120)


def test_nothing_proposed_gives_no_regions(tiny_file: Path, picture: Picture) -> None:
    detector = RegionDetector.load(str(tiny_file), device="cpu", overrides={"rpn": {"min_side": 1000}})
    found = detector.detect([picture(), picture(1)])
    assert [len(frame) for frame in found] == [0, 0]
    assert found[0].features.shape == (0, 128)
    assert detector.detect([]) == []


@pytest.mark.parametrize(
    "frame",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)],
)
def test_what_is_no_picture_is_refused(frame: NDArray[np.uint8], tiny: RegionDetector) -> None:
    with pytest.raises(VideoError, match="expected uint8") as caught:
        tiny.detect([frame])
    assert (caught.value.stage, caught.value.reason) == ("detect", "bad-frame")


def test_colour_order_matters(tiny: RegionDetector, picture: Picture) -> None:
    frame = picture()
    assert not same(tiny.detect([frame])[0], tiny.detect([frame[:, :, ::-1]])[0])


def test_given_boxes_are_all_kept_in_their_order(tiny: RegionDetector, picture: Picture) -> None:
    frames = [picture(0), picture(1, 64, 64)]
    boxes = [np.asarray([[5, 5, 60, 60], [0, 0, 119, 89], [-10, 3, 500, 20]], np.float32), np.zeros((0, 4), np.float32)]
    first, second = tiny.regions_for_boxes(frames, boxes)
    np.testing.assert_array_equal(first.boxes, boxes[0])
    assert (len(first), len(second)) == (3, 0)
    found = tiny.detect([frames[0]])[0]
    again = tiny.regions_for_boxes([frames[0]], [found.boxes])[0]
    np.testing.assert_allclose(again.scores, found.scores, atol=0.05)
    assert (again.class_ids == found.class_ids).mean() > 0.9


def test_identity_says_what_matters_and_nothing_else(tiny: RegionDetector, tiny_file: Path, tmp_path: Path) -> None:
    identity = tiny.identity()
    assert json.loads(json.dumps(identity)) == identity
    assert str(tmp_path) not in json.dumps(identity)
    moved = tiny_file.rename(tmp_path / "elsewhere.safetensors")
    again = RegionDetector.load(str(moved), device="cpu", overrides=tiny.config.model_dump(), max_batch=2)
    assert again.identity() == identity
    changes = ({"regions": 12}, {"selection": "suppressed"}, {"proposals": 9})
    loosened = {**tiny.config.model_dump(), "rpn": {**tiny.config.rpn.model_dump(), "nms": 0.6}}
    for change in ({"overrides": loosened}, *({"overrides": tiny.config.model_dump()} | change for change in changes)):
        assert RegionDetector.load(str(moved), device="cpu", **change).identity() != identity


def test_an_unknown_device_is_named(tiny_file: Path) -> None:
    with pytest.raises(ConfigError, match="no device 'tpu'"):
        RegionDetector.load(str(tiny_file), device="tpu")


def test_the_toy_comes_with_the_package(picture: Picture) -> None:
    toy = RegionDetector.load("toy", device="cpu")
    for seed, (height, width) in enumerate([(120, 160), (240, 320), (128, 96)]):
        found = toy.detect([picture(seed, height, width)])[0]
        check(found, toy, height, width)
        assert len(found) == len(np.unique(found.boxes, axis=0)) == 30
        assert len(np.unique(found.scores)) > 10
        assert (found.features.std(axis=0) > 0).mean() > 0.5


def test_exact_float32_puts_everything_back() -> None:
    matmul, before = torch.backends.cuda.matmul, torch.backends.cudnn.deterministic
    with exact_float32():
        assert torch.backends.cudnn.deterministic
        assert not matmul.allow_tf32
    assert torch.backends.cudnn.deterministic == before
