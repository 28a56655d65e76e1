"""uniform_indices and frame_times against what they promise."""

from __future__ import annotations

from typing import Any

import pytest

from regionvlp.video import uniform_indices
from regionvlp.video.decoded import frame_times


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
