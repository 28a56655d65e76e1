"""Sizes, resampling and colour order of the network's input."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from regionvlp.extract.detector import FAMILIES
from regionvlp.extract.detector.config import InputConfig
from regionvlp.extract.detector.preprocess import plan_resize, preprocess

CAFFE, MAXNMS = FAMILIES["caffe"].input, FAMILIES["maxnms"].input
Picture = Callable[..., NDArray[np.uint8]]


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (720, 1280, (562, 1000)),  # 562.5 rounds to the even neighbour
        (1080, 1920, (562, 1000)),
        (480, 640, (600, 800)),
        (640, 480, (800, 600)),
        (1, 1, (600, 600)),
        (30, 10000, (3, 1000)),
        (1, 10000, (0, 1000)),
    ],
)
def test_caffe_sizes(height: int, width: int, expected: tuple[int, int]) -> None:
    plan = plan_resize(height, width, CAFFE)
    assert (plan.new_height, plan.new_width) == expected
    assert plan.scale_x == plan.scale_y


def test_detectron2_sizes_round_half_up_and_scale_each_axis() -> None:
    assert plan_resize(400, 603, CAFFE).new_width == 904  # of 904.5
    plan = plan_resize(400, 603, MAXNMS)
    assert (plan.new_height, plan.new_width) == (600, 905)
    assert (plan.scale_y, plan.scale_x) == (600 / 400, 905 / 603)


def slow_bilinear(plane: NDArray[np.float64], shape: tuple[int, int], scale: float) -> NDArray[np.float64]:
    height, width = plane.shape
    out = np.zeros(shape)
    for i in range(shape[0]):
        for j in range(shape[1]):
            y = min(max((i + 0.5) / scale - 0.5, 0), height - 1)
            x = min(max((j + 0.5) / scale - 0.5, 0), width - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            upper = plane[top, left] * (1 - x + left) + plane[top, right] * (x - left)
            lower = plane[bottom, left] * (1 - x + left) + plane[bottom, right] * (x - left)
            out[i, j] = upper * (1 - y + top) + lower * (y - top)
    return out


@pytest.mark.parametrize(("height", "width"), [(37, 53), (90, 41)])
def test_opencv_float_is_bilinear_with_one_exact_scale(height: int, width: int) -> None:
    config = CAFFE.model_copy(update={"short_side": 48, "long_side": 80})
    frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    plan = plan_resize(height, width, config)
    ours = preprocess(torch.from_numpy(frame[None]), plan, config)[0].numpy()
    for channel, colour in enumerate((2, 1, 0)):
        plane = frame[:, :, colour] - np.float64(config.mean_bgr[channel])
        expected = slow_bilinear(plane, (plan.new_height, plan.new_width), plan.scale_x)
        np.testing.assert_allclose(ours[channel], expected, atol=5e-3)


def test_pillow_uint8_is_pillow_minus_the_mean(picture: Picture) -> None:
    frame = picture()
    plan = plan_resize(90, 120, MAXNMS)
    resized = Image.fromarray(frame).resize((plan.new_width, plan.new_height), Image.Resampling.BILINEAR)
    expected = np.asarray(resized, np.float32)[:, :, ::-1] - np.asarray(MAXNMS.mean_bgr, np.float32)
    ours = preprocess(torch.from_numpy(frame[None]), plan, MAXNMS)[0]
    np.testing.assert_array_equal(ours.permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("resample", ["opencv_float", "pillow_uint8", "torch_float"])
def test_red_ends_in_the_last_channel(resample: str) -> None:
    config = InputConfig.model_validate({**CAFFE.model_dump(), "resample": resample})
    frame = np.zeros((1, 60, 80, 3), np.uint8)
    frame[..., 0] = 200
    ours = preprocess(torch.from_numpy(frame), plan_resize(60, 80, config), config)
    assert ours.shape == (1, 3, 600, 800)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    expected = (-config.mean_bgr[0], -config.mean_bgr[1], 200 - config.mean_bgr[2])
    np.testing.assert_allclose(ours[0].mean(dim=(1, 2)), expected, atol=1e-3)
