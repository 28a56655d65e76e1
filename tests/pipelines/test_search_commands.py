"""``regionvlp index``, ``search`` and ``eval index`` as people use them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import regionvlp
from regionvlp.errors import RegionVLPError
from regionvlp.pipelines.cli import run
from regionvlp.video import read_frames

Edit = Callable[..., Path]


def asked(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, object]:
    """What a command prints as JSON."""
    capsys.readouterr()
    assert run([*map(str, arguments), "--json", "-"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


@pytest.fixture
def videos(tmp_path: Path, make_clip: Callable[..., Path]) -> Path:
    """A clip of 2.4 s (at 10 frames a second), one of 0.6 s, a broken one and a picture."""
    from PIL import Image

    folder = tmp_path / "my videos"
    make_clip(folder / "long.mp4", 1, frames=48)
    make_clip(folder / "sub" / "short.mp4", 2, frames=12)
    (folder / "broken.mp4").write_bytes(b"\x00" * 200)
    Image.new("RGB", (60, 40), "red").save(folder / "photo.jpg")
    return folder


OPTIONS = ("--detector", "own_detectors:Halves", "--window", "1s", "--stride", "500ms", "--frames", "2")


def test_a_folder_of_videos_becomes_an_index_and_follows_it(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], make_clip: Callable[..., Path]
) -> None:
    out = tmp_path / "i"
    index = ("index", "--videos", videos, "--out", out, *OPTIONS)
    said = asked(capsys, *index)
    assert said["failed"] == 1
    clips = regionvlp.open_index(out).clips
    assert set(clips.column("video_id").to_pylist()) == {"long.mp4", "photo.jpg", "sub/short.mp4"}
    assert clips.column("video_id").to_pylist().count("long.mp4") > 1
    found = asked(capsys, "search", out, "the left half", "--top", "100")
    results: list[dict[str, object]] = found["results"]  # type: ignore[assignment]
    assert {row["video_id"] for row in results} == {"long.mp4", "photo.jpg", "sub/short.mp4"}
    assert all(os.path.isfile(str(row["path"])) for row in results)
    photo = next(row for row in results if row["video_id"] == "photo.jpg")
    assert photo["start"] == photo["end"] == 0
    words: list[dict[str, list[dict[str, object]]]] = photo["words"]  # type: ignore[assignment]
    assert words[0]["boxes"][0]["box"] == [0, 0, 30, 40]

    said = asked(capsys, *index)
    assert (said["added"], said["removed"]) == (0, 0)
    make_clip(videos / "long.mp4", 3, frames=12)
    (videos / "photo.jpg").unlink()
    shutil.copy(videos / "sub" / "short.mp4", videos / "new.mp4")
    said = asked(capsys, *index)
    assert (said["added"], said["gone"]) == (4, 1)
    said = asked(capsys, *index, "--prune", "--discard-regions")
    assert (said["added"], said["removed"], said["clips"]) == (0, 1, 6)
    moved = videos.rename(tmp_path / "moved")
    assert run([*map(str, search := ("search", out, "right half", "--top", "1", "--cut", tmp_path / "cuts"))]) == 0
    assert "is not where it was, and was not cut" in capsys.readouterr().out
    index = (*index[:2], moved, *index[3:])
    assert asked(capsys, *index, "--discard-regions")["added"] == 0
    assert run([*map(str, search)]) == 0
    assert "1 clip cut into" in capsys.readouterr().out
    # What it has become is what it would be if it were made now.
    asked(capsys, *index[:4], tmp_path / "fresh", *OPTIONS)
    tables = [regionvlp.open_index(folder).clips for folder in (out, tmp_path / "fresh")]
    assert tables[0].to_pylist() == tables[1].to_pylist()
    copies = [result.copies for result in regionvlp.open_index(out).search("left half").results]
    assert sorted(copy.video_id for found in copies for copy in found) in (["new.mp4"], ["sub/short.mp4"])


def test_an_interrupted_indexing_goes_on(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "i"
    index = ("index", "--videos", videos, "--out", out, *OPTIONS)
    for broken in ("regionvlp.pipelines.index_videos.extract_folder", "regionvlp.pipelines.index_videos.add_clips"):
        with monkeypatch.context() as patch:
            patch.setattr(broken, lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
            assert run([*map(str, index)]) == 130
    assert asked(capsys, *index)["clips"] == 14
    assert not [path for path in (out / "regions").glob("part-*.parquet") if path.stem != "part-00000"]


def test_answers_become_clips_lists_and_pages(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "i"
    asked(capsys, "index", "--videos", videos, "--out", out, *OPTIONS)
    search = ("search", out, "right half", "--folder", "long.mp4", "--top", "1")
    (result,) = asked(
        capsys, *search, "--cut", tmp_path / "cuts", "--edl", tmp_path / "x.edl", "--html", tmp_path / "x.html"
    )["results"]  # type: ignore[misc]
    (cut,) = (tmp_path / "cuts").iterdir()
    assert cut.suffix == ".mp4"
    whole, part = (read_frames(path, 1000) for path in (videos / "long.mp4", cut))
    assert (part.frames[0] == whole.frames[0]).all()  # the only key frame
    assert len(part.frames) >= 8 * (result["end"] - result["start"]) - 2
    lines = (tmp_path / "x.edl").read_text().splitlines()
    assert lines[0] == "TITLE: right half"
    assert lines[3].startswith("001  AX       V     C        00:00:0")
    page = (tmp_path / "x.html").read_text()
    assert "data:image/jpeg;base64," in page
    assert "right half" in page
    (videos / "long.mp4").unlink()
    gone = asked(capsys, *search, "--cut", tmp_path / "more", "--html", tmp_path / "y.html")
    assert len(gone["results"]) == 1  # type: ignore[arg-type]
    assert "data:image" not in (tmp_path / "y.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "no query given"),
        (("dog", "--like", "x.mp4"), "QUERY and --like given"),
        (("--from", "nowhere.txt"), "cannot read nowhere.txt"),
        (("dog", "--after", "yesterday"), "'yesterday' is no date"),
        (("--like", "x.mp4@3s"), "the index holds no 'x.mp4'"),
        (("dog", "--top", "0"), "0 is not in the range"),
        (("dog", "--from-shards"), "labels compares no tokens"),
        (("dog", "--from-shards", "--no-rerank"), "--no-rerank and --from-shards given"),
        (("dog", "--cut", "a file"), "cannot write to a file"),
    ],
)
def test_mistakes_are_one_line(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...], words: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a file").touch()
    asked(capsys, "index", "--shards", world / "shards", "--out", tmp_path / "i")
    assert run(["search", str(tmp_path / "i"), *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_a_checkpoint_is_an_encoder(
    world: Path, recipe: Edit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a search ranks by is what the evaluation of the checkpoint ranks by."""
    assert run(["pretrain", "--config", str(recipe()), "--out", str(tmp_path / "run")]) == 0
    assert run(["eval", "csv", "--checkpoint", str(tmp_path / "run"), "--json", str(tmp_path / "eval.json")]) == 0
    held_out = json.loads((tmp_path / "eval.json").read_text())
    index = ("index", "--shards", world / "shards", "--videos", world / "videos", "--encoder", tmp_path / "run")
    said = asked(capsys, *index, "--out", tmp_path / "i", "--tokens")
    assert said["clips"] == 32
    queries = world / "videos" / "test.jsonl"
    # The held-out clips alone, as in the evaluation.
    from regionvlp.search.build import index_shards
    from regionvlp.search.clips import ShardClips
    from regionvlp.search.encoders.opening import open_encoder
    from regionvlp.search.writer import IndexWriter

    source = ShardClips([world / "shards"])
    source.ids = [name for name in source.ids if name.startswith("test")]
    with IndexWriter(tmp_path / "test", [open_encoder(str(tmp_path / "run"))], tokens=True) as writer:
        index_shards(writer, source)
        writer.finish()
    metrics = asked(capsys, "eval", "index", tmp_path / "test", "--queries", queries)
    assert metrics["gallery"] == held_out["gallery"] == 8
    assert metrics["t2v"] == pytest.approx(held_out["t2v"])
    bare = tmp_path / "bare"
    asked(capsys, *index, "--out", bare)
    documents = [
        asked(capsys, "search", folder, "the red circle moves", *options)
        for folder, options in ((tmp_path / "i", ()), (bare, ("--from-shards",)), (bare, ()))
    ]
    stored, again, pooled = ([row["clip_id"] for row in document["results"]] for document in documents)  # type: ignore[attr-defined]
    assert stored == again != pooled
    words = [document["results"][0]["words"] for document in documents]  # type: ignore[index]
    assert words[0] == words[1] != words[2]
    assert "'index --tokens' saves that" in str(documents[1]["notes"])
    assert asked(capsys, "eval", "index", bare, "--queries", queries, "--allow-missing", "--from-shards")["t2v"]
    answers = regionvlp.open_index(tmp_path / "i").search("the red circle moves", top=3)
    assert [word.word for word in answers.results[0].words] == ["red", "circle", "moves"]
    boxes = answers.results[0].words[1].boxes
    assert boxes
    regions = regionvlp.open_shards(world / "shards")[answers.results[0].clip_id]
    stored = regions.boxes.reshape(-1, 4)
    assert all(np.abs(stored - box.box).max(1).min() < 0.01 for box in boxes)
    shutil.rmtree(tmp_path / "run")
    assert run(["search", str(tmp_path / "i"), "red"]) == 2
    assert "no longer at" in capsys.readouterr().err


def test_nothing_to_index_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        ((), "there is nothing to index"),
        (("--videos", str(tmp_path / "none")), "does not exist"),
        (("--videos", str(tmp_path)), "no video lies below"),
        (("--videos", str(tmp_path), "--window", "1s", "--stride", "2s"), "leave out what is between"),
        (("--shards", str(tmp_path)), "is not a shard folder"),
        (("--shards", str(tmp_path), "--encoder", "clip"), "there is no encoder 'clip'"),
    ):
        assert run(["index", "--out", str(tmp_path / "i"), *arguments]) == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1
        assert not (tmp_path / "i").exists()


def test_a_checkpoint_encodes_what_it_is_given(world: Path, recipe: Edit, tmp_path: Path) -> None:
    assert run(["pretrain", "--config", str(recipe()), "--out", str(tmp_path / "run")]) == 0
    checkpoint = regionvlp.load_checkpoint(tmp_path / "run")
    texts = checkpoint.encode_text(["the red circle", "a blue square moves to the left"])
    shards = regionvlp.open_shards(world / "shards")
    ids = [shards.video_ids[i] for i in (3, 1, 3)]
    videos = checkpoint.encode_videos(ids, world / "shards")
    assert texts.pooled.shape == (2, 8)
    assert videos.tokens.shape == (3, 2 * 6, 8)
    assert np.array_equal(videos.pooled[0], videos.pooled[2])
    alone = checkpoint.encode_videos(ids[1:2], shards)
    np.testing.assert_allclose(videos.pooled[1], alone.pooled[0], atol=1e-5)
    assert checkpoint.system.similarity(videos, texts).shape == (2, 3)
    for wrong in (lambda: checkpoint.encode_text([]), lambda: checkpoint.encode_videos([], shards)):
        with pytest.raises(RegionVLPError):
            wrong()
