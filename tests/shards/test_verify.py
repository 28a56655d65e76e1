"""Verification finds every fault, and nothing in a whole folder."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from regionvlp.errors import InputError, ShardError
from regionvlp.regions import VideoRegions
from regionvlp.shards import Failure, Manifest, PlanRow, inspect, open_shards, verify, write_plan
from regionvlp.shards.receipts import Receipt
from regionvlp.store.files import document_text, sha256_of, temporary_path

ShardSet = tuple[Path, dict[str, VideoRegions]]


def data_path(folder: Path, number: int) -> Path:
    return folder / Manifest.read(folder).data_name(number)


def change_receipt(folder: Path, number: int, **changes: Any) -> None:
    """Writes a receipt that is whole as a document, and says something else."""
    path = folder / f"shard-{number:05d}.json"
    values = json.loads(path.read_text())
    del values["digest"]
    path.write_text(document_text({**values, **changes}))


def test_a_whole_folder_has_no_faults(shard_set: ShardSet) -> None:
    folder, _ = shard_set
    assert verify(folder) == []
    assert verify(str(folder), deep=False) == []
    (folder / "README.md").write_text("a dataset card is not a fault")
    assert verify(folder) == []


@pytest.mark.parametrize("seed", range(12))
def test_a_flipped_bit_is_found(shard_set: ShardSet, seed: int) -> None:
    folder, _ = shard_set
    random.seed(seed)
    number = random.randrange(3)
    path = data_path(folder, number)
    content = bytearray(path.read_bytes())
    place = random.randrange(len(content))
    content[place] ^= 1 << random.randrange(8)
    path.write_bytes(content)
    (fault,) = verify(folder)
    assert (fault.shard, fault.file) == (number, path.name)
    assert "checksum" in str(fault)


@pytest.mark.parametrize("name", ["manifest.json", "shard-00001.json", "plan.parquet"])
def test_damaged_small_files_are_named(shard_set: ShardSet, name: str) -> None:
    folder, _ = shard_set
    content = (folder / name).read_bytes()
    for damaged in (content[:-3], content[: len(content) // 2], b""):
        (folder / name).write_bytes(damaged)
        assert name in {fault.file for fault in verify(folder)}


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("deep", [False, True])
def test_a_truncated_file_is_found(shard_set: ShardSet, keep: float, deep: bool) -> None:
    folder, _ = shard_set
    path = data_path(folder, 1)
    size = path.stat().st_size
    os.truncate(path, int(size * keep))
    (fault,) = verify(folder, deep=deep)
    assert fault.file == path.name
    assert f"the receipt says {size}" in fault.message


def test_missing_data_missing_receipts_and_missing_shards(shard_set: ShardSet) -> None:
    folder, _ = shard_set
    data_path(folder, 0).unlink()
    (folder / "shard-00001.json").unlink()
    data_path(folder, 2).unlink()
    (folder / "shard-00002.json").unlink()
    suffix = data_path(folder, 0).suffix
    assert [(fault.shard, fault.file) for fault in verify(folder)] == [
        (0, f"shard-00000{suffix}"),
        (1, f"shard-00001{suffix}"),
        (1, "shard-00001.json"),
        (2, "shard-00002.json"),
    ]
    messages = " ".join(map(str, verify(folder)))
    for words in ("cannot be read: No such file", "data without a receipt", "planned, but has no receipt"):
        assert words in messages


def test_leftovers_are_found_unless_their_process_lives(shard_set: ShardSet) -> None:
    folder, _ = shard_set
    mine = temporary_path(folder / "shard-00007.h5")
    mine.touch()
    assert verify(folder) == []
    dead = mine.with_name(mine.name.replace(f"-{os.getpid()}s", "-999999999s"))
    dead.touch()
    assert [fault.file for fault in verify(folder)] == [dead.name]


def test_rows_and_plan_are_compared(shard_set: ShardSet) -> None:
    folder, _ = shard_set
    planned = [["a.mp4", "b with space.mp4"], ["bad.mp4", "d.webm", "e.jpg", "new.mp4"], ["f.avi"]]
    write_plan(folder, [PlanRow(number, name, 1, 1) for number, names in enumerate(planned) for name in names])
    assert [str(fault) for fault in verify(folder)] == [
        "shard-00000.json: 'c/ünï-日本.mkv' is not planned for this shard",
        "shard-00001.json: 'new.mp4' is planned, but has neither rows nor a failure",
        "shard-00002.json: 'g.gif' is not planned for this shard",
    ]
    (folder / "plan.parquet").unlink()
    assert verify(folder) == []


def test_a_video_in_two_shards(
    shard_set: ShardSet, make_video: Callable[..., VideoRegions], write_shard: Callable[..., None]
) -> None:
    folder, _ = shard_set
    (folder / "plan.parquet").unlink()
    write_shard(folder, 3, [make_video("z"), make_video("d.webm")], Manifest.read(folder))
    (fault,) = verify(folder)
    assert fault.shard == 3
    assert fault.message == "'d.webm' is in shard 1 as well"


def test_a_receipt_that_does_not_match_its_data(shard_set: ShardSet) -> None:
    folder, _ = shard_set
    whole = (folder / "shard-00001.json").read_bytes()
    failed = {"stage": "open", "reason": "x", "error": "E", "message": "", "attempt": 1, "transient": False}
    for changes, words in (
        ({"videos": 3}, "2 videos, the receipt says 3"),
        ({"frames": 6}, "5 frames, the receipt says 6"),
        ({"regions": 0}, "regions, the receipt says 0"),
        ({"bytes": 1}, "the receipt says 1"),
        ({"sha256": "0" * 64}, "checksum"),
        ({"file": "../other.h5"}, "names the data file '../other.h5'"),
        ({"format": "zarr"}, "names the data file"),
        ({"file": None, "videos": 0, "frames": 0, "regions": 0}, "says that there is no data file"),
        ({"failures": [{"video_id": name, **failed} for name in ("bad.mp4", "d.webm")]}, "is reported as failed"),
    ):
        change_receipt(folder, 1, **changes)
        assert words in " ".join(map(str, verify(folder))), changes
        (folder / "shard-00001.json").write_bytes(whole)
    assert verify(folder) == []


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("features", np.nan, "'f.avi': features holds numbers that are not finite"),
        ("num_regions", 6, "num_regions of 'f.avi' is out of range"),
        ("num_regions", -1, "num_regions of 'f.avi' is out of range"),
        ("boxes", [9, 9, 1, 1], "'f.avi': a box has x2 < x1"),
        ("num_frames", 5, "frames are missing"),
        ("num_frames", 0, "frames are missing"),
    ],
)
@pytest.mark.parametrize("file_format", ["hdf5"], indirect=True)
def test_numbers_that_no_writer_of_ours_writes(shard_set: ShardSet, name: str, value: Any, words: str) -> None:
    """A file made by someone else, with a receipt that agrees with it."""
    folder, _ = shard_set
    path = data_path(folder, 2)
    with h5py.File(path, "r+") as file:
        place = {"features": (0, 0, 0), "boxes": (0, 0, 0), "num_regions": (0, 0), "num_frames": (0,)}[name]
        file[name][place] = value
    change_receipt(folder, 2, bytes=path.stat().st_size, sha256=sha256_of(path))
    (fault,) = verify(folder)
    assert words in fault.message


@pytest.mark.parametrize("file_format", ["hdf5"], indirect=True)
def test_columns_that_are_not_the_schema_s(shard_set: ShardSet) -> None:
    folder, _ = shard_set
    for column, change in (("scores", {"compression": "gzip"}), ("boxes", {"dtype": "f8"}), ("class_ids", None)):
        path = data_path(folder, 2)
        whole = path.read_bytes()
        with h5py.File(path, "r+") as file:
            values = file[column][:]
            del file[column]
            if change:
                file.create_dataset(column, data=values, **change)
        change_receipt(folder, 2, bytes=path.stat().st_size, sha256=sha256_of(path))
        (fault,) = verify(folder)
        assert column in fault.message
        path.write_bytes(whole)


def test_folders_that_are_none(tmp_path: Path) -> None:
    (fault,) = verify(tmp_path)
    assert "not a shard folder" in fault.message
    for function in (verify, inspect):
        with pytest.raises(InputError, match="no shard folder"):
            function(tmp_path / "nowhere")
    with pytest.raises(ShardError, match="not a shard folder"):
        inspect(tmp_path)


def test_inspect_sums_the_receipts(shard_set: ShardSet) -> None:
    folder, videos = shard_set
    summary = inspect(folder)
    frames = sum(video.num_frames for video in videos.values())
    regions = sum(int(video.num_regions.sum()) for video in videos.values())
    size = sum(data_path(folder, number).stat().st_size for number in range(3))
    expected = {
        "dtype": "float16",
        "videos_planned": 8,
        "shards_planned": 3,
        "shards_done": 3,
        "videos": 7,
        "frames": frames,
        "regions": regions,
        "bytes": size,
        "failed": 1,
        "failures": {"empty-file": 1},
        "partial": 0,
        "regions_per_frame": regions / frames,
        "bytes_per_frame": size / frames,
    }
    assert {name: summary[name] for name in expected} == expected
    assert summary["detector"]["name"] == "toy"
    assert json.loads(json.dumps(summary)) == summary


def test_inspect_of_a_set_that_has_just_begun(tmp_path: Path, make_manifest: Callable[..., Manifest]) -> None:
    Manifest.create_or_check(tmp_path, make_manifest())
    summary = inspect(tmp_path)
    assert (summary["videos_planned"], summary["videos"], summary["bytes_per_frame"]) == (None, 0, None)
    assert open_shards(tmp_path).video_ids == []
    assert verify(tmp_path) == []
    write_plan(tmp_path, [PlanRow(0, "a", 1, 1)])
    (fault,) = verify(tmp_path)
    assert "not done" in fault.message


def test_failures_alone_are_a_whole_shard(
    tmp_path: Path, file_format: str, make_manifest: Callable[..., Manifest], write_shard: Callable[..., None]
) -> None:
    failure = Failure("x", "open", "empty-file", "VideoError", "")
    write_shard(tmp_path / "set", 0, [], make_manifest(format=file_format), failures=[failure])
    write_plan(tmp_path / "set", [PlanRow(0, "x", 1, 1)])
    assert verify(tmp_path / "set") == []
    assert Receipt.read(tmp_path / "set" / "shard-00000.json").file is None
