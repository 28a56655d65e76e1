"""The captions table: what it costs, how it travels between processes, and its joins."""

from __future__ import annotations

import multiprocessing
import pickle
import sys
import tempfile
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from regionvlp.data import caption_table, mapping
from regionvlp.data.captions import Caption, Captions, join, load_captions, overlap, resolve_videos
from regionvlp.errors import InputError
from regionvlp.pipelines.bench.captions import caption_rows

GIVEN = [
    Caption("b", "one", "b#0", "train", "x"),
    Caption("a", "two", "a#0", "", "x"),
    Caption("b", "three", "b#1", "test", "y"),
    Caption("c", "four", "c#0", "train", "x"),
]


def table(*video_ids: str, text: str = "a") -> Captions:
    columns = (pa.chunked_array([pa.array(values, pa.string())]) for values in (video_ids, [text] * len(video_ids)))
    return Captions.build(*columns, "t")


def test_a_table_is_a_sequence_of_captions() -> None:
    captions = Captions.of(GIVEN)
    assert len(captions) == 4
    assert list(captions) == GIVEN
    assert captions == GIVEN
    assert [captions[i] for i in (0, 3, -1, -4)] == [GIVEN[i] for i in (0, 3, -1, -4)]
    assert captions.video_ids.to_pylist() == ["b", "a", "c"]
    assert captions.video_index.tolist() == [0, 1, 0, 2]
    assert captions.texts.take([2, 0]).to_pylist() == ["three", "one"]
    assert captions.caption_ids(np.array([2, 1])) == ["b#1", "a#0"]
    assert captions.split_counts() == {"train": 2, "": 1, "test": 1}
    for part in (slice(1, 3), slice(None, None, -1), slice(0, 0)):
        assert captions[part] == GIVEN[part]
    assert captions[2:].video_ids.to_pylist() == ["b", "c"]
    with pytest.raises(IndexError):
        captions[4]


def test_generated_ids_count_the_captions_of_a_video() -> None:
    captions = table("v", "w", "v", "v#0", "w")
    assert captions.caption_ids() == ["v#0", "w#0", "v#1", "v#0#0", "w#1"]
    assert captions[1:].caption_ids() == ["w#0", "v#1", "v#0#0", "w#1"]  # as in the whole table
    assert "caption_id" not in captions.rows.column_names
    with pytest.raises(InputError, match="caption_id 'b#1' occurs 2 times"):
        Captions.of([*GIVEN, GIVEN[2]])


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_large_table_travels_as_the_name_of_a_file(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captions = Captions.of(GIVEN * 1 + [Caption(f"v{i}", "text " * 9, f"i{i}", "", "x") for i in range(2000)])
    assert pickle.loads(pickle.dumps(captions)) == captions
    assert not list(temporary.iterdir())
    monkeypatch.setattr(caption_table, "LARGE", 10_000)
    small = pickle.dumps(captions)
    assert len(small) < 1000
    assert pickle.loads(small) == captions
    assert pickle.dumps(pickle.loads(small)) == small
    assert pickle.loads(pickle.dumps(captions[5:9])) == captions[5:9]
    # The same table again is the same file: ranks that read the same captions share it.
    again = Captions.of(list(captions))
    assert again.mapped()._path == captions.mapped()._path
    assert len(list(temporary.glob("regionvlp-captions-*/*"))) == 1
    mapped = captions.mapped()
    assert (mapped.video_ids.to_pylist(), mapped.caption_ids()) == (
        captions.video_ids.to_pylist(),
        captions.caption_ids(),
    )


def _told(captions: Captions) -> tuple[int, str]:
    return len(captions), captions[1234].caption


@pytest.mark.skipif(sys.platform == "win32", reason="maps files of a folder only this user can write to")
def test_a_spawned_worker_maps_the_same_file(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captions = table(*(f"v{i}" for i in range(2000)), text="text " * 9)
    monkeypatch.setattr(caption_table, "LARGE", 10_000)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_told, (captions,)) == (2000, "text " * 9)


def test_where_nothing_can_be_written_tables_stay_in_memory(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caption_table, "LARGE", 1)
    captions = Captions.of(GIVEN)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mapping.os, "replace", full)
    assert captions.mapped() is captions
    assert pickle.loads(pickle.dumps(captions)) == captions
    assert not list(temporary.glob("regionvlp-captions-*/*"))


def test_a_folder_of_somebody_elses_is_not_used(temporary: Path) -> None:
    folder = mapping._folder()
    folder.chmod(0o777)
    assert mapping.written([pa.table({"a": [1]})]) is None
    folder.chmod(0o700)
    folder.rmdir()
    (temporary / "elsewhere").mkdir()
    folder.symlink_to(temporary / "elsewhere")
    assert mapping.written([pa.table({"a": [1]})]) is None


def test_files_that_nobody_uses_go(temporary: Path) -> None:
    import os

    old = mapping.written([pa.table({"a": [1]})])
    assert old is not None
    os.utime(old, (0, 0))
    new = mapping.written([pa.table({"a": [2]})])
    assert list(old.parent.iterdir()) == [new]


def test_what_captions_cost(temporary: Path) -> None:
    """The bench of a million takes seconds; of these, only what does not depend on the machine's load is asserted."""
    figures = {name: value for name, value, _ in caption_rows(20_000)}
    assert set(figures) == {"captions_read", "captions_join", "captions_bytes", "captions_peak"}
    assert figures["captions_bytes"] <= 120


# Joins


def test_a_join_gives_rows() -> None:
    captions = table("x/b.mp4", "a", "nowhere", "x/b.mp4")
    assert join(captions, ["a.mp4", "c.mp4", "b.avi"]).tolist() == [2, 0, -1, 2]
    joined = resolve_videos(captions, ["a.mp4", "c.mp4", "b.avi"], allow_missing=True)
    assert [one.video_id for one in joined] == ["b.avi", "a.mp4", "b.avi"]
    assert joined.video_ids.to_pylist() == ["b.avi", "a.mp4"]
    assert joined.caption_ids() == ["b.avi#0", "a.mp4#0", "b.avi#1"]


@pytest.mark.parametrize(
    ("annotated", "shards", "message"),
    [
        (["train/7", "test/7"], ["7.mp4"], "'train/7' and 'test/7' are two annotated videos, and both fit '7.mp4'"),
        (["a.mp4", "a.avi"], ["a.webm"], "'a.mp4' and 'a.avi' are two annotated videos"),
        (["caf\u00e9", "cafe\u0301"], ["cafe\u0301.mp4"], "two annotated videos, and both fit"),
        (["caf\u00e9"], ["cafe\u0301.mp4", "caf\u00e9.avi"], "may be"),
        (["7"], ["a/7.mp4", "b/7.mp4"], r"'7' may be 'a/7\.mp4' or 'b/7\.mp4'"),
        (["x/y/7", "z"], ["y/7.mp4", "7.mp4", "z.mp4"], r"'x/y/7' may be '7\.mp4' or 'y/7\.mp4'"),
        (["Clip"], ["clip.mp4"], "'Clip' and 'clip.mp4' differ in capital letters"),
        (["007"], ["7.mp4"], "1 of 1 annotated videos are not in the shards: 007"),
        (["7.0"], ["7.mp4"], "1 of 1 annotated videos are not in the shards"),
    ],
)
def test_a_join_is_one_to_one(annotated: list[str], shards: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve_videos(table(*annotated), shards)


def test_the_same_folder_and_the_same_name_win() -> None:
    assert join(table("x/7", "7"), ["x/7.mp4", "7.mp4"]).tolist() == [0, 1]
    assert join(table("a.mp4", "a.avi"), ["a.avi", "a.mp4"]).tolist() == [1, 0]
    assert join(table("clip.mp4"), ["clip.mp4.mp4", "x.mp4"]).tolist() == [0]
    accented = unicodedata.normalize("NFD", "é/Zürich.mp4")
    assert join(table("é/Zürich"), [accented]).tolist() == [0]


def by_hand(name: str, shards: list[str]) -> set[int]:
    """The rule of the join, one pair at a time: equal, else the ends of the paths."""
    if name in shards:
        return {shards.index(name)}

    def stem(path: str) -> str:
        return path.removesuffix(".mp4").removesuffix(".avi")

    for form in (name, stem(name)):
        mine = form.split("/")
        fitting = {
            place
            for place, shard in enumerate(shards)
            if all(one == other for one, other in zip(mine[::-1], stem(shard).split("/")[::-1], strict=False))
        }
        same = {place for place in fitting if stem(shards[place]) == form}
        if same or fitting:
            return same or fitting
    return set()


def test_joins_agree_with_the_obvious_rule() -> None:
    random = np.random.default_rng(3)

    def names(count: int) -> list[str]:
        made = set()
        for _ in range(count):
            parts = random.choice(["a", "b", "c.d", "e"], random.integers(1, 5))
            made.add("/".join(parts) + str(random.choice(["", ".mp4", ".avi"])))
        return sorted(made)

    agreed = refused = 0
    for _ in range(300):
        shards, annotated = names(4), names(3)
        expected = [by_hand(name, shards) for name in annotated]
        found = [place for places in expected for place in places]
        if any(len(places) > 1 for places in expected) or len(found) != len(set(found)):
            with pytest.raises(InputError):
                join(table(*annotated), shards)
            refused += 1
        else:
            assert join(table(*annotated), shards).tolist() == [next(iter(places), -1) for places in expected]
            agreed += 1
    assert min(agreed, refused) > 30


def test_of_several_columns_that_fits_which_names_the_videos(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,path,caption\n1,x/one.mp4,a\n2,x/two.mp4,b\n3,x/one.mp4,c\n")
    captions = load_captions(path)
    assert join(captions, ["two.mp4", "one.mp4"]).tolist() == [1, 0, 1]
    assert join(captions, ["1", "2", "3"]).tolist() == [0, 1, 2]
    with pytest.raises(InputError, match=r"row 1 of the captions calls its video .* two videos of the shards"):
        join(captions, ["one.mp4", "two.mp4", "1.mp4", "2.mp4", "3.mp4"])


def test_what_became_of_missing_videos() -> None:
    captions = table("a", "gone", "bad/x")
    with pytest.raises(InputError, match=r"2 of 3 .* 1 of them failed when extracted \('bad/x': not-a-video\)"):
        resolve_videos(captions, ["a.mp4"], failures={"bad/x.mp4": "not-a-video"})


# Overlaps


def test_overlaps_are_counted() -> None:
    training, held_out = table("x/a.mp4", "x/b.mp4", "x/b.mp4", text="One"), table("b", "c", "d", text=" one ")
    found = overlap(training, held_out)
    assert (found.videos, found.held_out_videos, found.captions, found.held_out_captions) == (1, 3, 3, 3)
    assert found.warning is not None
    assert "1 of 3 held-out videos are trained on as well, such as b (3 of 3 held-out captions too)" in found.warning
    renamed = overlap(training, table("e", "f", text="one")).warning
    assert renamed is not None
    assert "2 of 2 held-out captions are trained on as well, word for word" in renamed
    assert overlap(training, table("e", "f", text="another")).warning is None
    assert overlap(training, Captions.of([])).warning is None
