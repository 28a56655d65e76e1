"""Many frames at once: the same as one by one, in few system calls."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regionvlp.errors import ShardError
from regionvlp.regions import VideoRegions
from regionvlp.shards import Manifest, RegionBatch, ShardReader, UnknownVideoError, open_shards

ShardSet = tuple[Path, dict[str, VideoRegions]]
FIELDS = ("features", "boxes", "scores", "num_regions", "image_size")


def read_slowly(reader: ShardReader, ids: list[str], slots: list[list[int]]) -> RegionBatch:
    frames = [[reader.frame(name, slot) for slot in row] for name, row in zip(ids, slots, strict=True)]
    stacked = {name: np.stack([[getattr(f, name)[0] for f in row] for row in frames]) for name in FIELDS}
    return RegionBatch(reader.rows(ids), **stacked)


def same(a: RegionBatch, b: RegionBatch) -> bool:
    alike = all(np.array_equal(getattr(a, name), getattr(b, name)) for name in FIELDS)
    return alike and a.features.dtype == b.features.dtype and np.array_equal(a.rows, b.rows)


@pytest.mark.parametrize("dtype", ["float16", "float32", "uint8"])
def test_a_batch_is_its_frames(
    tmp_path: Path,
    file_format: str,
    dtype: str,
    make_manifest: Callable[..., Manifest],
    make_video: Callable[..., VideoRegions],
    write_shard: Callable[..., None],
) -> None:
    manifest = make_manifest(format=file_format, dtype=dtype)
    for number in range(3):
        videos = [make_video(f"{number}-{n}", dtype=manifest.memory_dtype.name) for n in range(4)]
        write_shard(tmp_path / "set", number, videos, manifest)
    reader = open_shards(tmp_path / "set", max_open_files=2)
    random = np.random.default_rng(0)
    for frames in (1, 2, 4, 7):
        ids = [reader.video_ids[i] for i in random.integers(0, 12, 9)]
        slots = random.integers(0, 4, (9, frames))
        batch = reader.read(ids, slots)
        assert batch.features.shape == (9, frames, 5, 16)
        assert same(batch, read_slowly(reader, ids, slots.tolist()))
        assert np.array_equal(batch.mask()[3, 0], reader.frame(ids[3], int(slots[3, 0])).mask()[0])
    everything = reader.read(reader.video_ids, range(4))
    assert all(np.array_equal(everything.features[i], reader[name].features) for i, name in enumerate(reader))
    assert reader.read([], [0]).features.shape == (0, 1, 5, 16)


def test_few_system_calls(shard_set: ShardSet, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = shard_set
    reader = open_shards(folder)
    calls = []
    read = os.preadv

    def count(*arguments: Any) -> int:
        calls.append(arguments)
        return read(*arguments)

    reader.read(["a.mp4"], [0])
    monkeypatch.setattr(os, "preadv", count)
    reader["a.mp4"]
    assert len(calls) == 1, "all of a video lies together"
    calls.clear()
    reader.read(["a.mp4", "c/ünï-日本.mkv", "f.avi", "b with space.mp4"], [0, 3])
    assert len(calls) <= 4, "at most features and the rest of them for each of two files"


def test_what_is_not_there(shard_set: ShardSet) -> None:
    reader = open_shards(shard_set[0])
    with pytest.raises(UnknownVideoError, match=r"did you mean 'b with space.mp4'"):
        reader.read(["a.mp4", "b with spaces.mp4"], [0])
    with pytest.raises(IndexError, match=r"frame 1 of 'e.jpg', which has 1"):
        reader.read(["a.mp4", "d.webm", "e.jpg"], [[0, 1], [2, 3], [0, 1]])
    with pytest.raises(IndexError, match=r"frame -1 of 'd.webm', which has 4"):
        reader.read(["d.webm"], [-1])


def test_a_file_that_ends_too_early(shard_set: ShardSet) -> None:
    folder, _ = shard_set
    reader = open_shards(folder)
    reader.read(["a.mp4"], [0])
    os.truncate(folder / reader.manifest.data_name(0), 100)
    with pytest.raises(ShardError, match="ends too early"):
        reader.read(["a.mp4", "d.webm"], [0])


def read_batches(reader: ShardReader, ids: list[str], expected: RegionBatch) -> None:
    os._exit(0 if all(same(reader.read(ids, [0, 2]), expected) for _ in range(20)) else 1)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_batches_in_child_processes(shard_set: ShardSet, method: str) -> None:
    reader = open_shards(shard_set[0])
    ids = ["f.avi", "a.mp4", "d.webm", "g.gif", "a.mp4"]
    expected = reader.read(ids, [0, 2])
    context: Any = multiprocessing.get_context(method)
    children = [context.Process(target=read_batches, args=(reader, ids, expected)) for _ in range(2)]
    for child in children:
        child.start()
    assert all(same(reader.read(ids, [0, 2]), expected) for _ in range(20))
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0]


def test_rows_are_numbers(shard_set: ShardSet) -> None:
    folder, videos = shard_set
    reader = open_shards(folder)
    ids = ["f.avi", "e.jpg", "a.mp4", "f.avi"]
    rows = reader.rows(ids)
    assert rows.tolist() == [5, 4, 0, 5]
    assert [reader.video_id(row) for row in rows] == ids
    assert reader.num_frames_of(rows).tolist() == [4, 1, 4, 4] == [reader.num_frames(name) for name in ids]
    batch = reader.read_rows(rows, [[3], [0], [1], [0]])
    assert same(batch, reader.read(ids, [[3], [0], [1], [0]]))
    with pytest.raises(UnknownVideoError, match=r"did you mean 'a.mp4'"):
        reader.rows(["f.avi", "b.mp4"])
    for wrong in (-1, len(videos)):
        with pytest.raises(IndexError, match="and there are 7"):
            reader.read_rows([0, wrong], [0])
    small = reader.read_columns(("class_ids", "frame_time"), rows[:1], np.array([[3, 1]]))
    assert np.array_equal(small["class_ids"][0], videos["f.avi"].class_ids[[3, 1]])
    assert np.array_equal(small["frame_time"][0], videos["f.avi"].frame_time[[3, 1]])


@pytest.mark.parametrize("dtype", ["float16", "uint8"])
def test_a_batch_is_read_into_arrays_that_are_there(
    tmp_path: Path,
    file_format: str,
    dtype: str,
    make_manifest: Callable[..., Manifest],
    make_video: Callable[..., VideoRegions],
    write_shard: Callable[..., None],
) -> None:
    manifest = make_manifest(format=file_format, dtype=dtype)
    videos = [make_video(f"{n}", dtype=manifest.memory_dtype.name) for n in range(4)]
    write_shard(tmp_path / "set", 0, videos, manifest)
    reader = open_shards(tmp_path / "set")
    out = RegionBatch.empty(manifest, 2, 3)
    where = [values.ctypes.data for values in vars(out).values()]
    for rows in ([2, 0], [1, 1], [3, 2]):
        assert reader.read_rows(rows, [3, 0, 2], out) is out
        assert same(out, reader.read_rows(rows, [3, 0, 2]))
    assert where == [values.ctypes.data for values in vars(out).values()]
    with pytest.raises(AssertionError, match="must have the size"):
        reader.read_rows([0], [0, 1, 2], out)


def test_more_shards_than_files_may_be_open(
    tmp_path: Path,
    file_format: str,
    make_manifest: Callable[..., Manifest],
    make_video: Callable[..., VideoRegions],
    write_shard: Callable[..., None],
) -> None:
    """In a process of its own, of which the limit is low; the reader is told that it may keep more."""
    for number in range(60):
        write_shard(tmp_path / "set", number, [make_video(f"{number}")], make_manifest(format=file_format))
    code = """
import resource, sys, numpy as np
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
from regionvlp.shards import open_shards
for limit in (None, 1000):
    reader = open_shards(sys.argv[1], max_open_files=limit)
    for rows in (np.arange(60), np.arange(60)[::-1]):
        batch = reader.read_rows(rows, [0, 3])
        assert all(np.array_equal(batch.features[i], reader[str(row)].features[[0, 3]]) for i, row in enumerate(rows))
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "set")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
