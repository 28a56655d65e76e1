"""What shards have in common, the plan, and receipts as documents."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regionvlp.errors import ShardError
from regionvlp.shards import (
    Failure,
    Manifest,
    Partial,
    PlanRow,
    Receipt,
    library_versions,
    open_shards,
    read_plan,
    read_receipts,
    verify,
    write_plan,
)
from regionvlp.store.files import document_text
from regionvlp.store.receipts import receipt_path

FIRST_VERSION = Path(__file__).parents[1] / "fixtures" / "v0_1_0"
MakeManifest = Callable[..., Manifest]


def test_the_first_creates_and_the_next_checks(tmp_path: Path, make_manifest: MakeManifest) -> None:
    folder = tmp_path / "deep" / "set"
    wanted = make_manifest()
    assert Manifest.create_or_check(folder, wanted) == wanted
    again = make_manifest(created_by="regionvlp 99")
    assert Manifest.create_or_check(folder, again).created_by == wanted.created_by
    assert os.listdir(folder) == ["manifest.json"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dtype": "float32"}, 'dtype is "float16" there and "float32" in this run'),
        ({"regions": 36}, "regions is 5 there and 36 in this run"),
        ({"detector": {"name": "toy", "weights": "xyz"}}, 'detector.weights is "abc" there and "xyz" in this run'),
        ({"video": {"reader": "pyav", "sampling": "segments", "fps": 2}}, "video.fps is null there and 2 in this run"),
    ],
)
def test_other_settings_are_named_and_nothing_is_written(
    tmp_path: Path, make_manifest: MakeManifest, change: dict[str, Any], words: str
) -> None:
    Manifest.create_or_check(tmp_path, make_manifest())
    before = (tmp_path / "manifest.json").read_bytes()
    with pytest.raises(ShardError) as caught:
        Manifest.create_or_check(tmp_path, make_manifest(**change))
    assert words in caught.value.message
    assert "another --out" in caught.value.hint
    assert caught.value.exit_code == 2
    assert os.listdir(tmp_path) == ["manifest.json"]
    assert (tmp_path / "manifest.json").read_bytes() == before


def test_a_folder_with_other_files_is_refused(tmp_path: Path, make_manifest: MakeManifest) -> None:
    (tmp_path / ".DS_Store").touch()
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(ShardError, match=r"not empty and has no manifest.json \(it holds 'holiday.jpg'\)"):
        Manifest.create_or_check(tmp_path, make_manifest())
    assert sorted(os.listdir(tmp_path)) == [".DS_Store", "holiday.jpg"]
    (tmp_path / "holiday.jpg").unlink()
    Manifest.create_or_check(tmp_path, make_manifest())


def test_a_file_in_place_of_the_folder(tmp_path: Path, make_manifest: MakeManifest) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(ShardError, match="cannot write to"):
        Manifest.create_or_check(tmp_path / "out", make_manifest())


@pytest.mark.parametrize("change", [{"format": "csv"}, {"dtype": "int4"}, {"frames": 0}])
def test_settings_that_no_shard_can_have(make_manifest: MakeManifest, change: dict[str, Any]) -> None:
    with pytest.raises(ShardError):
        make_manifest(**change)


def race(folders: list[Path], manifest: Manifest, barrier: Any, wins: Any) -> None:
    for folder in folders:
        barrier.wait(30)
        try:
            Manifest.create_or_check(folder, manifest)
        except ShardError:
            continue
        wins.put((folder.name, manifest.detector["name"]))


def test_of_processes_that_create_at_once_one_wins(tmp_path: Path, make_manifest: MakeManifest) -> None:
    context = multiprocessing.get_context("fork")
    folders = [tmp_path / str(n) for n in range(40)]
    barrier, wins = context.Barrier(3), context.SimpleQueue()
    children = [
        context.Process(target=race, args=(folders, make_manifest(detector={"name": str(n)}), barrier, wins))
        for n in range(3)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0, 0]
    winners = dict(wins.get() for _ in folders)
    assert wins.empty()
    for folder in folders:
        assert os.listdir(folder) == ["manifest.json"]
        assert Manifest.read(folder).detector["name"] == winners[folder.name]


def test_file_systems_without_hard_links(
    tmp_path: Path, make_manifest: MakeManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    assert Manifest.create_or_check(tmp_path, make_manifest()) == Manifest.read(tmp_path)
    with pytest.raises(ShardError, match="other settings"):
        Manifest.create_or_check(tmp_path, make_manifest(frames=9))
    assert os.listdir(tmp_path) == ["manifest.json"]


def test_a_newer_schema_is_refused_with_a_hint(shard_set: tuple[Path, object]) -> None:
    folder, _ = shard_set
    for name in ("shard-00001.json", "manifest.json"):
        values = json.loads((folder / name).read_text())
        del values["digest"]
        (folder / name).write_text(document_text({**values, "schema_version": 99, "novelty": 1}))
        with pytest.raises(ShardError) as caught:
            open_shards(folder)
        assert name in caught.value.message
        assert "newer regionvlp (schema 99" in caught.value.message
        assert "pip install --upgrade" in caught.value.hint
    assert any("newer" in fault.message for fault in verify(folder))


def make_receipt() -> Receipt:
    return Receipt(
        shard=12,
        file="shard-00012.h5",
        format="hdf5",
        bytes=1000,
        sha256="0" * 64,
        videos=2,
        frames=8,
        regions=200,
        failures=[Failure("ü \udcff.mp4", "decode", "timeout", "VideoError", "60 s\nwent by", 3, True)],
        partial=[Partial("p.mp4", None, 7, 2)],
        versions=library_versions(),
        detector={"name": "toy"},
        timings={"decode": 1.5},
        created="2025-01-01T00:00:00+00:00",
    )


def test_a_receipt_comes_back_as_it_was(tmp_path: Path) -> None:
    receipt = make_receipt()
    receipt.write(tmp_path)
    assert Receipt.read(tmp_path / "shard-00012.json") == receipt
    assert os.listdir(tmp_path) == ["shard-00012.json"]
    assert {"regionvlp", "python", "numpy", "h5py", "torch"} <= receipt.versions.keys()


def set_byte(path: Path, place: int, value: int) -> None:
    """Changes one byte in place: rewriting whole files thousands of times would keep the disk busy for a minute."""
    with path.open("r+b") as file:
        file.seek(place)
        file.write(bytes([value]))


def test_every_flipped_bit_of_a_receipt_is_noticed(tmp_path: Path) -> None:
    make_receipt().write(tmp_path)
    path = receipt_path(tmp_path, 12)
    whole = path.read_bytes()
    for place in range(len(whole)):
        for bit in range(8):
            set_byte(path, place, whole[place] ^ 1 << bit)
            with pytest.raises(ShardError, match=r"shard-00012.json"):
                Receipt.read(path)
        set_byte(path, place, whole[place])
    assert Receipt.read(path) == make_receipt()


def test_damaged_receipts_are_named(tmp_path: Path) -> None:
    path = receipt_path(tmp_path, 12)
    for text in ("", "{", "[]", "{}", document_text({"schema_version": 1, "shard": 12})):
        path.write_text(text)
        with pytest.raises(ShardError, match=r"shard-00012.json is damaged"):
            Receipt.read(path)
    make_receipt().write(tmp_path)
    path.rename(receipt_path(tmp_path, 13))
    with pytest.raises(ShardError, match="is the receipt of shard 12"):
        Receipt.read(receipt_path(tmp_path, 13))
    with pytest.raises(ShardError, match="cannot read"):
        Receipt.read(path)


def test_a_plan_comes_back_as_it_was(tmp_path: Path) -> None:
    rows = [PlanRow(n // 512, f"page/ü {n}.mp4", n * 1000, n) for n in range(150_000)]
    write_plan(tmp_path, iter(rows))
    plan = read_plan(tmp_path)
    assert plan is not None
    assert len(plan) == len(rows)
    assert list(plan) == rows
    assert plan.shards() == list(range(293))
    assert plan.rows(130) == rows[130 * 512 : 131 * 512]
    assert plan.video_ids(292) == [row.video_id for row in rows[292 * 512 :]]
    assert plan.rows(5000) == []
    assert os.listdir(tmp_path) == ["plan.parquet"]


def test_a_plan_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    write_plan(tmp_path, [PlanRow(0, "a", 1, 2)])
    with pytest.raises(AssertionError, match="ascending"):
        write_plan(tmp_path, [PlanRow(1, "b", 1, 2), PlanRow(0, "c", 1, 2)])
    assert os.listdir(tmp_path) == ["plan.parquet"]
    plan = read_plan(tmp_path)
    assert plan is not None
    write_plan(tmp_path, [*plan, PlanRow(3, "b", 1, 2)])
    extended = read_plan(tmp_path)
    assert extended is not None
    assert extended.shards() == [0, 3]


def test_a_plan_says_where_videos_lie_and_which_stretch_of_them_counts(tmp_path: Path) -> None:
    rows = [
        PlanRow(0, "a", 1, 2),
        PlanRow(0, "k", 3, 4, "00000.tar", "k.mp4", 512),
        PlanRow(1, "s", 5, 6, "long.mp4", start=1.5, end=None),
    ]
    write_plan(tmp_path, rows)
    plan = read_plan(tmp_path)
    assert plan is not None
    assert list(plan) == rows
    assert plan.rows(1) == rows[2:]


def test_a_plan_of_plain_files_has_four_columns_and_is_read_so(tmp_path: Path) -> None:
    """The form in which plans were written before there were other sources."""
    columns = {"shard": [0, 0], "video_id": ["a", "b"], "bytes": [1, 2], "mtime_ns": [3, 4]}
    types = [pa.int32(), pa.string(), pa.int64(), pa.int64()]
    fields = [pa.field(name, kind, nullable=False) for name, kind in zip(columns, types, strict=True)]
    pq.write_table(pa.table(columns, schema=pa.schema(fields)), tmp_path / "plan.parquet")
    plan = read_plan(tmp_path)
    assert plan is not None
    assert list(plan) == [PlanRow(0, "a", 1, 3), PlanRow(0, "b", 2, 4)]
    write_plan(tmp_path, plan)
    assert pq.read_schema(tmp_path / "plan.parquet").names == list(columns)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"shard": [1, 0]}, "out of order"), ({"later": [1, 2]}, "its columns differ"), ({"bytes": ["1", "2"]}, "differ")],
)
def test_what_is_no_plan_is_refused(tmp_path: Path, change: dict[str, list[object]], message: str) -> None:
    write_plan(tmp_path, [PlanRow(0, "a", 1, 2), PlanRow(0, "b", 1, 2)])
    path = tmp_path / "plan.parquet"
    table = pq.read_table(path)
    for name, values in change.items():
        kind = table.schema.field(name).type if name == "shard" else None
        column = pa.array(values, kind)
        place = table.column_names.index(name) if name in table.column_names else None
        field = pa.field(name, column.type, nullable=False)
        table = table.append_column(field, column) if place is None else table.set_column(place, field, column)
    pq.write_table(table, path)
    with pytest.raises(ShardError, match=message):
        read_plan(tmp_path)


def test_an_empty_plan_and_no_plan(tmp_path: Path) -> None:
    assert read_plan(tmp_path) is None
    write_plan(tmp_path, [])
    plan = read_plan(tmp_path)
    assert plan is not None
    assert plan.shards() == []


def test_no_flipped_bit_changes_a_plan_unnoticed(tmp_path: Path) -> None:
    rows = [PlanRow(n, f"{n}.mp4", n, n) for n in range(3)]
    write_plan(tmp_path, rows)
    path = tmp_path / "plan.parquet"
    whole = path.read_bytes()
    noticed = 0
    for place in range(len(whole)):
        set_byte(path, place, whole[place] ^ 1 << place % 8)
        try:
            plan = read_plan(tmp_path)
            assert plan is not None
            assert list(plan) == rows
        except ShardError:
            noticed += 1
        set_byte(path, place, whole[place])
    assert noticed > len(whole) // 3


@pytest.mark.parametrize("file_format", ["hdf5", "parquet"])
def test_documents_of_the_first_version_are_written_alike(file_format: str) -> None:
    """Manifest and receipts are compared as text, so what is read and written again must be the same to the byte."""
    folder = FIRST_VERSION / f"shards-{file_format}"
    assert document_text(Manifest.read(folder).as_dict()) == (folder / "manifest.json").read_text()
    for receipt in read_receipts(folder):
        assert document_text(receipt.as_dict()) == receipt_path(folder, receipt.shard).read_text()
        assert receipt.frames
