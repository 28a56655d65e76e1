"""Duplicates against all pairs compared, captions against ranks counted one by one."""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from regionvlp.pipelines.cli import run
from regionvlp.search.build import index_shards
from regionvlp.search.cleaning import _bits, _copies, duplicates, rank_pairs
from regionvlp.search.clips import ShardClips
from regionvlp.search.encoders.labels import LabelWords
from regionvlp.search.index import Index, open_index
from regionvlp.search.moments import SAME_LOOK
from regionvlp.search.writer import IndexWriter
from search.worlds import video, write_shards

FILES = {  # name -> what it shows, and how it looks
    "a/dog.mp4": (("red dog", "ball"), "dog"),
    "b/dog again.mp4": (("red dog", "ball"), "dog"),
    "c/looks like dog.mp4": (("cat",), "dog"),  # but is none
    "c/cat.mp4": (("cat", "tree"), "cat"),
    "c/cat copy.mp4": (("cat", "tree"), "cat"),
    "c/cat third.mp4": (("cat", "tree"), "cat"),
    "road/car.mp4": (("red car", "person"), "car"),
}


@pytest.fixture
def index(tmp_path: Path) -> Index:
    shown = [video(name, labels, look=look) for name, (labels, look) in FILES.items()]
    write_shards(tmp_path / "shards", shown)
    with IndexWriter(tmp_path / "i", [LabelWords()], cut={"by": "shards"}, source={}) as writer:
        index_shards(writer, ShardClips([tmp_path / "shards"]))
        writer.finish()
    return open_index(tmp_path / "i")


def test_files_that_show_the_same_are_grouped(index: Index) -> None:
    rows = [(row.group, row.video_id, row.action) for row in duplicates(index)]
    assert rows == [
        (1, "c/cat copy.mp4", "keep"),
        (1, "c/cat third.mp4", "drop"),
        (1, "c/cat.mp4", "drop"),
        (2, "a/dog.mp4", "keep"),
        (2, "b/dog again.mp4", "drop"),
    ]
    assert {row.share for row in duplicates(index)} == {1.0}


class Looks:
    """An index of looks alone."""

    def __init__(self, looks: list[int]) -> None:
        self._looks = looks

    def look(self, row: int) -> int:
        return self._looks[row]

    def alike(self, one: int, other: int) -> bool:
        return (one + other) % 5 != 0


def test_no_pair_is_missed() -> None:
    rng = np.random.default_rng(0)
    base = [int(value) for value in rng.integers(0, 2**63, 12)]
    looks = []
    for value in base:
        for _ in range(6):
            flipped = rng.choice(64, rng.integers(0, 6), replace=False)
            looks.append(value ^ sum(1 << int(bit) for bit in flipped))
    ids = [f"file {k % 20}" for k in range(len(looks))]
    fake = Looks(looks)
    expected = {
        (i, j)
        for i, j in itertools.combinations(range(len(looks)), 2)
        if ids[i] != ids[j] and (looks[i] ^ looks[j]).bit_count() <= SAME_LOOK and fake.alike(i, j)
    }
    found = list(_copies(fake, range(len(looks)), ids))  # type: ignore[arg-type]
    assert len(found) == len(set(found))
    assert {tuple(sorted(pair)) for pair in found} == expected
    assert len(expected) > 30


def test_bits_are_counted() -> None:
    values = np.random.default_rng(1).integers(0, 2**63, 100).astype(np.uint64)
    assert _bits(values).tolist() == [int(value).bit_count() for value in values]


def test_captions_that_do_not_fit_come_first(index: Index) -> None:
    pairs = [("a/dog.mp4", "a red dog"), ("road/car.mp4", "a cat in a tree"), ("c/cat.mp4", "a cat in a tree")]
    rows = rank_pairs(index, pairs)
    assert (rows[0].video_id, rows[0].action) == ("road/car.mp4", "drop")
    assert {row.action for row in rows[1:]} == {"keep"}
    for row in rows:
        scores = index.rank_all([row.caption])[0]
        own = scores[index.row(row.video_id)]
        less, equal = (scores < own).sum(), (scores == own).sum() - 1
        assert row.agreement == pytest.approx((less + equal / 2) / (len(scores) - 1))
        assert row.rank == len(scores) - less - equal / 2


def test_lists_are_written(index: Index, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(index.folder)
    (tmp_path / "captions.csv").write_text("video_id,caption\na/dog.mp4,red dog\nroad/car.mp4,cat\n")
    listed, document = tmp_path / "list.csv", tmp_path / "x.json"
    assert run(["data", "duplicates", folder, "--list", str(listed), "--json", str(document)]) == 0
    rows = list(csv.DictReader(listed.open()))
    assert [row["action"] for row in rows].count("keep") == 2
    assert json.loads(document.read_text())["groups"] == 2
    pairs = ["data", "rank-pairs", folder, "--captions", str(tmp_path / "captions.csv")]
    assert run([*pairs, "--list", str(listed)]) == 0
    assert [row["video_id"] for row in csv.DictReader(listed.open())] == ["road/car.mp4", "a/dog.mp4"]
    assert run([*pairs, "--list", str(tmp_path / "no" / "x.csv")]) == 2
    assert "cannot write" in capsys.readouterr().err
