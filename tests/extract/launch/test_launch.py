"""A whole extraction with the toy detector: rows, failures, resume, formats, and what is refused."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from regionvlp.config import load_config
from regionvlp.errors import NothingDoneError, RegionVLPError, VideoError
from regionvlp.extract.detector import RegionDetector
from regionvlp.extract.launch import launch
from regionvlp.extract.run.status import folder_status
from regionvlp.extract.settings import ExtractConfig
from regionvlp.regions import FrameRegions
from regionvlp.shards import open_shards, verify
from regionvlp.video import read_frames

MakeClip = Callable[..., Path]
NOT_A_VIDEO = b"<html>404 not found</html>"


def settings(**sections: dict[str, object]) -> ExtractConfig:
    base = {"detector": {"name": "toy"}, "video": {"frames": 3, "workers": 1}, "shards": {"size": 2}}
    return load_config(ExtractConfig, base, sections)


@pytest.fixture
def videos(tmp_path: Path, make_clip: MakeClip) -> Path:
    """Five clips, one of them a single picture, and two files that are no videos."""
    folder = tmp_path / "videos"
    for i, name in enumerate(["a.mp4", "b b.mp4", "sub/c.mp4", "sub/d.mp4"]):
        make_clip(folder / name, seed=i)
    from PIL import Image

    Image.fromarray(np.random.default_rng(9).integers(0, 255, (60, 70, 3), dtype=np.uint8)).save(folder / "e.png")
    (folder / "f.mp4").write_bytes(NOT_A_VIDEO)
    (folder / "g.webm").write_bytes(b"")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("shard-*")) if path.suffix != ".json"}


def test_rows_and_failures(videos: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    planned: list[tuple[int, int]] = []
    outcome = launch.extract_folder(
        videos, tmp_path / "out", settings(), on_plan=lambda *p: planned.append(p), on_video=seen.append
    )
    assert planned == [(7, 7)]
    assert seen == [3, 3, 1, 0, 0, 3, 3]
    status = outcome.status
    assert (status.videos, status.done, status.failed, status.left) == (7, 5, 2, 0)
    assert (status.frames, status.shards, status.shards_done) == (13, 4, 4)
    assert sum(status.failures.values()) == 2
    assert verify(tmp_path / "out") == []

    shards = open_shards(tmp_path / "out")
    assert shards.video_ids == ["a.mp4", "b b.mp4", "e.png", "sub/c.mp4", "sub/d.mp4"]
    for video_id in shards.video_ids:
        regions = shards[video_id]
        assert regions.features.dtype == np.float16
        assert regions.num_regions.min() > 0
        size = regions.image_size[:, None, ::-1]
        assert (regions.boxes[..., 2:] <= size).all()
        assert (regions.boxes[..., :2] >= 0).all()
        assert (regions.features[~regions.mask()] == 0).all()
    assert {failure.video_id: failure.stage for failure in shards.failures} == {"f.mp4": "open", "g.webm": "open"}
    assert list(shards["a.mp4"].frame_index) == [1, 5, 9]


def test_running_again_does_nothing_and_new_videos_join(videos: Path, tmp_path: Path, make_clip: MakeClip) -> None:
    out = tmp_path / "out"
    launch.extract_folder(videos, out, settings())
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    again = launch.extract_folder(videos, out, settings())
    assert again.new_videos == 0
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before

    make_clip(videos / "a0.mp4", seed=20)
    more = launch.extract_folder(videos, out, settings())
    assert (more.new_videos, more.status.done) == (1, 6)
    unchanged = {name for name in before if name not in ("plan.parquet", "README.md")}
    assert {name: (out / name).stat().st_mtime_ns for name in unchanged} == {n: before[n] for n in unchanged}
    assert verify(out) == []


def test_a_video_that_went_away_is_a_failure_row(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    launch.extract_folder(videos, out, settings())
    (out / "shard-00003.json").unlink()
    (videos / "sub" / "d.mp4").unlink()
    outcome = launch.extract_folder(videos, out, settings())
    assert outcome.status.failures["missing-file"] == 1
    assert verify(out) == []


def test_changed_videos_are_kept_and_named(
    videos: Path, tmp_path: Path, make_clip: MakeClip, caplog: pytest.LogCaptureFixture
) -> None:
    launch.extract_folder(videos, tmp_path / "out", settings())
    before = contents(tmp_path / "out")
    make_clip(videos / "a.mp4", seed=77, frames=9)
    launch.extract_folder(videos, tmp_path / "out", settings())
    assert "1 videos changed" in caplog.text
    assert "a.mp4" in caplog.text
    assert contents(tmp_path / "out") == before


def test_both_formats_hold_the_same(videos: Path, tmp_path: Path) -> None:
    for form in ("hdf5", "parquet"):
        launch.extract_folder(videos, tmp_path / form, settings(shards={"format": form}))
    one, other = open_shards(tmp_path / "hdf5"), open_shards(tmp_path / "parquet")
    assert one.video_ids == other.video_ids
    assert len(one.video_ids) == 5
    for video_id in one.video_ids:
        assert one[video_id].equals(other[video_id])


def test_uint8_holds_nearly_the_same(videos: Path, tmp_path: Path) -> None:
    for dtype in ("float32", "uint8"):
        launch.extract_folder(videos, tmp_path / dtype, settings(shards={"dtype": dtype}))
    assert verify(tmp_path / "uint8") == []
    exact, rounded = open_shards(tmp_path / "float32"), open_shards(tmp_path / "uint8")
    assert exact.video_ids == rounded.video_ids
    for video_id, video in exact.items():
        read = rounded[video_id].features
        assert read.dtype == np.float32
        largest = video.features.max(axis=-1, keepdims=True, initial=0)
        assert (np.abs(read - video.features) <= largest / 509).all()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"detector": {"regions": 7}}, "regions"),
        ({"video": {"frames": 2}}, "frames"),
        ({"shards": {"format": "parquet"}}, "format"),
        ({"detector": {"selection": "suppressed"}}, "detector"),
    ],
)
def test_other_settings_are_refused_before_anything_changes(
    videos: Path, tmp_path: Path, change: dict[str, dict[str, object]], field: str
) -> None:
    out = tmp_path / "out"
    launch.extract_folder(videos, out, settings())
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(RegionVLPError, match=field) as caught:
        launch.extract_folder(videos, out, settings(**change))
    assert caught.value.exit_code == 2
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_nothing_at_all_could_be_extracted(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    for name in ("a.mp4", "b.mkv"):
        (tmp_path / "videos" / name).write_bytes(NOT_A_VIDEO)
    with pytest.raises(NothingDoneError) as caught:
        launch.extract_folder(tmp_path / "videos", tmp_path / "out", settings())
    assert caught.value.exit_code == 3
    assert folder_status(tmp_path / "out").failed == 2
    assert verify(tmp_path / "out") == []


class BrokenDetector:
    """The toy detector, one video at a time, failing from the n-th call on."""

    max_batch = 1

    def __init__(self, first_failure: int, last_failure: int, error: Exception) -> None:
        self.toy = RegionDetector.load("toy")
        self.feature_width = self.toy.feature_width
        self.calls = 0
        self.failing = range(first_failure, last_failure + 1)
        self.error = error

    def identity(self) -> dict[str, object]:
        return self.toy.identity()

    def detect(self, frames: list[np.ndarray]) -> list[FrameRegions]:
        self.calls += 1
        if self.calls in self.failing:
            raise self.error
        return self.toy.detect(frames)


@pytest.mark.parametrize("error", [RuntimeError("bad picture"), VideoError("odd", stage="detect", reason="odd-frame")])
def test_one_video_the_detector_cannot_take(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    broken = BrokenDetector(2, 2, error)
    monkeypatch.setattr(RegionDetector, "load", lambda *args, **kwargs: broken)
    outcome = launch.extract_folder(videos, tmp_path / "out", settings())
    assert outcome.status.done == 4
    failure = open_shards(tmp_path / "out").failures[0]
    assert (failure.video_id, failure.stage) == ("b b.mp4", "detect")


def test_one_bad_video_costs_the_videos_of_its_batch_nothing(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three videos share a batch; the one whose frames the detector cannot take is the only failure."""
    toy = RegionDetector.load("toy", max_batch=9)
    detect, sizes, bad = toy.detect, [], read_frames(videos / "b b.mp4", 3).frames

    def picky(frames: list[np.ndarray]) -> list[FrameRegions]:
        sizes.append(len(frames))
        if any(np.array_equal(frame, bad[1]) for frame in frames):
            raise RuntimeError("bad picture")
        return detect(frames)

    monkeypatch.setattr(toy, "detect", picky)
    monkeypatch.setattr(RegionDetector, "load", lambda *args, **kwargs: toy)
    outcome = launch.extract_folder(videos, tmp_path / "out", settings(shards={"size": 8}))
    # a, b b and the picture e fill a batch (3 + 3 + 1), which fails; then each by itself, and the detector is tried on
    # a frame that it can take; then c and d together.
    assert sizes == [7, 3, 3, 1, 1, 6]
    assert outcome.status.done == 4
    failure = next(f for f in open_shards(tmp_path / "out").failures if f.stage == "detect")
    assert (failure.video_id, failure.reason) == ("b b.mp4", "detector-error")
    assert failure.message == "RuntimeError: bad picture"


def test_videos_that_share_a_batch_keep_their_own_regions(videos: Path, tmp_path: Path) -> None:
    for batch in (1, 4, 9):
        launch.extract_folder(videos, tmp_path / f"{batch}", settings(detector={"batch": batch}, shards={"size": 8}))
    alone, shared = open_shards(tmp_path / "1"), [open_shards(tmp_path / "4"), open_shards(tmp_path / "9")]
    for video_id in alone.video_ids:
        for other in shared:
            assert np.array_equal(alone[video_id].frame_index, other[video_id].frame_index)
            np.testing.assert_allclose(other[video_id].boxes, alone[video_id].boxes, atol=0.05)
            np.testing.assert_allclose(other[video_id].scores, alone[video_id].scores, atol=1e-3)


def test_a_detector_that_always_fails_stops_the_run(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = BrokenDetector(3, 99, RuntimeError("device lost"))
    monkeypatch.setattr(RegionDetector, "load", lambda *args, **kwargs: broken)
    with pytest.raises(RuntimeError, match="device lost"):
        launch.extract_folder(videos, tmp_path / "out", settings(shards={"size": 4}))
    # No row claims that the third video, or any after it, could not be taken.
    assert list((tmp_path / "out").glob("shard-*")) == []
    assert not [path for path in (tmp_path / "out").iterdir() if ".tmp" in path.name]


def test_features_that_are_no_numbers_are_a_failure(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = RegionDetector.load("toy", max_batch=1)
    detect = toy.detect

    def overflowing(frames: list[np.ndarray]) -> list[FrameRegions]:
        found = detect(frames)
        found[0].features[0, 0] = 1e6  # infinite in float16
        return found

    monkeypatch.setattr(toy, "detect", overflowing)
    monkeypatch.setattr(RegionDetector, "load", lambda *args, **kwargs: toy)
    with pytest.raises(NothingDoneError, match="bad-numbers"):
        launch.extract_folder(videos, tmp_path / "out", settings())


@pytest.mark.slow
def test_killed_half_way_and_started_again(videos: Path, tmp_path: Path, make_clip: MakeClip) -> None:
    for i in range(12):
        make_clip(videos / f"more{i:02d}.mp4", seed=100 + i)
    launch.extract_folder(videos, tmp_path / "whole", settings())
    out = tmp_path / "out"
    arguments = ["extract", "--videos", str(videos), "--out", str(out), "--detector", "toy", "--frames", "3"]
    arguments += ["--shard-size", "2", "--set", "video.workers=1"]
    run = subprocess.Popen([sys.executable, "-m", "regionvlp", *arguments], cwd=tmp_path, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (out / "shard-00003.json").exists():
        assert run.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, "the run does not get on"
        time.sleep(0.005)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    half = folder_status(out)
    assert 0 < half.shards_done < half.shards
    assert any("not done" in str(fault) for fault in verify(out))

    launch.extract_folder(videos, out, settings())
    assert verify(out) == []
    assert contents(out) == contents(tmp_path / "whole")
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in (tmp_path / "whole").iterdir())


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_shard_that_lost_its_data_is_done_again(videos: Path, tmp_path: Path, damage: str) -> None:
    out = tmp_path / "out"
    launch.extract_folder(videos, out, settings())
    before = contents(out)
    shard = out / "shard-00001.h5"
    shard.unlink() if damage == "gone" else shard.write_bytes(shard.read_bytes()[:1000])
    assert folder_status(out).lost == 1
    assert launch.extract_folder(videos, out, settings()).new_videos == 2
    assert contents(out) == before
    assert verify(out) == []
    if damage == "cut":  # nothing is thrown away
        assert (out / "set-aside" / "shard-00001.h5").stat().st_size == 1000


def test_real_clips(sample_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in (
        "-video-with-dash-.mp4",
        "newtonscradle.gif",
        "video_90.mov",
        "TrumanShow_wave_f_nm_np1_fr_med_26.avi",
    ):
        shutil.copy(sample_data / "videos" / name, folder / name)
    shutil.copy(sample_data / "videos_damaged" / "truncated_index_missing.mp4", folder)
    shutil.copy(sample_data / "videos_damaged" / "truncated_index_kept.mp4", folder)
    outcome = launch.extract_folder(folder, tmp_path / "out", settings(video={"frames": 8}))
    assert (outcome.status.done, outcome.status.failed) == (5, 1)
    assert outcome.status.partial >= 1
    shards = open_shards(tmp_path / "out")
    assert tuple(shards["video_90.mov"].image_size[0]) == (568, 320)
    assert shards["-video-with-dash-.mp4"].num_frames == 5
