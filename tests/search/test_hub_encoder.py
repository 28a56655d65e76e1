"""Models of pictures and sentences as encoders of an index, from its making to its answers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hub_models
import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

import regionvlp
from regionvlp.errors import InputError, WeightsError
from regionvlp.models.hub.opening import open_joint_model
from regionvlp.pipelines.cli import run
from regionvlp.search.clips import Clip, ClipInput, VideoClips
from regionvlp.search.encoders.hub import open_hub_encoder
from regionvlp.search.pictures import Decoding
from regionvlp.video import read_frames

COLOURS = ("red", "green", "blue", "white", "black")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SigLIP 2 in transformers' layout."""
    folder = tmp_path_factory.mktemp("hub") / "siglip"
    hub_models.siglip(folder, second=True)
    return folder


@pytest.fixture(scope="module")
def clip_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP in transformers' layout, which crops."""
    folder = tmp_path_factory.mktemp("hub") / "clip"
    hub_models.clip(folder)
    return folder


@pytest.fixture
def videos(tmp_path: Path, make_clip: Callable[..., Path]) -> Path:
    """Two clips, of 6 and 1.5 s at 8 frames a second, a broken one, and pictures of one colour."""
    folder = tmp_path / "videos"
    make_clip(folder / "long.mp4", 1, frames=48)
    make_clip(folder / "short.mp4", 2, frames=12)
    (folder / "broken.mp4").write_bytes(b"\x00" * 200)
    for name in COLOURS:
        Image.new("RGB", (60, 40), name).save(folder / f"{name}.png")
    return folder


def indexed(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    capsys.readouterr()
    assert run(["index", *map(str, arguments), "--json", "-"]) == 0, capsys.readouterr().err
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


WINDOWS = ("--window", "2s", "--stride", "1s", "--frames", "4")


def test_videos_become_an_index_without_a_detector(
    videos: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--videos", videos, "--encoder", f"hub:{model}", "--tokens", *WINDOWS)
    said = indexed(capsys, *options, "--out", tmp_path / "i")
    assert said["failed"] == 1
    index = regionvlp.open_index(tmp_path / "i")
    assert [row.video_id for row in index.unread] == ["broken.mp4"]
    assert index.clips.column("video_id").to_pylist().count("long.mp4") == 5
    assert indexed(capsys, *options, "--out", tmp_path / "i")["added"] == 0

    # What is stored is the mean of the frames' own vectors, and each cell's.
    joint, _ = open_joint_model(str(model))
    row = index.row("long.mp4@2s")
    clip = index.clip(row)
    segment, inside = index._place(row)
    frames = read_frames(videos / "long.mp4", 4, start=clip.start, end=clip.end).frames
    seen = joint.see(torch.stack([joint.prepare(frame) for frame in frames]))
    expected = functional.normalize(seen.pooled.mean(0), dim=0).numpy()
    assert np.abs(segment.array("pooled-0.npy")[inside] - expected).max() < 1e-3  # half precision
    tokens = segment.tokens(0, inside)
    assert tokens is not None
    assert tokens.tokens.shape == (4 * 16, joint.width)
    assert tokens.mask.all()
    evidence = segment.evidence(inside)
    height, width = frames[2].shape[:2]
    assert evidence.boxes[2 * 16 + 6].tolist() == [width / 2, height / 4, width * 3 / 4, height / 2]
    cell = np.array([[32, 16, 48, 32]], np.float32)  # the same on the 64 x 64 that the model sees
    none = np.zeros((0, 4), np.float32)
    vector = joint.box_vectors(seen, [none, none, cell, none])
    assert np.abs(tokens.tokens[2 * 16 + 6] - vector).max() < 1e-3
    # A picture is one frame; the others' tokens are not there.
    segment, inside = index._place(index.row("red.png"))
    photo = segment.tokens(0, inside)
    assert photo is not None
    assert photo.mask.reshape(4, 16).sum(1).tolist() == [16, 0, 0, 0]


def test_answers_have_boxes_and_finer_ones(
    videos: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = tmp_path / "i"
    indexed(capsys, "--videos", videos, "--encoder", f"hub:{model}", "--tokens", *WINDOWS, "--out", index)
    opened = regionvlp.open_index(index)
    answers = opened.search("a red car on the road")
    assert [word.word for word in answers.results[0].words] == ["red", "car", "road"]
    boxed = next(result for result in answers.results if result.video_id == "long.mp4")
    assert all(len(word.boxes) for word in boxed.words)
    finer = opened.search("a red car on the road", fine=True)
    assert [result.clip_id for result in finer.results] == [result.clip_id for result in answers.results]
    again = next(result for result in finer.results if result.video_id == "long.mp4")
    sides = [[box.box[2] - box.box[0] for box in result.words[0].boxes] for result in (boxed, again)]
    assert max(sides[0]) == pytest.approx(3 * max(sides[1]), abs=0.05)
    assert run(["eval", "index", str(index), "--queries", str(_queries(tmp_path)), "--json", "-"]) == 0
    capsys.readouterr()
    # Without stored tokens there are no boxes, but those that are looked for.
    indexed(capsys, "--videos", videos, "--encoder", f"hub:{model}", *WINDOWS, "--out", tmp_path / "plain")
    plain = regionvlp.open_index(tmp_path / "plain")
    assert not plain.search("red car").results[0].words[0].boxes
    assert plain.search("red car", top=2, fine=True).results[0].words[0].boxes


def _queries(folder: Path) -> Path:
    path = folder / "queries.csv"
    path.write_text("video_id,caption\n" + "".join(f"{name}.png,a {name} wall\n" for name in COLOURS))
    return path


def test_a_picture_from_elsewhere_finds_its_like(
    videos: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = tmp_path / "i"
    indexed(capsys, "--videos", videos, "--encoder", f"hub:{model}", *WINDOWS, "--out", index)
    opened = regionvlp.open_index(index)
    shutil.copy(videos / "blue.png", tmp_path / "mine.png")
    answers = opened.search(like=str(tmp_path / "mine.png"))
    assert answers.results[0].video_id == "blue.png"
    assert answers.results[0].score == pytest.approx(1, abs=1e-3)
    # Of the index itself, the same way but without itself.
    assert "blue.png" not in {result.video_id for result in opened.search(like="blue.png").results}
    shutil.copy(videos / "long.mp4", tmp_path / "mine.mp4")
    assert opened.search(like=f"{tmp_path}/mine.mp4@2s").results[0].video_id == "long.mp4"
    (tmp_path / "none.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="cannot look at"):
        opened.search(like=str(tmp_path / "none.png"))
    with pytest.raises(InputError, match="the index holds no"):
        opened.search(like="gone.png")


def test_cached_frames_give_the_index_that_videos_give(
    videos: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nearly: the frames were JPEGs meanwhile."""
    (videos / "broken.mp4").unlink()
    frames = tmp_path / "frames"
    assert run(["extract", "--videos", str(videos), "--out", str(frames), "--what", "frames", "--frames", "4"]) == 0
    encoder = ("--encoder", f"hub:{model}", "--tokens")
    indexed(capsys, "--shards", frames, *encoder, "--out", tmp_path / "a")
    whole = ("--window", "100s", "--stride", "100s", "--frames", "4")
    indexed(capsys, "--videos", videos, *encoder, *whole, "--out", tmp_path / "b")
    cached, decoded = (regionvlp.open_index(tmp_path / name) for name in "ab")
    assert cached.clips.column("clip_id").to_pylist() == decoded.clips.column("clip_id").to_pylist()
    for row in range(len(cached)):
        pair = [index._place(row)[0].array("pooled-0.npy")[row].astype(np.float32) for index in (cached, decoded)]
        assert float(pair[0] @ pair[1]) > 0.995
    assert indexed(capsys, "--shards", frames, *encoder, "--out", tmp_path / "a")["added"] == 0


def test_labels_and_a_model_fuse_over_the_boxes_of_a_detector(
    videos: Path, clip_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoders = ("--encoder", "labels", "--encoder", f"hub:{clip_model}", "--detector", "own_detectors:Halves")
    indexed(capsys, "--videos", videos, *encoders, "--tokens", *WINDOWS, "--out", tmp_path / "i")
    index = regionvlp.open_index(tmp_path / "i")
    best = index.search("the left half").results[0]
    assert list(best.shares) == ["labels", f"hub:{clip_model}"]
    assert sum(best.shares.values()) == pytest.approx(best.score, abs=1e-5)
    segment, inside = index._place(index.row("long.mp4@2s"))
    tokens, evidence = segment.tokens(1, inside), segment.evidence(inside)
    assert tokens is not None
    # The left half of a frame that is wider than high: seen from where the crop begins to its middle.
    clip = index.clip(index.row("long.mp4@2s"))
    frames = read_frames(videos / "long.mp4", 4, start=clip.start, end=clip.end).frames
    joint, _ = open_joint_model(str(clip_model))
    seen = joint.see(torch.stack([joint.prepare(frame) for frame in frames]))
    left = np.array([[0, 0, 32, 64]], np.float32)
    expected = joint.box_vectors(seen, [left] * len(frames))
    for frame in range(len(frames)):
        (place,) = np.flatnonzero((evidence.frame == frame) & (evidence.boxes[:, 0] == 0))
        stored = tokens.tokens[(tokens.frames == frame) & (tokens.slots == evidence.slot[place])]
        assert np.abs(stored[0] - expected[frame]).max() < 2e-3
    # A picture from elsewhere says nothing to labels.
    shutil.copy(videos / "blue.png", tmp_path / "mine.png")
    assert list(index.search(like=str(tmp_path / "mine.png")).results[0].shares) in ([], [f"hub:{clip_model}"])
    shards = next((tmp_path / "i" / "regions").glob("part-00000"))
    capsys.readouterr()
    assert run(["index", "--shards", str(shards), "--encoder", f"hub:{clip_model}", "--out", str(tmp_path / "j")]) == 2
    assert "looks at frames" in capsys.readouterr().err


def test_windows_share_the_frames_that_they_have_in_common(
    videos: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = open_hub_encoder(f"hub:{model}")
    clips = [
        Clip(f"long.mp4@{start}s", "long.mp4", str(videos / "long.mp4"), start, start + 2, "1") for start in (0, 1, 2)
    ]
    with Decoding(4) as source:
        inputs = list(VideoClips(clips, source).inputs(clips))
    assert all(isinstance(item, ClipInput) for item in inputs)
    distinct = {int(index) for item in inputs for index in item.pictures.frame_index}  # type: ignore[union-attr]
    assert len(distinct) < 12
    seen: list[int] = []
    look = encoder._look
    monkeypatch.setattr(encoder, "_look", lambda frames, placed: (seen.append(len(frames)), look(frames, placed))[1])
    together = encoder.encode_clips([item for item in inputs[:2] if isinstance(item, ClipInput)])
    encoder.encode_clips([item for item in inputs[2:] if isinstance(item, ClipInput)])
    assert sum(seen) == len(distinct)
    alone = open_hub_encoder(f"hub:{model}").encode_clips([inputs[1]])  # type: ignore[list-item]
    assert alone.pooled is not None
    assert together.pooled is not None
    np.testing.assert_allclose(together.pooled[1], alone.pooled[0], atol=1e-5)


def test_the_bench_compares_encoders_on_ones_own_videos(
    videos: Path, model: Path, clip_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (videos / "broken.mp4").unlink()
    boxes = tmp_path / "boxes.csv"
    boxes.write_text(
        "video_id,word,x1,y1,x2,y2\nred.png,wall,0,0,60,40\nred.png,wall,1,1,2,2\nblue.png,corner,0,0,15,10\n"
    )
    names = [f"hub:{folder}" for folder in (model, clip_model)]
    given = [part for name in names for part in ("--encoder", name)]
    bench = ["bench", "encoders", "--videos", str(videos), "--queries", str(_queries(tmp_path)), "--boxes", str(boxes)]
    assert run([*bench, *given, "--json", str(tmp_path / "bench.json"), "--keep", str(tmp_path / "kept")]) == 0
    found = json.loads((tmp_path / "bench.json").read_text())
    assert [one["encoder"] for one in found["encoders"]] == names
    for number, one in enumerate(found["encoders"]):
        assert one["queries"] == 5
        assert one["clips"] == 7
        point = one["pointing"]
        assert point["words"] == 2
        assert point["chance"] == pytest.approx(100 * (1 + 1 / 16) / 2)
        assert point["inside"] >= 50  # any box lies on a wall that is everywhere
        stored = tmp_path / "kept" / f"index-{number}"
        size = sum(path.stat().st_size for path in stored.glob("segment-*/*"))
        assert one["bytes_per_clip"] == pytest.approx(size / 7)
        asked = ["eval", "index", str(stored), "--queries", str(_queries(tmp_path)), "--json", str(tmp_path / "e.json")]
        assert run(asked) == 0
        assert json.loads((tmp_path / "e.json").read_text())["t2v"]["R1"] == one["recall"]["R1"]
    capsys.readouterr()
    boxes.write_text("video_id,word,x1,y1,x2,y2\nred.png,wall,9,0,1,40\n")
    assert run([*bench, *given]) == 2
    assert "there is no such box" in capsys.readouterr().err


def test_the_end_of_a_long_sentence_is_not_lost_in_silence(
    videos: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    indexed(capsys, "--videos", videos, "--encoder", f"hub:{model}", *WINDOWS, "--out", tmp_path / "i")
    index = regionvlp.open_index(tmp_path / "i")
    assert f"hub:{model} reads 64 tokens, and not the end of the query" in index.search("dog water " * 40).notes
    assert not index.search("a dog").notes
    for odd in ("\U0001f600", "...", "\u0441\u043e\u0431\u0430\u043a\u0430", "x" * 10_000):
        assert index.search(odd).results


def test_an_index_of_another_revision_is_refused(
    videos: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    place = tmp_path / "cache" / "models--tiny--model"
    commits = ("a" * 40, "b" * 40)
    shutil.copytree(model, place / "snapshots" / commits[0])
    hub_models.siglip(place / "snapshots" / commits[1], second=True, seed=3)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commits[0])
    options = ("--videos", videos, *WINDOWS, "--out", tmp_path / "i")
    indexed(capsys, *options, "--encoder", "hub:tiny/model")
    (place / "refs" / "main").write_text(commits[1])
    assert run([*map(str, ("index", *options)), "--encoder", "hub:tiny/model"]) == 2
    error = capsys.readouterr().err
    assert f"--encoder hub:tiny/model@{commits[0]} goes on with it" in error
    assert error.count("\n") == 1
    # The index is asked, and gone on with, in the revision that it was made with.
    assert regionvlp.open_index(tmp_path / "i").search("a dog").results
    assert indexed(capsys, *options, "--encoder", f"hub:tiny/model@{commits[0]}")["added"] == 0
    shutil.rmtree(place / "snapshots" / commits[0])
    with pytest.raises(WeightsError, match="is not in the Hub's cache"):
        regionvlp.open_index(tmp_path / "i").search("a dog")
    given = regionvlp.open_index(tmp_path / "i", encoders=[f"hub:{model}"])
    assert given.search("a dog").results
