"""Reading long files from key frame to key frame: the same pixels as reading forward, for a fraction of the work."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from regionvlp.video import read_frames, uniform_indices
from regionvlp.video import seeking as seeking_module
from regionvlp.video.forward import read_forward
from regionvlp.video.seeking import NotExact, plan_sections, read_sections
from regionvlp.video.survey import survey

from .clips import make_clip, number_of, numbers

FRAMES = 2000
_OPEN = "open-gop=1:bframes=3:keyint=100:scenecut=0"
LONG = {
    "open.mp4": {"options": {"preset": "veryfast", "x264-params": _OPEN}},
    "open.mkv": {"options": {"preset": "veryfast", "x264-params": _OPEN}},
    "dense.mp4": {"options": {"preset": "veryfast", "g": "12", "bf": "2"}},
    "hevc.mkv": {"codec": "libx265", "options": {"x265-params": f"log-level=none:{_OPEN}"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"deadline": "good", "cpu-used": "8", "g": "100"}},
    "vp8.webm": {"codec": "libvpx", "options": {"deadline": "realtime", "cpu-used": "8", "g": "100"}},
    "asp.mp4": {"codec": "mpeg4", "options": {"g": "50", "bf": "2"}},
    # Without an index to rely on: walked over.
    "open.ts": {"options": {"preset": "veryfast", "x264-params": _OPEN}},
    "hevc.ts": {"codec": "libx265", "options": {"x265-params": f"log-level=none:{_OPEN}"}},
    "open.flv": {"options": {"preset": "veryfast", "x264-params": _OPEN}},
    "asp.avi": {"codec": "mpeg4", "options": {"g": "50"}},
    "two.mpg": {"codec": "mpeg2video", "options": {"g": "18"}, "side": 480},
    "v2.wmv": {"codec": "wmv2", "options": {"g": "50"}},
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n == "two.mpg" else n for n in LONG])
def test_seeking_gives_the_pixels_of_reading_forward(tmp_path: Path, name: str) -> None:
    path = make_clip(tmp_path / name, FRAMES, **({"side": 32} | LONG[name]))
    found = survey(path)
    shown = sorted(stamp for stamp in found.pts if stamp is not None)
    key = found.keys[len(found.keys) // 2]
    key_rank = shown.index(found.pts[key])
    # Around a key frame, at both ends, and spread: where an error by one group or one frame would show.
    for wanted in (
        uniform_indices(FRAMES, 8),
        [0, key_rank - 2, key_rank - 1, key_rank, key_rank + 1],
        [1, FRAMES - 2, FRAMES - 1],
    ):
        plan = plan_sections(found, wanted)
        assert plan is not None
        pictures, frames_read = read_sections(path, found, plan)
        truth = read_forward(path, found, wanted)
        assert sorted(pictures) == wanted
        assert all(np.array_equal(pictures[index], truth.pictures[index]) for index in wanted)
        assert frames_read < FRAMES / 2


def test_an_hour_costs_a_bounded_number_of_frames(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "hour.mp4", 3600, fps=1, side=32, options={"preset": "veryfast", "g": "60"})
    video = read_frames(path, 8)
    assert numbers(video.frames) == video.frame_index.tolist() == uniform_indices(3600, 8)
    assert video.frame_time.tolist() == [float(index) for index in video.frame_index]
    assert video.frames_read <= 8 * 64
    assert video.frames_decoded == video.frames_announced == 3600
    assert read_frames(path, 4, max_seconds=1800).frame_index.tolist() == uniform_indices(1800, 4)
    assert read_frames(path, 4, max_seconds=1800).frames_read <= 4 * 64


def test_one_key_frame_means_reading_forward(tmp_path: Path) -> None:
    options = {"preset": "veryfast", "x264-params": "keyint=infinite:scenecut=0"}
    path = make_clip(tmp_path / "a.mp4", FRAMES, side=32, options=options)
    video = read_frames(path, 8)
    assert video.frames_read == FRAMES
    assert numbers(video.frames) == video.frame_index.tolist()


@pytest.mark.parametrize("name", ["short.mp4", "old.nut", "cut.mp4"])
def test_seeking_is_not_planned_where_it_is_not_known_to_be_exact(tmp_path: Path, name: str) -> None:
    kinds = {
        "short.mp4": {"frames": 1000},
        "old.nut": {"codec": "mpeg4", "options": {"g": "20"}},
        "cut.mp4": {"shift": -10, "muxer": {"use_editlist": "1", "avoid_negative_ts": "disabled"}},
    }
    path = make_clip(tmp_path / name, side=32, **({"frames": FRAMES} | kinds[name]))
    assert plan_sections(survey(path), [100]) is None


def test_a_surprise_ends_seeking_and_the_answer_stays_right(tmp_path: Path) -> None:
    # With intra refresh, frames after a "key" packet are incomplete for a while and are not given out.
    options = {"preset": "veryfast", "g": "100", "intra-refresh": "1"}
    path = make_clip(tmp_path / "a.mkv", FRAMES, side=32, options=options)
    found, wanted = survey(path), uniform_indices(FRAMES, 8)
    plan = plan_sections(found, wanted)
    assert plan is not None
    with pytest.raises(NotExact):
        read_sections(path, found, plan)
    video = read_frames(path, 8)
    assert numbers(video.frames) == video.frame_index.tolist() == wanted
    assert video.frames_read == FRAMES


@pytest.mark.parametrize("name", ["b264.avi", "refresh.ts"])
def test_a_walk_that_meets_a_surprise_is_given_up(tmp_path: Path, name: str) -> None:
    # AVI stamps pictures in the order of the file; with intra refresh, a "key" frame is incomplete.
    options = {"b264.avi": {"bf": "3", "g": "50"}, "refresh.ts": {"g": "100", "intra-refresh": "1"}}[name]
    path = make_clip(tmp_path / name, FRAMES, side=32, options={"preset": "veryfast", **options})
    found = survey(path)
    plan = plan_sections(found, [1000, 1001])
    assert plan is not None
    with pytest.raises(NotExact):
        read_sections(path, found, plan)
    for stretch in ({}, {"start": 60.0, "end": 62.0}):
        video = read_frames(path, 8, **stretch)
        assert np.allclose(np.diff(video.frame_time), np.diff(video.frame_index) / 25)
        assert numbers(video.frames) == video.frame_index.tolist()


def test_a_stretch_near_the_end_of_a_file_without_index_costs_little(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.ts", 3000, side=32, options={"preset": "veryfast", "g": "50", "bf": "2"})
    video = read_frames(path, 4, start=110.0, end=114.0)
    assert numbers(video.frames) == video.frame_index.tolist() == [2750 + i for i in uniform_indices(100, 4)]
    assert video.frames_read < 200


def test_damage_on_the_way_ends_seeking(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", FRAMES, side=32, options={"g": "50"})
    found = survey(path)
    data = bytearray(path.read_bytes())
    middle = (data.index(b"mdat") + data.index(b"moov")) // 2
    data[middle : middle + 4000] = bytes(4000)
    path.write_bytes(data)
    plan = plan_sections(found, list(range(900, 1100)))
    assert plan is not None
    with pytest.raises(NotExact):
        read_sections(path, found, plan)


@pytest.mark.skipif(importlib.util.find_spec("decord") is None, reason="decord is not installed")
def test_decord_agrees_on_long_files(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", FRAMES, side=32, **LONG["open.mp4"])
    video = read_frames(path, 8, reader="decord")
    assert numbers(video.frames) == video.frame_index.tolist()


def test_the_bar_for_long_is_what_keeps_clips_forward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_clip(tmp_path / "a.mp4", 300, options={"g": "10"})
    assert read_frames(path, 8).frames_read == 300
    monkeypatch.setattr(seeking_module, "_LONG", 100)
    video = read_frames(path, 8)
    assert video.frames_read < 100
    assert [number_of(frame) for frame in video.frames] == uniform_indices(300, 8)
