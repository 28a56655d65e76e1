"""Cached frames: kept, read, verified, repaired, and read in place of the videos."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from regionvlp.errors import NothingDoneError, ShardError
from regionvlp.extract.run.caching import cache_frames
from regionvlp.extract.settings import ExtractConfig
from regionvlp.extract.sources import open_source
from regionvlp.pipelines.cli import run
from regionvlp.shards import open_shards
from regionvlp.shards.pictures import FrameReader, open_frames, repair_frames, verify_frames
from regionvlp.shards.pictures.writer import jpeg_of
from regionvlp.video import read_frames


@pytest.fixture
def videos(tmp_path: Path, make_clip: Callable[..., Path]) -> Path:
    folder = tmp_path / "videos"
    for seed in range(3):
        make_clip(folder / f"{seed}.mp4", seed, frames=12 + seed)
    Image.new("RGB", (64, 48), "green").save(folder / "photo.png")
    (folder / "broken.mp4").write_bytes(b"\x00" * 100)
    return folder


def cache(videos: Path, out: Path, *more: str) -> int:
    arguments = ["--videos", str(videos), "--out", str(out), "--frames", "4", "--shard-size", "2", *more]
    return run(["extract", "--what", "frames", *arguments, "--set", "video.workers=1"])


def test_frames_are_those_of_the_videos(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cache(videos, tmp_path / "f", "--json", str(tmp_path / "r.json")) == 0
    report = json.loads((tmp_path / "r.json").read_text())
    assert (report["videos"], report["frames"], report["failed"]) == (4, 13, 1)
    frames = open_frames(tmp_path / "f")
    assert sorted(frames) == ["0.mp4", "1.mp4", "2.mp4", "photo.png"]
    for name in ("0.mp4", "2.mp4"):
        true, cached = read_frames(videos / name, 4), frames[name]
        assert cached.frame_index.tolist() == true.frame_index.tolist()
        assert cached.frame_time.tolist() == true.frame_time.tolist()
        assert cached.image_size.tolist() == [[64, 80]] * 4
        for ours, theirs in zip(cached.frames(), true.frames, strict=True):
            assert np.abs(ours.astype(int) - theirs).mean() < 4
    assert [failure.video_id for failure in frames.failures] == ["broken.mp4"]
    with pytest.raises(KeyError, match=r"holds no frames of 'broken\.mp4'"):
        frames["broken.mp4"]
    assert run(["shards", "verify", str(tmp_path / "f")]) == 0
    assert run(["shards", "inspect", str(tmp_path / "f")]) == 0
    assert "frame folder" in capsys.readouterr().out


def test_any_reader_of_parquet_opens_them(videos: Path, tmp_path: Path) -> None:
    cache(videos, tmp_path / "f")
    file = sorted((tmp_path / "f").glob("shard-*.parquet"))[0]
    jpeg = pq.read_table(file).column("jpeg")[0].as_py()[0]
    assert Image.open(io.BytesIO(jpeg)).size == (80, 64)


def test_a_detector_reads_them_in_place_of_the_videos(videos: Path, tmp_path: Path) -> None:
    cache(videos, tmp_path / "f")
    for path in videos.iterdir():
        path.unlink()
    arguments = ["extract", "--videos", str(tmp_path / "f"), "--detector", "own_detectors:Halves", "--frames", "2"]
    assert run([*arguments, "--out", str(tmp_path / "s"), "--dtype", "float32"]) == 0
    shards = open_shards(tmp_path / "s")
    assert sorted(shards) == ["0.mp4", "1.mp4", "2.mp4", "photo.png"]
    cached = open_frames(tmp_path / "f")["1.mp4"]
    regions = shards["1.mp4"]
    assert regions.frame_index.tolist() == cached.frame_index[[0, 2]].tolist()
    means = [cached.frames()[i][:, :40].mean((0, 1)) for i in (0, 2)]
    np.testing.assert_allclose(regions.features[:, 0], means, rtol=1e-5)
    assert shards.manifest.video["reader"] == "cached"
    assert shards.manifest.video["cached"]["frames"] == 4
    assert run([*arguments, "--out", str(tmp_path / "s")]) == 0  # again: nothing left to do


def test_what_is_there_is_kept_and_what_is_new_is_added(
    videos: Path, tmp_path: Path, make_clip: Callable[..., Path]
) -> None:
    cache(videos, tmp_path / "f")
    before = {path.name: path.read_bytes() for path in (tmp_path / "f").glob("shard-*")}
    make_clip(videos / "more.mp4", 9)
    assert cache(videos, tmp_path / "f") == 0
    assert "more.mp4" in open_frames(tmp_path / "f")
    assert {name: (tmp_path / "f" / name).read_bytes() for name in before} == before
    assert cache(videos, tmp_path / "f", "--set", "frames.quality=50") == 2  # other settings, another folder


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "receipt"])
def test_damage_is_found_and_done_again(videos: Path, tmp_path: Path, damage: str) -> None:
    out = tmp_path / "f"
    cache(videos, out)
    whole = {name: frames.jpegs for name, frames in open_frames(out).items()}
    data = sorted(out.glob("shard-*.parquet"))[0]
    content = bytearray(data.read_bytes())
    if damage == "flip":
        content[len(content) // 3] ^= 0x40
        data.write_bytes(content)
    elif damage == "cut":
        data.write_bytes(content[:-20])
    elif damage == "gone":
        data.unlink()
    else:
        receipt = data.with_suffix(".json")
        receipt.write_text(receipt.read_text().replace('"videos": ', '"videos": 1'))
    faults = verify_frames(out)
    assert len(faults) == 1
    if damage == "flip":
        with pytest.raises(ShardError, match=r"checksum|damaged"):
            dict(FrameReader(out))
    assert run(["shards", "verify", str(out)]) == 1
    assert repair_frames(out).redo == [faults[0].shard]
    assert cache(videos, out) == 0
    assert verify_frames(out) == []
    assert {name: frames.jpegs for name, frames in open_frames(out).items()} == whole


def test_nothing_but_broken_files(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "x.mp4").write_bytes(b"\x00" * 100)
    with pytest.raises(NothingDoneError):
        cache_frames(open_source(tmp_path / "v"), tmp_path / "f", ExtractConfig())


def dying(real: Callable[..., object], left: list[int]) -> Callable[..., object]:
    """The function that it stands for, as often as is left; then the process is interrupted."""

    def call(*arguments: object, **named: object) -> object:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return real(*arguments, **named)

    return call


def test_killed_while_it_writes_it_goes_on(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache(videos, tmp_path / "whole")
    wanted = {name: frames.jpegs for name, frames in open_frames(tmp_path / "whole").items()}
    for call in ("replace", "link", "fsync"):
        out = tmp_path / call
        with monkeypatch.context() as patch:
            left = [2]
            real = getattr(os, call)

            patch.setattr(os, call, dying(real, left))
            cache(videos, out)
        assert cache(videos, out) == 0
        assert verify_frames(out) == []
        assert {name: frames.jpegs for name, frames in open_frames(out).items()} == wanted


def test_pictures_are_made_no_larger_than_asked() -> None:
    frame = np.zeros((30, 90, 3), np.uint8)
    assert Image.open(io.BytesIO(jpeg_of(frame, 45, 90))).size == (45, 15)
    assert Image.open(io.BytesIO(jpeg_of(frame, 900, 90))).size == (90, 30)
