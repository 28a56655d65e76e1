"""Videos out of a folder for good, and by another name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from regionvlp.errors import InputError, ShardError, VideoError
from regionvlp.extract.run.retry import RetryRule
from regionvlp.pipelines.cli import run
from regionvlp.regions import VideoRegions
from regionvlp.shards import Manifest, PlanRow, Receipt, ShardWriter, inspect, open_shards, read_plan, verify
from regionvlp.shards.dropped import read_dropped
from regionvlp.shards.editing import drop, rename
from regionvlp.shards.interop.convert import convert, converted_manifest
from regionvlp.shards.interop.filling import fill_shards
from regionvlp.store.repair import repair

ShardSet = tuple[Path, dict[str, VideoRegions]]
MakeVideo = Callable[..., VideoRegions]


def whole(folder: Path, videos: dict[str, VideoRegions]) -> bool:
    reader = open_shards(folder)
    return verify(folder) == [] and list(reader) == list(videos) and all(reader[n].equals(v) for n, v in videos.items())


def without(videos: dict[str, VideoRegions], *gone: str) -> dict[str, VideoRegions]:
    return {name: video for name, video in videos.items() if name not in gone}


def test_a_dropped_video_is_gone_from_every_byte(shard_set: ShardSet) -> None:
    folder, videos = shard_set
    untouched = (folder / "shard-00002.json").read_bytes()
    done = drop(folder, ["c/ünï-日本.mkv", "d.webm", "bad.mp4", "c/ünï-日本.mkv"])
    assert (done.videos, done.shards, done.aside) == (3, [0, 1], [])
    assert whole(folder, without(videos, "c/ünï-日本.mkv", "d.webm"))
    assert (folder / "shard-00002.json").read_bytes() == untouched
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert videos["d.webm"].features[0].tobytes() not in content, path
    assert [(f.video_id, f.reason) for f in open_shards(folder).failures] == [
        ("c/ünï-日本.mkv", "dropped"),
        ("bad.mp4", "dropped"),
        ("d.webm", "dropped"),
    ]
    assert inspect(folder)["failures"] == {"dropped": 3}
    assert drop(folder, ["d.webm"]).shards == []
    assert not any(RetryRule("all", 9).wants(failure) for failure in open_shards(folder).failures)


def test_all_of_a_shard_can_be_dropped(shard_set: ShardSet) -> None:
    folder, videos = shard_set
    drop(folder, ["f.avi", "g.gif"])
    assert whole(folder, without(videos, "f.avi", "g.gif"))
    receipt = Receipt.read(folder / "shard-00002.json")
    assert (receipt.file, receipt.videos) == (None, 0)
    assert not list(folder.glob("shard-00002*.[hp]*"))


def test_nothing_brings_a_dropped_video_back(shard_set: ShardSet, make_video: MakeVideo) -> None:
    folder, videos = shard_set
    manifest = Manifest.read(folder)
    drop(folder, ["d.webm"])
    (folder / "shard-00001.json").unlink()  # as if it had been lost, with its data
    for path in folder.glob("shard-00001*"):
        path.unlink()
    plan = read_plan(folder)
    assert plan is not None

    def make(row: PlanRow) -> VideoRegions:
        if row.video_id == "bad.mp4":
            raise VideoError("no bytes", stage="open", reason="empty-file")
        return videos[row.video_id]

    fill_shards(folder, manifest, plan, make)
    assert whole(folder, without(videos, "d.webm"))
    assert [f.reason for f in open_shards(folder).failures] == ["empty-file", "dropped"]
    other = folder.parent / "other"
    convert(folder, other, converted_manifest(manifest, None, "float32"))
    assert list(read_dropped(other)) == ["d.webm"]
    with ShardWriter(other, 9, Manifest.read(other)) as writer:
        writer.add(make_video("d.webm", dtype="float32"))
        assert writer.finish().videos == 0


def test_a_drop_that_died_half_way_is_noticed_and_done_by_the_next(
    shard_set: ShardSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, videos = shard_set

    def die(_: object, *__: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drop(folder, ["a.mp4", "f.avi"], on_shard=die)
    assert [str(fault) for fault in verify(folder)] == ["shard-00002.json: 'f.avi' was dropped, but has rows"]
    assert drop(folder, ["a.mp4", "f.avi"]).shards == [2]
    assert whole(folder, without(videos, "a.mp4", "f.avi"))


def test_what_cannot_be_dropped(shard_set: ShardSet) -> None:
    folder, videos = shard_set
    with pytest.raises(InputError, match=r"knows nothing of 1 .*'e.jpeg' \(did you mean 'e.jpg'"):
        drop(folder, ["a.mp4", "e.jpeg"])
    assert whole(folder, videos)
    path = folder / Manifest.read(folder).data_name(0)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ShardError, match="is not what its receipt says"):
        drop(folder, ["a.mp4"])
    repair(folder)
    drop(folder, ["d.webm"])
    assert drop(folder, ["g.gif"]).aside == [path.name]


def test_renamed_videos(shard_set: ShardSet) -> None:
    folder, videos = shard_set
    names = {"a.mp4": "first/a.mp4", "bad.mp4": "worse.mp4", "g.gif": "ü.gif"}
    done = rename(folder, names)
    assert (done.videos, done.shards) == (3, [0, 1, 2])
    reader = open_shards(folder)
    assert list(reader) == [names.get(name, name) for name in videos]
    assert verify(folder) == []
    for name, video in videos.items():
        found = reader[names.get(name, name)]
        assert all(
            (getattr(found, field) == value).all() for field, value in vars(video).items() if field != "video_id"
        )
    assert [failure.video_id for failure in reader.failures] == ["worse.mp4"]
    assert Receipt.read(folder / "shard-00000.json").renamed == {"first/a.mp4": "a.mp4"}
    plan = read_plan(folder)
    assert plan is not None
    rows = {row.video_id: row for row in plan}
    assert rows["first/a.mp4"].location == "a.mp4", "where its file lies is still known"
    assert rows["f.avi"].location is None
    assert len(plan) == 8


def test_a_renaming_that_died_half_way(shard_set: ShardSet) -> None:
    folder, videos = shard_set

    def die(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rename(folder, {"a.mp4": "b.mp4", "g.gif": "h.gif"}, on_shard=die)
    assert verify(folder) != []
    rename(folder, {"a.mp4": "b.mp4", "g.gif": "h.gif"})
    assert verify(folder) == []
    assert set(open_shards(folder)) == (videos.keys() - {"a.mp4", "g.gif"}) | {"b.mp4", "h.gif"}
    assert rename(folder, {"a.mp4": "b.mp4"}).shards == []


def test_what_cannot_be_renamed(shard_set: ShardSet) -> None:
    folder, videos = shard_set
    drop(folder, ["e.jpg"])
    for names, words in (
        ({"nobody": "x"}, "knows nothing of 1"),
        ({"a.mp4": "f.avi"}, "there is a video 'f.avi'"),
        ({"a.mp4": "x", "f.avi": "x"}, "the same name"),
        ({"a.mp4": ""}, "cannot be the id"),
        ({"a.mp4": "a\nb"}, "cannot be the id"),
        ({"a.mp4": "e.jpg"}, "was dropped"),
        ({"e.jpg": "x"}, "was dropped"),
    ):
        with pytest.raises(InputError, match=words):
            rename(folder, names)
    assert whole(folder, without(videos, "e.jpg"))


def test_commands(shard_set: ShardSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, videos = shard_set
    (tmp_path / "ids.txt").write_text("g.gif\n\nf.avi\n")
    assert run(["shards", "drop", str(folder), "a.mp4", "--list", str(tmp_path / "ids.txt"), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == {"videos": 3, "shards": [0, 2], "set_aside": []}
    (tmp_path / "names.tsv").write_text("d.webm\tD.webm\n")
    assert run(["shards", "rename", str(folder), "e.jpg", "E.jpg", "--list", str(tmp_path / "names.tsv")]) == 0
    assert "2 videos renamed; 1 shards written anew" in capsys.readouterr().out
    assert list(open_shards(folder)) == ["b with space.mp4", "c/ünï-日本.mkv", "D.webm", "E.jpg"]
    for arguments, words in (
        (["drop"], "no video to drop"),
        (["drop", "--list", "nowhere.txt"], "cannot read nowhere.txt"),
        (["rename", "E.jpg"], "has no new name"),
        (["rename", "--list", str(tmp_path / "ids.txt")], "line 1 has no tab"),
        (["rename", "E.jpg", "1", "E.jpg", "2"], "renamed twice"),
    ):
        assert run(["shards", arguments[0], str(folder), *arguments[1:]]) == 2
        error = capsys.readouterr().err
        assert words in error
        assert "Traceback" not in error
    assert len(videos) == 7
