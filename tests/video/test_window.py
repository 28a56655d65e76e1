"""A stretch of a file: the frames of that time and no others, named by their place in the whole file."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import av
import numpy as np
import pytest

from regionvlp.errors import InputError, VideoError
from regionvlp.video import DecodePool, read_frames, uniform_indices
from regionvlp.video.forward import read_forward
from regionvlp.video.sampling import FrameRule
from regionvlp.video.survey import survey
from regionvlp.video.window import Window, find_span

from .clips import make_clip, numbers

FRAMES = 120
_CUT = {"shift": -10, "muxer": {"use_editlist": "1", "avoid_negative_ts": "disabled"}}
KINDS = {
    "a.mp4": {"options": {"bf": "3", "g": "15"}},
    "late.mp4": {"shift": 40},
    "cut.mp4": _CUT,
    "a.mkv": {"options": {"bf": "3"}},
    "b.avi": {"codec": "mpeg4"},
    "old.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
    "b264.avi": {"options": {"bf": "3", "g": "30"}},
    "c.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "d.gif": {"codec": "gif"},
    "f.mpg": {"codec": "mpeg2video"},
    "g.ts": {},
}
WINDOWS = [(0.0, 1.0), (1.0, 2.0), (1.02, 3.37), (0.28, 1.16), (2.5, None), (4.0, 400.0)]


def frames_between(path: Path, start: float, end: float | None, fps: int = 25) -> list[int]:
    """The obvious way: decode everything, look at each frame's time."""
    with av.open(path) as container:
        unit = container.streams.best("video").time_base  # not the frame's own, which the last frames do not know
        pictures = container.decode(container.streams.best("video"))
        stamps = [None if frame.pts is None else float(frame.pts * unit) for frame in pictures]
    if None in stamps or stamps != sorted(set(stamps)):
        stamps = [index / fps for index in range(len(stamps))]
    times = [round(stamp - stamps[0], 6) for stamp in stamps]
    return [index for index, time in enumerate(times) if time >= start and (end is None or time < end)]


@pytest.mark.parametrize("name", KINDS)
def test_the_frames_of_a_stretch_are_those_of_its_time(tmp_path: Path, name: str) -> None:
    path = make_clip(tmp_path / name, FRAMES, **KINDS[name])
    whole = read_frames(path, 1000)
    for start, end in WINDOWS:
        expected = frames_between(path, start, end)
        video = read_frames(path, 6, start=start, end=end)
        assert video.frame_index.tolist() == [expected[i] for i in uniform_indices(len(expected), 6)], (start, end)
        chosen = np.searchsorted(whole.frame_index, video.frame_index)
        assert numbers(video.frames) == [numbers(whole.frames)[i] for i in chosen]
        assert np.allclose(video.frame_time, whole.frame_time[chosen])
        assert (video.frames_announced, video.frames_decoded) == (len(expected), len(expected))


@pytest.mark.parametrize("reader", ["decord", "torchcodec"])
def test_other_readers_give_the_same_stretch(tmp_path: Path, reader: str) -> None:
    if importlib.util.find_spec(reader) is None:
        pytest.skip(f"{reader} is not installed")
    for name in ("a.mp4", "cut.mp4", "a.mkv", "b.avi", "f.mpg"):
        path = make_clip(tmp_path / name, FRAMES, **KINDS[name])
        for start, end in WINDOWS:
            try:
                video = read_frames(path, 6, start=start, end=end, reader=reader)
            except InputError as error:
                pytest.skip(str(error))
            except VideoError as error:
                if (reader, error.reason) != ("torchcodec", "unreadable"):
                    raise
                continue
            truth = read_frames(path, 6, start=start, end=end)
            assert video.frame_index.tolist() == truth.frame_index.tolist(), (name, start, end)
            assert numbers(video.frames) == numbers(truth.frames)
            assert np.array_equal(video.frame_time, truth.frame_time)


def test_a_stretch_of_a_long_file_costs_little(tmp_path: Path) -> None:
    options = {"preset": "veryfast", "x264-params": "open-gop=1:bframes=3:keyint=100:scenecut=0"}
    path = make_clip(tmp_path / "a.mp4", 3000, side=32, options=options)
    video = read_frames(path, 8, start=100.0, end=104.0)
    truth = read_forward(path, survey(path), video.frame_index.tolist())
    assert video.frame_index.tolist() == [2500 + i for i in uniform_indices(100, 8)]
    assert all(
        np.array_equal(frame, truth.pictures[index])
        for frame, index in zip(video.frames, video.frame_index, strict=True)
    )
    assert video.frames_read < 400


def test_only_the_first_seconds_of_a_stretch(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", FRAMES)
    video = read_frames(path, 4, start=1.0, end=4.0, max_seconds=2.0)
    assert video.frame_index.tolist() == [25 + i for i in uniform_indices(50, 4)]
    assert read_frames(path, 4, start=1.0, end=2.0, max_seconds=9.0).frames_decoded == 25


@pytest.mark.parametrize(("start", "end"), [(5.0, None), (5.0, 6.0), (4.8, 4.9)])
def test_a_stretch_without_frames_says_so(tmp_path: Path, start: float, end: float | None) -> None:
    path = make_clip(tmp_path / "a.mp4", FRAMES)
    with pytest.raises(VideoError, match=f"no frame from {start:g} s") as caught:
        read_frames(path, 4, start=start, end=end)
    assert caught.value.reason == "no-frames"


def test_a_picture_has_no_later_frames(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (32, 24)).save(tmp_path / "a.png")
    assert len(read_frames(tmp_path / "a.png", 4, start=0.0, end=2.0).frames) == 1
    with pytest.raises(VideoError, match="no frame from 1 s"):
        read_frames(tmp_path / "a.png", 4, start=1.0)


@pytest.mark.parametrize(("start", "end"), [(-1.0, None), (2.0, 2.0), (3.0, 1.0), (float("nan"), 1.0)])
def test_what_is_no_stretch_of_time(start: float, end: float | None) -> None:
    with pytest.raises(ValueError, match="there is no time"):
        Window.of(start, end, None)


def test_where_times_are_missing_the_rate_counts() -> None:
    assert find_span(Window(1.0, 2.0), [None] * 30, 10.0).sample(FrameRule(2)) == [12, 17]
    assert find_span(Window(1.0, 2.0), [0.0, 0.5, 0.4, 1.0, 1.5], 2.0).sample(FrameRule(9)) == [2, 3]
    assert len(find_span(Window(9.0), [], 10.0)) == 0


def test_the_pool_passes_the_stretch_on(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", FRAMES)
    with DecodePool(1, max_seconds=3.0) as pool:
        assert pool.submit(path, 4, start=1.0, end=2.0).result(60).frame_index.tolist() == [27, 33, 39, 46]
        assert pool.submit(path, 4, end=1.0).result(60).frames_decoded == 25
        assert pool.submit(path, 4, start=1.0).result(60).frames_decoded == 75


@pytest.mark.parametrize("reader", ["pyav", "decord"])
def test_real_clips(shared_data: Path, reader: str) -> None:
    if importlib.util.find_spec("decord") is None and reader == "decord":
        pytest.skip("decord is not installed")
    # The times of the first run backwards in places, so its rate counts.
    for name, start, end in (
        ("TrumanShow_wave_f_nm_np1_fr_med_26.avi", 0.5, None),
        ("R6llTwEh07w.mp4", 1.0, 2.0),
        ("big_buck_bunny_432_433.webm", 0.25, 0.75),
    ):
        path = shared_data / "videos" / name
        expected = frames_between(path, start, end, fps=30)
        video = read_frames(path, 5, start=start, end=end, reader=reader)
        assert video.frame_index.tolist() == [expected[i] for i in uniform_indices(len(expected), 5)]
        truth = read_forward(path, survey(path), video.frame_index.tolist()).pictures
        for frame, index in zip(video.frames, video.frame_index, strict=True):
            assert np.abs(frame.astype(int) - truth[index]).mean() < 3
