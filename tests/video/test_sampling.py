"""uniform_indices and frame_times against what they promise."""

from __future__ import annotations

from typing import Any

import pytest

from regionvlp.data.clips.frame_choice import FrameChoice
from regionvlp.data.draws import Draws
from regionvlp.video import uniform_indices
from regionvlp.video.decoded import frame_times
from regionvlp.video.sampling import FrameRule


@pytest.mark.parametrize(
    ("num_frames", "count", "expected"),
    [
        (300, 8, [18, 55, 93, 130, 168, 205, 243, 280]),
        (10, 8, [0, 1, 2, 3, 5, 6, 7, 8]),
        (5, 8, [0, 1, 2, 3, 4]),
        (8, 8, list(range(8))),
        (1, 1, [0]),
        (2, 1, [0]),
        (0, 4, []),
    ],
)
def test_known_indices(num_frames: int, count: int, expected: list[int]) -> None:
    assert uniform_indices(num_frames, count) == expected


def test_each_index_is_the_middle_of_its_own_segment() -> None:
    for num_frames in range(1, 70):
        for count in range(1, 20):
            chosen = uniform_indices(num_frames, count)
            segments = min(count, num_frames)
            assert len(chosen) == segments
            for i, index in enumerate(chosen):
                members = [f for f in range(num_frames) if num_frames * i // segments <= f]
                members = [f for f in members if f < num_frames * (i + 1) // segments]
                assert index == members[(len(members) - 1) // 2]


def test_the_indices_of_the_sample_clips(true_frames: dict[str, Any]) -> None:
    for clip in true_frames.values():
        assert uniform_indices(clip["frames"], 8) == clip["indices"]


@pytest.mark.parametrize(("num_frames", "count"), [(-1, 8), (10, 0)])
def test_impossible_requests_are_refused(num_frames: int, count: int) -> None:
    with pytest.raises(ValueError, match="cannot take"):
        uniform_indices(num_frames, count)


def test_times_come_from_the_container_while_they_rise() -> None:
    assert frame_times([0, 5], [8.3, 8.4], 10.0).tolist() == [8.3, 8.4]
    assert frame_times([0, 5], [8.3, None], 10.0).tolist() == [0.0, 0.5]
    assert frame_times([0, 5, 6], [0.1, 0.4, 0.3], 10.0).tolist() == [0.0, 0.5, 0.6]


def test_places_lie_where_a_draw_says() -> None:
    assert FrameRule(4, (0.0, 0.999, 0.5, 0.0)).indices(20) == [0, 9, 12, 15]
    assert FrameRule(4, (0.9, 0.9, 0.9, 0.9)).indices(2) == [0, 1]  # a short video gives each frame once
    assert FrameRule(3, (0.5, 0.5, 0.5)).indices(0) == []
    assert FrameRule(5).indices(97) == uniform_indices(97, 5)


def test_places_are_the_draws_of_training() -> None:
    choice, draws = FrameChoice(6), Draws((3, 4), range(40))
    for length in (1, 4, 6, 7, 31, 1000):
        slots, shown = choice.slots([length] * 40, draws)
        for places, row, real in zip(choice.places(draws), slots, shown, strict=True):
            assert FrameRule(6, tuple(places.tolist())).indices(length) == row[real].tolist()


@pytest.mark.parametrize(("count", "places"), [(0, None), (2, (0.5,)), (2, (0.5, 1.0)), (1, (-0.1,))])
def test_no_places(count: int, places: tuple[float, ...] | None) -> None:
    with pytest.raises(ValueError, match=r"cannot take|as many places"):
        FrameRule(count, places)
