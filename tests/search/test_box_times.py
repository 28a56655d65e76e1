"""Boxes belong to frames: their times count from the first frame of the file, and the frame drawn is theirs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from regionvlp.search.answers import word_answers
from regionvlp.search.clips import Clip, Evidence, first_stamp
from regionvlp.search.page import picture_at
from regionvlp.video import read_frames


def evidence(times: list[float]) -> Evidence:
    n = len(times)
    return Evidence(
        np.array(times),
        np.array([(48, 64)] * n, np.int32),
        np.arange(n, dtype=np.int16),
        np.zeros(n, np.int16),
        np.ones((n, 4), np.float32),
        np.ones(n, np.float32),
        ["dog"] * n,
    )


WINDOW = Clip("a.mp4@8s", "a.mp4", "", 8.0, 12.0, "")


@pytest.mark.parametrize(
    ("clip", "stamps", "first"),
    [
        (WINDOW, [8.5, 9.5, 10.5, 11.5], 0.0),
        (WINDOW, [16.8, 17.8, 18.8, 19.8], 8.3),  # the file's first frame is stamped 8.3
        (replace(WINDOW, start=0.0, end=3.5), [0.5, 1.5, 2.5, 3.5], 0.0),
        (replace(WINDOW, start=0.0, end=0.0), [0.0], 0.0),  # a picture
        (WINDOW, [], 0.0),
    ],
)
def test_times_count_from_the_first_frame_of_the_file(clip: Clip, stamps: list[float], first: float) -> None:
    seen = evidence(stamps)
    assert first_stamp(seen, clip) == pytest.approx(first)
    (answer,) = word_answers(["dog"], np.ones((1, len(stamps)), np.float32), seen, clip)
    assert [box.time for box in answer.boxes] == pytest.approx([stamp - first for stamp in stamps])


def test_the_frame_of_a_time_is_drawn(tmp_path: Path, make_clip: Callable[..., Path]) -> None:
    path = make_clip(tmp_path / "a.mp4", 1, frames=30)
    video = read_frames(path, 30)
    for frame, time in list(zip(video.frames, video.frame_time, strict=True))[::7]:
        assert (picture_at(path, round(float(time), 3)) == frame).all()
    between = picture_at(path, float(video.frame_time[3]) + 0.01)
    assert any((between == frame).all() for frame in video.frames[3:])
