"""What a model of pixels looks at: rectangles within the frame, one for a clip, and pixels that were really there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from regionvlp.data.clips.transforms import SIDE_RATIO, View, central_view, drawn_views, look
from regionvlp.data.draws import Draws

WHOLE = View((0.0, 0.0, 1.0, 1.0))


def draws(count: int, seed: int = 0) -> Draws:
    return Draws((seed,), np.arange(count))


@pytest.mark.parametrize("frame", [(240, 320), (320, 240), (7, 500), (1, 1)])
@pytest.mark.parametrize("wanted", [(224, 224), (24, 40)])
def test_the_central_rectangle_is_the_largest_of_its_shape(frame: tuple[int, int], wanted: tuple[int, int]) -> None:
    left, top, across, down = central_view(frame, wanted).box
    assert max(across, down) == pytest.approx(1)
    assert (across * frame[1]) / (down * frame[0]) == pytest.approx(wanted[1] / wanted[0])
    assert (left, top) == pytest.approx(((1 - across) / 2, (1 - down) / 2))


def test_drawn_rectangles_have_the_area_and_the_ratio_that_were_asked_for() -> None:
    height, width, count = 240, 320, 4000
    views = drawn_views([(height, width)] * count, draws(count), (0.5, 1.0), 0.5)
    left, top, across, down = np.array([view.box for view in views]).T
    assert (np.minimum(left, top) >= 0).all()
    assert (left + across <= 1 + 1e-9).all()
    assert (top + down <= 1 + 1e-9).all()
    area, ratio = across * down, (across * width) / (down * height)
    assert 0.5 <= area.min() < 0.51
    assert 0.9 < area.max() <= 1  # only a rectangle of the frame's own ratio reaches 1
    assert ratio.min() >= SIDE_RATIO[0] - 1e-9
    assert ratio.max() <= SIDE_RATIO[1] + 1e-9
    assert np.mean([view.mirrored for view in views]) == pytest.approx(0.5, abs=0.03)
    assert len({view.box for view in views}) > count - 20  # nothing fits now and then, and the middle is taken


def test_a_frame_that_no_drawn_rectangle_fits_gives_its_middle() -> None:
    (view,) = drawn_views([(10, 1000)], draws(1), (0.9, 1.0), 0.0)
    left, top, across, down = view.box
    assert (across * 1000) / (down * 10) == pytest.approx(SIDE_RATIO[1])
    assert (left, top, down) == (pytest.approx((1 - across) / 2), 0, 1)


def test_what_is_looked_at_is_what_is_there() -> None:
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (8, 12, 3), dtype=np.uint8)
    assert torch.equal(look([frame], WHOLE, (8, 12), antialias=True)[0], torch.from_numpy(frame).permute(2, 0, 1))
    cut = look([frame], View((0.25, 0.5, 0.5, 0.5)), (4, 6), antialias=False)[0]
    assert torch.equal(cut, torch.from_numpy(frame[4:8, 3:9]).permute(2, 0, 1))
    mirrored = look([frame], View((0.25, 0.5, 0.5, 0.5), mirrored=True), (4, 6), antialias=False)[0]
    assert torch.equal(mirrored, cut.flip(-1))


def test_frames_of_unlike_size_are_cut_alike() -> None:
    small = np.zeros((10, 20, 3), np.uint8)
    small[5:, 10:] = 200
    large = np.kron(small, np.ones((3, 3, 1), np.uint8))
    both = look([small, large], View((0.5, 0.5, 0.5, 0.5)), (6, 6), antialias=True)
    assert (both == 200).all()


@pytest.mark.parametrize("antialias", [True, False])
def test_smaller_pictures_with_and_without_aliasing(antialias: bool) -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::4] = 255  # a quarter of white
    found = look([stripes], WHOLE, (8, 8), antialias=antialias).float()[..., 1:-1]  # at the edge the filter is cut
    assert bool((found - 255 / 4).abs().max() < 6) is antialias


@pytest.mark.parametrize("frame", [(1, 1), (2, 3)])
def test_tiny_pictures_still_give_one_pixel(frame: tuple[int, int]) -> None:
    picture = np.full((*frame, 3), 9, np.uint8)
    assert (look([picture], View((0.9, 0.9, 0.05, 0.05)), (4, 4), antialias=True) == 9).all()
