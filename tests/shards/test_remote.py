"""Shards at an address: the same numbers and the same checks, by range and out of a staging folder."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from shard_sets import without_index

from regionvlp.errors import InputError, ShardError
from regionvlp.regions import VideoRegions
from regionvlp.shards import BatchError, ShardReader, open_shards
from regionvlp.shards.staging import Staging

ShardSet = tuple[Path, dict[str, VideoRegions]]


class Flaky(MemoryFileSystem):
    """A memory file system of which requests for data files fail, or come short, as told."""

    protocol = "flaky"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    troubles: ClassVar[list[object]] = []
    requests = 0

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        content: bytes = super().cat_file(path, start, end, **options)
        if path.endswith(".json"):
            return content
        Flaky.requests += 1
        trouble = Flaky.troubles.pop(0) if Flaky.troubles else None
        if isinstance(trouble, Exception):
            raise trouble
        return content[: len(content) // 2] if trouble == "short" else content

    def _open(self, path: str, *arguments: Any, **options: Any) -> Any:
        if Flaky.troubles and not path.endswith(".json"):
            trouble = Flaky.troubles.pop(0)
            if isinstance(trouble, Exception):
                raise trouble
        return super()._open(path, *arguments, **options)


@pytest.fixture
def remote(shard_set: ShardSet, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, dict[str, VideoRegions]]]:
    monkeypatch.setattr("regionvlp.shards.remote._PAUSE", 0.0)
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    Flaky.store.clear()
    Flaky.troubles.clear()
    upload(shard_set[0], "flaky://bucket/set")
    Flaky.requests = 0
    yield "flaky://bucket/set", shard_set[1]
    Flaky.store.clear()


def upload(folder: Path, address: str) -> None:
    system, root = fsspec.core.url_to_fs(address)
    for path in folder.iterdir():
        system.pipe_file(f"{root}/{path.name}", path.read_bytes())


def same(reader: ShardReader, videos: dict[str, VideoRegions]) -> bool:
    batch = reader.read(list(videos), [0])
    alike = all(np.array_equal(batch.features[i, 0], video.features[0]) for i, video in enumerate(videos.values()))
    return alike and all(reader[name].equals(video) for name, video in videos.items())


def test_read_by_range(shard_set: ShardSet) -> None:
    folder, videos = shard_set
    upload(folder, "memory://bucket/set")
    reader = open_shards("memory://bucket/set/")
    assert list(reader) == list(videos)
    assert same(reader, videos)
    assert same(pickle.loads(pickle.dumps(reader)), videos)
    assert [failure.video_id for failure in reader.failures] == ["bad.mp4"]
    plan = reader.plan()
    assert plan is not None
    assert len(plan) == 8
    assert "memory://bucket/set" in repr(reader)
    assert same(open_shards(f"file://{folder}"), videos)
    fsspec.filesystem("memory").rm("/bucket/set/plan.parquet")
    assert reader.plan() is None


def test_a_batch_is_few_requests(remote: tuple[str, dict[str, VideoRegions]]) -> None:
    address, videos = remote
    reader = open_shards(address)
    assert Flaky.requests == 0, "opening reads no data"
    reader.read(list(videos), [0])
    assert Flaky.requests == 3, "one a shard, where all lies close together"


@pytest.mark.parametrize("trouble", [ConnectionError("reset by peer"), TimeoutError(), "short", ValueError("odd")])
def test_a_request_that_fails_is_made_again(remote: tuple[str, dict[str, VideoRegions]], trouble: object) -> None:
    address, videos = remote
    reader = open_shards(address)
    Flaky.troubles = [trouble, None, trouble, trouble]
    assert same(reader, videos)
    assert not Flaky.troubles
    Flaky.troubles = [trouble] * 4
    words = {"short": r"gave \d+ bytes of \d+"}.get(str(trouble), "cannot read flaky://bucket/set/shard-00000")
    with pytest.raises(ShardError, match=words):
        reader["a.mp4"]
    Flaky.troubles = [trouble] * 12
    with pytest.raises(BatchError, match=words) as caught:
        reader.read(["a.mp4", "d.webm", "f.avi"], [0])
    assert sorted(caught.value.failed) == [0, 1, 2]


def test_what_changed_over_there(remote: tuple[str, dict[str, VideoRegions]]) -> None:
    address, videos = remote
    reader = open_shards(address)
    system, root = fsspec.core.url_to_fs(address)
    name = reader.manifest.data_name(0)
    content = bytearray(system.store[f"{root}/{name}"].getvalue())
    features = videos["a.mp4"].features[1].tobytes()
    content[content.find(features)] ^= 1
    system.pipe_file(f"{root}/{name}", bytes(content))
    with pytest.raises(ShardError, match=rf"'a.mp4' in {address}/{name}: frame 1 is not what was written"):
        reader["a.mp4"]
    assert reader.frame("a.mp4", 0).num_frames == 1
    system.pipe_file(f"{root}/{name}", bytes(content[:1000]))
    with pytest.raises(ShardError, match=r"gave \d+ bytes of"):
        reader["a.mp4"]
    system.rm(f"{root}/{name}")
    Flaky.requests = 0
    with pytest.raises(ShardError, match="it is not there"):
        reader["a.mp4"]
    assert Flaky.requests == 0, "what is not there is not asked for again"


def test_addresses_that_are_none(shard_set: ShardSet, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no shard folder at memory://nothing/here"):
        open_shards("memory://nothing/here")
    with pytest.raises(InputError, match=r"cannot be opened.*install the fsspec package"):
        open_shards("nosuchthing://bucket/set")
    fsspec.filesystem("memory").pipe_file("/other/file.txt", b"")
    with pytest.raises(ShardError, match=r"manifest\.json"):
        open_shards("memory://other")
    with pytest.raises(InputError, match="on this machine already"):
        open_shards(shard_set[0], staging=tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot stage"):
        open_shards("memory://other", staging=tmp_path / "file")


def test_staged(remote: tuple[str, dict[str, VideoRegions]], tmp_path: Path) -> None:
    address, videos = remote
    reader = open_shards(address, staging=tmp_path / "near")
    assert same(reader, videos)
    assert Flaky.requests == 0
    copies = {path for path in (tmp_path / "near").iterdir() if path.name != ".lock"}
    assert len(copies) == 3
    Flaky.store.clear()
    assert same(reader, videos), "all of it is here"
    path = min(copies)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(BatchError, match="it is not there"):
        reader.read(list(videos), [0])


@pytest.fixture
def near(tmp_path: Path) -> Path:
    return tmp_path / "near"


def held(near: Path) -> int:
    """Bytes of all copies."""
    return sum(path.stat().st_size for path in near.iterdir() if path.is_file() and path.name != "notes.h5")


def test_staging_never_holds_more_than_it_may(remote: tuple[str, dict[str, VideoRegions]], near: Path) -> None:
    address, videos = remote
    system, root = fsspec.core.url_to_fs(address)
    sizes = [system.size(f"{root}/{open_shards(address).manifest.data_name(number)}") for number in range(3)]
    most = sum(sizes) - 1
    reader = open_shards(address, staging=near, staging_bytes=most)
    for _ in range(4):
        for name in ("a.mp4", "d.webm", "f.avi", "a.mp4"):
            assert reader[name].equals(videos[name])
            assert held(near) <= most
    assert Flaky.requests == 0
    small = open_shards(address, staging=near / "small", staging_bytes=100)
    assert same(small, videos)
    assert Flaky.requests > 0, "where nothing fits, it is read by range"
    assert os.listdir(near / "small") == [".lock"]


def test_a_full_staging_disk(
    remote: tuple[str, dict[str, VideoRegions]],
    near: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    address, videos = remote
    reader = open_shards(address, staging=near)

    def full(*_: object) -> bool:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Staging, "_reserve", full)
    assert same(reader, videos)
    assert [record.message for record in caplog.records] == [
        f"no room in {near} (No space left on device): shards are read by range instead"
    ]
    assert os.listdir(near) == [".lock"]


def test_downloads_that_fail(remote: tuple[str, dict[str, VideoRegions]], near: Path) -> None:
    address, videos = remote
    reader = open_shards(address, staging=near)
    Flaky.troubles = [ConnectionError("reset by peer")] * 3
    assert reader["a.mp4"].equals(videos["a.mp4"])
    Flaky.troubles = [ConnectionError("reset by peer")] * 4
    with pytest.raises(ShardError, match=r"cannot read flaky://bucket/set/shard-00001.*reset by peer"):
        reader["d.webm"]
    system, root = fsspec.core.url_to_fs(address)
    name = reader.manifest.data_name(2)
    content = bytearray(system.store[f"{root}/{name}"].getvalue())
    content[-1] ^= 1
    system.pipe_file(f"{root}/{name}", bytes(content))
    with pytest.raises(ShardError, match="is not what its receipt says"):
        reader["f.avi"]
    assert not list(near.glob("*.tmp"))


@pytest.mark.parametrize("staged", [False, True])
def test_shards_of_the_first_version(shard_set: ShardSet, near: Path, staged: bool) -> None:
    folder, videos = shard_set
    without_index(folder)
    upload(folder, "memory://old/set")
    reader = open_shards("memory://old/set", staging=near if staged else None)
    reader.prepare()
    assert same(reader, videos)


def read_all(reader: ShardReader, videos: dict[str, VideoRegions]) -> None:
    os._exit(0 if all(same(reader, videos) for _ in range(10)) else 1)


def test_processes_share_a_staging_folder(remote: tuple[str, dict[str, VideoRegions]], near: Path) -> None:
    address, videos = remote
    reader = open_shards(address, staging=near, staging_bytes=25_000)
    foreign = near / "notes.h5"
    foreign.write_bytes(bytes(50_000))
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=read_all, args=(reader, videos)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert held(near) <= 25_000
    assert foreign.read_bytes() == bytes(50_000), "files of others are left alone"
