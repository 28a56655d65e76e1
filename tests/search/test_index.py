from __future__ import annotations

import errno
import functools
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import regionvlp
from regionvlp.errors import InputError, RegionVLPError, ShardError
from regionvlp.search.build import index_shards
from regionvlp.search.clips import ShardClips
from regionvlp.search.encoders.base import Encoder
from regionvlp.search.encoders.opening import open_encoder
from regionvlp.search.folder import CONTENTS_NAME, MANIFEST_NAME, Contents
from regionvlp.search.index import Index, open_index
from regionvlp.search.writer import IndexWriter
from search.contents import content
from search.worlds import OBJECTS, WORLD, sentence_encoder, video, write_segments, write_shards

opened_once = functools.cache(open_encoder)


def build(out: Path, *shards: Path, encoders: list[str], prune: bool = False) -> IndexWriter:
    opened: list[Encoder] = [opened_once(name) for name in encoders]
    with IndexWriter(out, opened, cut={"by": "shards"}) as writer:
        index_shards(writer, ShardClips(shards), prune=prune)
        writer.finish()
    return writer


@pytest.fixture
def encoders(sentences: Path) -> list[str]:
    return ["labels", f"labels:{sentences}"]


def test_a_sentence_finds_its_clip_and_says_where(shards: Path, tmp_path: Path) -> None:
    build(tmp_path / "i", shards, encoders=["labels"])
    answers = regionvlp.open_index(tmp_path / "i").search("the red dogs", top=3)
    best = answers.results[0]
    assert (best.video_id, best.start, best.end) == ("park/dog.mp4", 0, 3)
    assert [word.word for word in best.words] == ["red", "dogs"]
    dog = best.words[1].boxes
    assert [(box.time, box.box, box.label) for box in dog] == [
        (0, (0, 0, 8, 8), "red dog"),
        (2, (1, 1, 9, 9), "red dog"),
    ]
    assert len(answers.results) == 3
    assert (np.diff([result.score for result in answers.results]) <= 0).all()
    document = json.loads(json.dumps(answers.to_dict()))
    assert set(document) >= {"query", "present", "results"}
    assert set(document["results"][0]) >= {"video_id", "path", "start", "end", "score", "words"}
    box = document["results"][0]["words"][1]["boxes"][0]
    assert set(box) >= {"time", "box", "weight", "score_without", "rank_without"}


def test_several_encoders_share_the_score(shards: Path, tmp_path: Path, encoders: list[str]) -> None:
    build(tmp_path / "i", shards, encoders=encoders)
    best = open_index(tmp_path / "i").search("red car person").results[0]
    assert best.video_id == "road/car.mp4"
    assert list(best.shares) == encoders
    assert sum(best.shares.values()) == pytest.approx(best.score, abs=1e-5)


def test_made_in_two_halves_it_is_the_same_as_made_at_once(tmp_path: Path, encoders: list[str]) -> None:
    videos = [video(name, labels) for name, labels in WORLD.items()]
    shards = write_shards(tmp_path / "shards", videos[:2])
    build(tmp_path / "halves", shards, encoders=encoders)
    write_shards(shards, videos[2:], number=1)
    build(tmp_path / "halves", shards, encoders=encoders)
    build(tmp_path / "once", shards, encoders=encoders)
    assert content(tmp_path / "halves") == content(tmp_path / "once")
    segments = [sorted((tmp_path / name).glob("segment-*/*.npy")) for name in ("halves", "once")]
    assert segments[0]
    assert [path.read_bytes() for path in segments[0]] == [path.read_bytes() for path in segments[1]]


def test_what_is_there_is_not_encoded_again_and_what_changed_is(shards: Path, tmp_path: Path, sentences: Path) -> None:
    seen: list[list[str]] = []
    encoder = open_encoder(f"labels:{sentences}")
    encode = encoder.encode_clips
    encoder.encode_clips = lambda clips: (seen.append([c.clip.clip_id for c in clips]), encode(clips))[1]  # type: ignore[method-assign,func-returns-value]
    for _ in range(2):
        with IndexWriter(tmp_path / "i", [encoder]) as writer:
            index_shards(writer, ShardClips([shards]))
            writer.finish()
    assert sorted(seen[0]) == sorted(WORLD)
    assert len(seen) == 1
    shutil.rmtree(shards)
    write_shards(shards, [video(name, ["tree"]) for name in ("park/dog.mp4", "new.mp4")])
    with IndexWriter(tmp_path / "i", [encoder]) as writer:
        built = index_shards(writer, ShardClips([shards]))
        assert (built.added, built.gone, built.removed) == (2, 4, 0)
        assert len(writer.stamps) == 6
        assert index_shards(writer, ShardClips([shards]), prune=True).removed == 4
        writer.finish()
    assert sorted(content(tmp_path / "i")["rows"]) == ["new.mp4", "park/dog.mp4"]  # type: ignore[call-overload]
    fresh = tmp_path / "fresh"
    with IndexWriter(fresh, [encoder]) as writer:
        index_shards(writer, ShardClips([shards]))
        writer.finish()
    assert content(fresh) == content(tmp_path / "i")


class Killed(BaseException):
    """The process dies here."""


class Disk:
    """Lets the n-th call of a system function that changes the disk fail, and all that follow."""

    def __init__(self) -> None:
        self.left, self.fault = 1 << 30, BaseException()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk()

    def counted(name: str) -> None:
        real = getattr(os, name)

        def call(*arguments: object, **named: object) -> object:
            disk.left -= 1
            if disk.left < 0:
                raise disk.fault
            return None if name == "fsync" else real(*arguments, **named)  # this machine does not lose power

        monkeypatch.setattr(os, name, call)

    for name in ("replace", "rename", "fsync", "link", "rmdir", "mkdir"):
        counted(name)
    yield disk
    disk.left = 1 << 30


def test_killed_at_every_step_it_goes_on_to_the_same_index(
    tmp_path: Path, encoders: list[str], disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regionvlp.search.build.BATCH", 3)
    monkeypatch.setattr("regionvlp.search.presence.unrelated_sentences", lambda: ("a tree", "the cat"))
    shards = write_shards(tmp_path / "shards", [video(name, labels) for name, labels in WORLD.items()])
    build(tmp_path / "whole", shards, encoders=encoders)
    wanted = content(tmp_path / "whole")
    steps = 0
    while True:
        disk.left, disk.fault = steps, Killed()
        out = tmp_path / f"i{steps}"
        try:
            build(out, shards, encoders=encoders)
        except Killed:
            disk.left = 1 << 30
            if (out / MANIFEST_NAME).exists():
                seen = open_index(out)
                assert len(seen) in (0, 3, 5)
            build(out, shards, encoders=encoders)
            assert content(out) == wanted, f"killed at step {steps}"
            # A killed process is told by its number; this one lives on, so its temporary folders may be somebody's.
            assert len([path for path in out.glob("segment-*") if path.suffix != ".tmp"]) == 1
            shutil.rmtree(out)
            steps += 1
            continue
        break
    assert steps > 20, steps


def test_a_reader_keeps_what_it_opened_while_a_writer_goes_on(tmp_path: Path, encoders: list[str]) -> None:
    shards = write_shards(tmp_path / "shards", [video(name, labels) for name, labels in WORLD.items()])
    build(tmp_path / "i", shards, encoders=encoders)
    reader = open_index(tmp_path / "i")
    before = reader.search("red dog").to_dict()
    write_shards(shards, [video("more.mp4", ["red dog"])], number=1)
    build(tmp_path / "i", shards, encoders=encoders)
    after = reader.search("red dog").to_dict()
    assert [r["video_id"] for r in after["results"]] == [r["video_id"] for r in before["results"]]
    assert "more.mp4" in {r.video_id for r in open_index(tmp_path / "i").search("red dog").results}


def test_one_writer_at_a_time(shards: Path, tmp_path: Path) -> None:
    with (
        IndexWriter(tmp_path / "i", [open_encoder("labels")]),
        pytest.raises(InputError, match="another process is indexing"),
        IndexWriter(tmp_path / "i", [open_encoder("labels")]),
    ):
        pass


def test_another_encoder_or_cut_is_another_index(shards: Path, tmp_path: Path, encoders: list[str]) -> None:
    build(tmp_path / "i", shards, encoders=encoders)
    other = sentence_encoder(tmp_path / "other", seed=1)
    with pytest.raises(InputError, match=r"another index: it has the encoder .* is another one .*weights differs"):
        build(tmp_path / "i", shards, encoders=["labels", f"labels:{other}"])
    with pytest.raises(InputError, match="another index: it has the encoders"):
        build(tmp_path / "i", shards, encoders=["labels"])
    with (
        pytest.raises(InputError, match="clips cut by"),
        IndexWriter(tmp_path / "i", [open_encoder(name) for name in encoders], cut={"by": "windows"}),
    ):
        pass


def test_an_encoder_that_moved_is_named_and_one_that_changed_refused(
    shards: Path, tmp_path: Path, sentences: Path
) -> None:
    here = tmp_path / "here"
    shutil.copytree(sentences, here)
    build(tmp_path / "i", shards, encoders=[f"labels:{here}"])
    moved = tmp_path / "moved"
    here.rename(moved)
    with pytest.raises(InputError, match="no longer at"):
        open_index(tmp_path / "i").search("dog")
    assert open_index(tmp_path / "i", encoders=[f"labels:{moved}"]).search("dog").results
    shutil.copytree(sentence_encoder(tmp_path / "other", seed=1), here)
    with pytest.raises(InputError, match="another one than the index was made with"):
        open_index(tmp_path / "i").search("dog")


@pytest.mark.parametrize("damage", ["version", "kind", "digest", "contents", "cut off", "gone", "arrow", "folder"])
def test_a_damaged_index_is_one_line(shards: Path, tmp_path: Path, sentences: Path, damage: str) -> None:
    from regionvlp.store.files import document_text, read_document

    out = tmp_path / "i"
    build(out, shards, encoders=[f"labels:{sentences}"])
    segment = next(out.glob("segment-*"))
    if damage in ("version", "kind"):
        values = read_document(out / MANIFEST_NAME)
        values["schema_version" if damage == "version" else "kind"] = 0
        (out / MANIFEST_NAME).write_text(document_text(values))
    elif damage == "digest":
        (out / MANIFEST_NAME).write_text((out / MANIFEST_NAME).read_text().replace("labels", "label5"))
    elif damage == "contents":
        (out / CONTENTS_NAME).write_text("{")
    elif damage == "cut off":
        path = segment / "pooled-0.npy"
        path.write_bytes(path.read_bytes()[:-3])
    elif damage == "gone":
        (segment / "evidence.arrow").unlink()
    elif damage == "arrow":
        path = segment / "clips.arrow"
        path.write_bytes(bytes(path.stat().st_size))
    else:
        shutil.rmtree(out)
    with pytest.raises(RegionVLPError) as caught:
        open_index(out).search("dog")
    assert "\n" not in str(caught.value)
    assert caught.value.hint


def test_queries_of_every_kind_are_answered(shards: Path, tmp_path: Path, encoders: list[str]) -> None:
    build(tmp_path / "i", shards, encoders=encoders)
    index = open_index(tmp_path / "i")
    for query in ("dog " * 2500, "👍👍👍", "собака 犬 كلب", "?!...", "a", "\x00 dog", '"dog" OR NEAR('):
        answers = index.search(query, top=5)
        assert len(answers.results) == 5
        assert 0 < answers.present < 1
    assert "no word in the query" in index.search("👍👍👍").notes[0]
    assert "a query of 2,500 words" in index.search("dog " * 2500).notes[0]
    for query in ("", " \n\t"):
        with pytest.raises(InputError, match="empty"):
            index.search(query)
    with pytest.raises(InputError, match="top is 0"):
        index.search("dog", top=0)


def test_present_is_high_for_what_is_there(shards: Path, tmp_path: Path) -> None:
    build(tmp_path / "i", shards, encoders=["labels"])
    index = open_index(tmp_path / "i")
    assert index.search("red dog with a ball").present > 0.9
    assert index.search("parliament").present < 0.6


def test_windows_of_a_file_are_moments_and_filters_hold(tmp_path: Path) -> None:
    names = {"a@0": ["tree"], "a@4": ["red dog"], "a@8": ["red dog"], "b": ["dog"]}
    shards = write_shards(tmp_path / "shards", [video(name, labels) for name, labels in names.items()])
    write_segments(shards, [(n, "in/a.mp4", 4.0 * i, 4.0 * i + 8) for i, n in enumerate(("a@0", "a@4", "a@8"))])
    build(tmp_path / "i", shards, encoders=["labels"])
    index = open_index(tmp_path / "i")
    results = index.search("red dog").results
    assert [(r.video_id, r.start, r.end) for r in results] == [("in/a.mp4", 4, 16), ("b", 0, 3)]
    assert [r.video_id for r in index.search("dog", folder="in").results] == ["in/a.mp4"]
    assert [r.video_id for r in index.search("dog", folder="in/*.mp4").results] == ["in/a.mp4"]
    assert index.search("dog", folder="nowhere").results == ()
    assert "no clip fits the filters" in index.search("dog", folder="nowhere").notes
    assert index.search("dog", after=0.0).results == ()  # the files are not there
    assert index.clip(index.row("in/a.mp4@9s")).clip_id == "a@4"
    assert index.clip(index.row("in/a.mp4")).clip_id == "a@0"
    like = index.search(like="in/a.mp4@13s").results
    assert like[0].video_id == "in/a.mp4"
    for place in ("nowhere.mp4", "in/a.mp4@99s"):
        with pytest.raises(InputError):
            index.row(place)


def test_detectors_complete_each_other(tmp_path: Path) -> None:
    one = write_shards(tmp_path / "one", [video("x.mp4", ["dog"]), video("y.mp4", ["dog"]), video("only.mp4", ["cat"])])
    two = write_shards(tmp_path / "two", [video("x.mp4", ["ball"]), video("y.mp4", ["tree"])], detector="other")
    clips = ShardClips([one, two])
    assert clips.ids == ["x.mp4", "y.mp4"]
    assert clips.missing == ["only.mp4"]
    build(tmp_path / "i", one, two, encoders=["labels"])
    best = open_index(tmp_path / "i").search("dog and tree").results[0]
    assert best.video_id == "y.mp4"
    assert [word.boxes[0].label for word in best.words] == ["dog", "tree"]


def test_an_empty_index_and_one_of_a_single_clip(tmp_path: Path, encoders: list[str]) -> None:
    with IndexWriter(tmp_path / "none", [open_encoder("labels")]) as writer:
        writer.finish()
    with pytest.raises(InputError, match="holds no clip"):
        open_index(tmp_path / "none").search("dog")
    shards = write_shards(tmp_path / "shards", [video("one.jpg", ["dog"])])
    build(tmp_path / "one", shards, encoders=encoders)
    assert [r.video_id for r in open_index(tmp_path / "one").search("dog").results] == ["one.jpg"]


def test_a_disk_that_is_full_at_any_step_is_one_line(
    shards: Path, tmp_path: Path, encoders: list[str], disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regionvlp.search.build.BATCH", 3)
    monkeypatch.setattr("regionvlp.search.presence.unrelated_sentences", lambda: ("a tree", "the cat"))
    build(tmp_path / "whole", shards, encoders=encoders)
    wanted = content(tmp_path / "whole")
    said: list[str] = []
    for steps in itertools.count():
        out = tmp_path / f"i{steps}"
        disk.left, disk.fault = steps, OSError(errno.ENOSPC, "No space left on device")
        try:
            build(out, shards, encoders=encoders)
            break
        except RegionVLPError as error:
            said.append(f"{error.hint and error}")
        finally:
            disk.left = 1 << 30
        build(out, shards, encoders=encoders)
        assert content(out) == wanted, f"full at step {steps}"
    assert len(said) > 20
    assert all("No space left on device" in line and "\n" not in line for line in said), said


def test_a_full_disk_leaves_the_index_as_it_was(
    shards: Path, tmp_path: Path, encoders: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path / "i", shards, encoders=encoders)
    before = content(tmp_path / "i")
    write_shards(shards, [video("more.mp4", ["cat"])], number=1)
    real = os.fsync

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ShardError, match="No space left on device"):
        build(tmp_path / "i", shards, encoders=encoders)
    monkeypatch.setattr(os, "fsync", real)
    now = content(tmp_path / "i")
    assert now["rows"] == before["rows"]
    assert not list((tmp_path / "i").glob("*.tmp"))
    build(tmp_path / "i", shards, encoders=encoders)
    assert "more.mp4" in content(tmp_path / "i")["rows"]  # type: ignore[operator]


def test_joining_goes_over_pieces_and_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sentences: Path) -> None:
    monkeypatch.setattr("regionvlp.search.segment._AT_ONCE", 2)
    monkeypatch.setattr("regionvlp.search.writer.LARGEST", 7)
    monkeypatch.setattr("regionvlp.search.build.BATCH", 3)
    names = [f"{i:02d}.mp4" for i in range(10)]
    labels = [name.split(",")[0] for name in OBJECTS]
    shards = write_shards(tmp_path / "s", [video(name, [labels[i % 6]]) for i, name in enumerate(names)])
    build(tmp_path / "i", shards, encoders=[f"labels:{sentences}"])
    index: Index = open_index(tmp_path / "i")
    assert sorted(Contents.read(tmp_path / "i").segments.values()) == [3, 7]
    assert index.clips.column("clip_id").to_pylist() == names
    assert {r.video_id for r in index.search("cat", top=2).results} == {"01.mp4", "07.mp4"}
