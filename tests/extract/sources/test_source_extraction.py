"""Whole extractions from each kind of source: the same regions as from a folder, and failures as rows."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from regionvlp.config import load_config
from regionvlp.errors import InputError
from regionvlp.extract.launch import launch
from regionvlp.extract.settings import ExtractConfig
from regionvlp.extract.sources import open_source
from regionvlp.regions import VideoRegions
from regionvlp.shards import open_shards, read_plan, verify
from regionvlp.video import read_frames, uniform_indices

MakeClip = Callable[..., Path]
MakeTar = Callable[..., Path]
Memory = Callable[[str, bytes], None]
SETTINGS = {"detector": {"name": "toy"}, "video": {"frames": 3, "workers": 2}, "shards": {"size": 2}}


def extract(videos: object, out: Path, **options: object) -> launch.Outcome:
    return launch.extract_folder(open_source(videos, **options), out, load_config(ExtractConfig, SETTINGS))  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path, make_clip: MakeClip) -> Path:
    from PIL import Image

    for i, name in enumerate(["a.mp4", "b b.mp4", "c/d.mp4"]):
        make_clip(tmp_path / "videos" / name, seed=i)
    Image.fromarray(np.random.default_rng(9).integers(0, 255, (60, 70, 3), dtype=np.uint8)).save(
        tmp_path / "videos/e.png"
    )
    return tmp_path / "videos"


def regions(out: Path) -> dict[str, VideoRegions]:
    assert verify(out) == []
    shards = open_shards(out)
    return {video_id: shards[video_id] for video_id in shards.video_ids}


def same(one: VideoRegions, other: VideoRegions) -> bool:
    return np.array_equal(one.features, other.features) and np.array_equal(one.boxes, other.boxes)


def test_every_kind_gives_what_the_folder_gives(
    folder: Path, tmp_path: Path, make_tar: MakeTar, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    extract(folder, tmp_path / "folder")
    truth = regions(tmp_path / "folder")
    assert sorted(truth) == ["a.mp4", "b b.mp4", "c/d.mp4", "e.png"]

    names = list(truth)
    (tmp_path / "l.csv").write_text("caption,path\n" + "".join(f"x,{name[:-4]}\n" for name in names))
    make_tar(tmp_path / "0.tar", {name: (folder / name).read_bytes() for name in names[:2]})
    make_tar(tmp_path / "1.tar", {name: (folder / name).read_bytes() for name in names[2:]})
    for name in names:
        memory(f"/v/{name}", (folder / name).read_bytes())
    kinds = {
        "list": (tmp_path / "l.csv", {"root": folder}, [name[:-4] for name in names]),
        "glob": (folder / "**/*", {}, names),
        "webdataset": (tmp_path / "{0..1}.tar", {}, [name[:-4] for name in names]),
        "elsewhere": ("memory://v", {}, names),
    }
    for kind, (videos, options, ids) in kinds.items():
        outcome = extract(videos, tmp_path / kind, **options)
        assert (outcome.status.done, outcome.status.failed) == (4, 0), kind
        found = regions(tmp_path / kind)
        assert sorted(found) == sorted(ids)
        assert all(same(found[theirs], truth[ours]) for theirs, ours in zip(ids, names, strict=True)), kind
        assert extract(videos, tmp_path / kind, **options).new_videos == 0
    assert [name for name in os.listdir(scratch) if "regionvlp" in name] == []


def test_segments_are_videos_of_their_own(tmp_path: Path, make_clip: MakeClip) -> None:
    clip = make_clip(tmp_path / "videos/long.mp4", frames=48)
    make_clip(tmp_path / "videos/other.mp4", frames=12, seed=5)
    table = tmp_path / "t.csv"
    table.write_text(
        "YoutubeID,Start_timestamp,End_timestamp\nlong,00:00:01,00:00:02.5\nlong,3,5\nother,0,1\nlong,90,95\n"
    )
    outcome = extract(table, tmp_path / "out")
    assert outcome.status.failures == {"no-frames": 1}
    found = regions(tmp_path / "out")
    assert sorted(found) == ["long_1.000_2.500", "long_3.000_5.000", "other_0.000_1.000"]
    times = read_frames(clip, 1000).frame_time
    for video_id, start, end in (("long_1.000_2.500", 1, 2.5), ("long_3.000_5.000", 3, 5)):
        inside = np.flatnonzero((times >= start) & (times < end))
        assert found[video_id].frame_index.tolist() == inside[uniform_indices(len(inside), 3)].tolist()
        assert np.allclose(found[video_id].frame_time, times[found[video_id].frame_index])
    plan = read_plan(tmp_path / "out")
    assert plan is not None
    assert plan.rows(0)[0][4:] == ("videos/long", None, None, 1.0, 2.5)


def test_listed_videos_that_are_not_there_are_failures(folder: Path, tmp_path: Path) -> None:
    (folder / "two.mp4").write_bytes(b"")
    (folder / "two.avi").write_bytes(b"")
    (folder / "l.txt").write_text("a\nnowhere\ntwo\n")
    outcome = extract(folder / "l.txt", tmp_path / "out")
    assert outcome.status.failures == {"missing-file": 1, "ambiguous-file": 1}
    assert verify(tmp_path / "out") == []
    (tmp_path / "empty.txt").write_text("x\ny\n")
    with pytest.raises(InputError, match="none of the 2 listed videos"):
        extract(tmp_path / "empty.txt", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_longer_list_extends_the_plan(folder: Path, tmp_path: Path) -> None:
    (folder / "l.txt").write_text("e\na\n")
    extract(folder / "l.txt", tmp_path / "out")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("shard-*")}
    (folder / "l.txt").write_text("b b\ne\na\n")
    assert extract(folder / "l.txt", tmp_path / "out").new_videos == 1
    assert {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in before} == before
    plan = read_plan(tmp_path / "out")
    assert plan is not None
    assert [(row.shard, row.video_id) for row in plan] == [(0, "a"), (0, "e"), (1, "b b")]


def test_trouble_on_the_way_is_a_transient_failure(folder: Path, tmp_path: Path, memory: Memory) -> None:
    from .conftest import Flaky

    memory("/v/a.mp4", (folder / "a.mp4").read_bytes())
    memory("/v/bad.mp4", b"<html>")
    source = open_source("flaky://v/*.mp4")
    extract(source, tmp_path / "out")
    failures = {failure.video_id: failure for failure in open_shards(tmp_path / "out").failures}
    assert {name: (failure.reason, failure.transient) for name, failure in failures.items()} == {
        "bad.mp4": ("not-a-video", False)
    }
    Flaky.error = OSError(28, "No space left on device")
    with pytest.raises(InputError, match="No space left"):
        extract(source, tmp_path / "full")
    assert list((tmp_path / "full").glob("shard-*")) == []


NAMES = ["-rf.mp4", " a b .mp4", "tête 猫.mp4", "#%[x]&'\".mp4", "--out.mp4", "~.mp4", "$HOME.mp4", "a%03d.mp4"]


def test_odd_names_go_through_everything(tmp_path: Path, make_clip: MakeClip) -> None:
    for i, name in enumerate(NAMES):
        make_clip(tmp_path / "videos" / name, seed=i, frames=3)
    (tmp_path / "videos/loop").symlink_to(tmp_path / "videos")
    outcome = extract(tmp_path / "videos", tmp_path / "out")
    assert (outcome.status.done, outcome.status.failed) == (len(NAMES), 0)
    assert sorted(regions(tmp_path / "out")) == sorted(NAMES)
    (tmp_path / "videos/l.txt").write_text("\n".join(name for name in NAMES if name[0] != " ") + "\n")
    listed = extract(tmp_path / "videos/l.txt", tmp_path / "listed")
    assert (listed.status.done, listed.status.failed) == (len(NAMES) - 1, 0)
