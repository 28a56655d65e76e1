"""The reader as a mapping, its errors, and its behaviour under fork, spawn and threads."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from shard_sets import without_index

from regionvlp.errors import InputError, ShardError
from regionvlp.regions import VideoRegions
from regionvlp.shards import Manifest, ShardReader, UnknownVideoError, open_shards
from regionvlp.shards.index import build_index

ShardSet = tuple[Path, dict[str, VideoRegions]]


def same(reader: Mapping[str, VideoRegions], videos: Mapping[str, VideoRegions], rounds: int = 1) -> bool:
    """True where every video reads as it should, in random order."""
    names = list(videos) * rounds
    random.shuffle(names)
    return all(reader[name].equals(videos[name]) for name in names)


def read_in_child(reader: ShardReader, videos: dict[str, VideoRegions]) -> None:
    os._exit(0 if same(reader, videos, rounds=30) else 1)


def test_it_is_a_mapping(shard_set: ShardSet) -> None:
    folder, videos = shard_set
    reader = open_shards(folder)
    assert isinstance(reader, Mapping)
    assert len(reader) == len(videos)
    assert list(reader) == list(videos) == reader.video_ids
    assert "a.mp4" in reader
    assert "bad.mp4" not in reader
    assert "broken-\udcff" not in reader
    not_an_id: Any = 5
    assert not_an_id not in reader
    assert reader.get("nothing") is None
    found = reader.get("a.mp4")
    assert found is not None
    assert found.equals(videos["a.mp4"])
    assert [failure.reason for failure in reader.failures] == ["empty-file"]
    assert "3 shards" in repr(reader)
    assert "float16 [4, 5, 16]" in repr(reader)


def test_an_unknown_id_is_a_key_error_with_a_hint(shard_set: ShardSet) -> None:
    reader = open_shards(shard_set[0])
    with pytest.raises(KeyError) as caught:
        reader["b with spaces.mp4"]
    assert isinstance(caught.value, UnknownVideoError)
    assert "did you mean 'b with space.mp4'?" in str(caught.value)
    with pytest.raises(UnknownVideoError, match="extraction failed: empty-file"):
        reader["bad.mp4"]
    with pytest.raises(UnknownVideoError, match="extension included"):
        reader.frame("zzzzzzzzzzzzzzzzzzzzzzzz", 0)


def test_a_path_that_is_no_shard_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no shard folder"):
        open_shards(tmp_path / "nowhere")
    with pytest.raises(ShardError, match=r"not a shard folder: it has no manifest.json"):
        open_shards(tmp_path)


def test_shards_without_a_receipt_do_not_exist(shard_set: ShardSet) -> None:
    folder, videos = shard_set
    (folder / "shard-00001.json").unlink()
    reader = open_shards(folder)
    assert reader.video_ids == [name for name in videos if name not in ("d.webm", "e.jpg")]
    assert reader.failures == []


def test_an_id_in_two_shards_is_an_error(
    tmp_path: Path,
    file_format: str,
    make_manifest: Callable[..., Manifest],
    make_video: Callable[..., VideoRegions],
    write_shard: Callable[..., None],
) -> None:
    for number in (0, 4):
        videos = [make_video("same.mp4"), make_video(f"{number}.mp4")]
        write_shard(tmp_path / "set", number, videos, make_manifest(format=file_format))
    with pytest.raises(ShardError, match=r"'same.mp4' is in shard 0 and in shard 4"):
        open_shards(tmp_path / "set")["0.mp4"]


def test_damaged_and_missing_data_are_shard_errors(shard_set: ShardSet) -> None:
    folder, _ = shard_set
    reader = open_shards(folder)
    reader["a.mp4"]
    data = sorted(path for path in folder.glob("shard-0000?.*") if path.suffix != ".json")
    os.truncate(data[0], 100)
    with pytest.raises(ShardError, match="ends too early"):
        reader["a.mp4"]
    data[1].unlink()
    with pytest.raises(ShardError, match="shard-00001"):
        reader["d.webm"]
    data[2].write_bytes(b"no such format")
    with pytest.raises(ShardError, match="is damaged"):
        open_shards(folder)["f.avi"]


def test_a_file_of_other_settings_is_refused(
    shard_set: ShardSet,
    tmp_path: Path,
    make_manifest: Callable[..., Manifest],
    make_video: Callable[..., VideoRegions],
    write_shard: Callable[..., None],
) -> None:
    folder, _ = shard_set
    manifest = open_shards(folder).manifest
    other = make_manifest(format=manifest.format, detector={"name": "other"})
    write_shard(tmp_path / "other", 0, [make_video(f"{n}.mp4") for n in range(3)], other)
    shutil.copy(tmp_path / "other" / manifest.data_name(0), folder / manifest.data_name(0))
    with pytest.raises(ShardError, match=r"the receipt says|not what was written"):
        open_shards(folder)["a.mp4"]
    without_index(folder)  # receipts of the first version leave it to the file to say what it is
    with pytest.raises(ShardError, match=r"detector.name is \"toy\" there and \"other\" in the file"):
        open_shards(folder)["a.mp4"]


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("used", [False, True])
def test_a_reader_works_in_child_processes(shard_set: ShardSet, method: str, used: bool) -> None:
    folder, videos = shard_set
    reader = open_shards(folder)
    if used:
        reader["a.mp4"]
    context: Any = multiprocessing.get_context(method)
    children = [context.Process(target=read_in_child, args=(reader, videos)) for _ in range(2)]
    for child in children:
        child.start()
    assert same(reader, videos, rounds=30)
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0]


def test_pickling_takes_no_files_along(shard_set: ShardSet) -> None:
    folder, videos = shard_set
    reader = open_shards(folder)
    assert same(reader, videos)
    assert same(pickle.loads(pickle.dumps(reader)), videos)


def test_threads_share_a_reader_with_one_open_file(shard_set: ShardSet) -> None:
    folder, videos = shard_set
    reader = open_shards(folder, max_open_files=1)
    results: list[bool] = []
    threads = [threading.Thread(target=lambda: results.append(same(reader, videos, rounds=40))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 4


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files through /proc")
def test_the_number_of_open_files_is_bounded(shard_set: ShardSet) -> None:
    folder, videos = shard_set

    def open_files() -> int:
        descriptors = Path("/proc/self/fd")
        return sum(os.path.realpath(descriptor).startswith(str(folder)) for descriptor in descriptors.iterdir())

    with open_shards(folder, max_open_files=2) as reader:
        assert same(reader, videos, rounds=3)
        assert open_files() == 2
    assert open_files() == 0
    assert same(reader, videos)


def test_the_index_tells_ids_of_equal_hash_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    # These two words are known for their equal CRC-32.
    index = build_index([(3, ["x", "plumless"]), (5, []), (8, ["buckeroo", "y"])])
    assert [index.find(name) for name in ("x", "plumless", "buckeroo", "y", "z")] == [0, 1, 2, 3, None]
    for many in (50_000, 1):  # from many ids on, by another way
        monkeypatch.setattr("regionvlp.shards.index._MANY", many)
        assert index.find_all(["y", "z", "plumless", "broken-\udcff", "buckeroo"]).tolist() == [3, -1, 1, -1, 2]
    assert index.as_arrow().to_pylist() == list(index) == ["x", "plumless", "buckeroo", "y"]
    assert list(index.duplicates()) == []
    again = build_index([(3, ["x", "plumless"]), (8, ["buckeroo", "plumless", "x"])])
    assert sorted(again.duplicates()) == [("plumless", 3, 8), ("x", 3, 8)]
    assert len(build_index([])) == 0
    assert build_index([]).find("x") is None


def test_importing_is_light() -> None:
    code = "import sys, regionvlp.shards; print(sorted({'torch', 'h5py', 'pyarrow', 'numpy'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
