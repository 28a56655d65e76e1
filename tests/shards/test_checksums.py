"""Damage is noticed while reading: nothing comes back that was not written, and all that is whole does."""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from mutations import campaign
from shard_sets import without_index

from regionvlp.errors import ShardError
from regionvlp.regions import VideoRegions
from regionvlp.shards import BatchError, Manifest, Receipt, ShardReader, ShardWriter, open_shards, verify
from regionvlp.shards.checksums import frame_checksums
from regionvlp.shards.codec import stored_columns
from regionvlp.shards.formats import format_of
from regionvlp.shards.places import Places, ShardIndex
from regionvlp.store.files import sha256_of

ShardSet = tuple[Path, dict[str, VideoRegions]]
MakeManifest = Callable[..., Manifest]
MakeVideo = Callable[..., VideoRegions]
WriteShard = Callable[..., None]
FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "v0_1_0"


def data_path(folder: Path, number: int) -> Path:
    return folder / Manifest.read(folder).data_name(number)


def bad(found: Counter[str]) -> dict[str, int]:
    return {kind: count for kind, count in found.items() if kind.split(": ")[-1] in ("silent", "lost", "unseen")}


@pytest.mark.parametrize("shard", [0, 2])
def test_no_mutation_is_read_silently(shard_set: ShardSet, shard: int) -> None:
    folder, videos = shard_set
    found = campaign(folder, videos, shard, times=35, seed=shard)
    assert not bad(found), found
    assert sum(count for kind, count in found.items() if kind.endswith(": files")) == 35
    assert verify(folder) == []


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "uint8"])
def test_a_thousand_mutations(
    tmp_path: Path,
    file_format: str,
    dtype: str,
    make_manifest: MakeManifest,
    make_video: MakeVideo,
    write_shard: WriteShard,
    capsys: pytest.CaptureFixture[str],
) -> None:
    manifest = make_manifest(format=file_format, dtype=dtype)
    kind = manifest.memory_dtype.name
    videos = {f"{n}.mp4": make_video(f"{n}.mp4", frames=1 + n % 4, dtype=kind) for n in range(8)}
    for number in range(2):
        write_shard(tmp_path / "set", number, list(videos.values())[4 * number : 4 * number + 4], manifest)
    read = {name: open_shards(tmp_path / "set")[name] for name in videos}
    found = campaign(tmp_path / "set", read, 1, times=1001, seed=7)
    with capsys.disabled():
        logging.getLogger(__name__).warning("%s %s: %s", file_format, dtype, dict(sorted(found.items())))
    assert not bad(found), found


def test_the_checksum_of_a_frame_is_of_all_its_values(make_video: MakeVideo, make_manifest: MakeManifest) -> None:
    spec, video = make_manifest(), make_video("v.mp4", counts=[5, 5, 5, 5])
    columns = stored_columns(video, spec)
    sums = frame_checksums(columns, spec)
    assert sums.dtype == np.uint64
    assert len(set(sums.tolist())) == 4
    for name in spec.column:
        values = columns[name].copy()
        values.reshape(-1).view(np.uint8)[-1] ^= 1
        other = frame_checksums({**columns, name: values}, spec)
        assert (other != sums).tolist() == [False, False, False, True], name


def test_a_receipt_tells_where_everything_lies(shard_set: ShardSet) -> None:
    folder, _ = shard_set
    manifest = Manifest.read(folder)
    for number in range(3):
        receipt = Receipt.read(folder / f"shard-{number:05d}.json")
        assert receipt.schema_version == 2
        assert receipt.index is not None
        index = ShardIndex.from_document(receipt.index, manifest, "it")
        path = folder / str(receipt.file)
        layout = format_of(manifest).read_layout(path, manifest)
        assert list(index.ids) == format_of(manifest).read_ids(path, manifest)
        assert index.places.same(Places.of(layout, manifest))
        assert index.as_document() == receipt.index
        for change in ({}, {"places": "AAAA", "xxh3": ""}, {**receipt.index, "xxh3": receipt.index["xxh3"][4:]}):
            with pytest.raises(ShardError, match="its index cannot be read"):
                ShardIndex.from_document(change, manifest, "it")
        with pytest.raises(ShardError, match="of other shards"):
            ShardIndex.from_document(receipt.index, replace(manifest, frames=3), "it")


def test_reading_opens_no_file_with_a_library(shard_set: ShardSet, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, videos = shard_set
    monkeypatch.setattr("regionvlp.shards.guarded.format_of", None)
    monkeypatch.setattr("subprocess.Popen", None)
    reader = open_shards(folder)
    assert all(reader[name].equals(video) for name, video in videos.items())
    reader.read(list(videos), [0])


@pytest.mark.parametrize("of_same_ids", [False, True])
def test_a_file_swapped_for_another_of_equal_size(
    tmp_path: Path,
    file_format: str,
    of_same_ids: bool,
    make_manifest: MakeManifest,
    make_video: MakeVideo,
    write_shard: WriteShard,
) -> None:
    manifest = make_manifest(format=file_format)
    ids = [[f"{number}{n}.mp4" for n in range(3)] for number in range(2)]
    for number in range(2):
        write_shard(tmp_path / "set", number, [make_video(name) for name in ids[number]], manifest)
    other = [replace(make_video(f"x{name}"), video_id=name) for name in ids[0]]
    write_shard(tmp_path / "other", 0, other, manifest)
    mine, source = data_path(tmp_path / "set", 0), data_path(tmp_path / ("other" if of_same_ids else "set"), 1)
    source = source if not of_same_ids else data_path(tmp_path / "other", 0)
    assert mine.stat().st_size == source.stat().st_size
    shutil.copy(source, mine)
    reader = open_shards(tmp_path / "set")
    with pytest.raises(ShardError, match=r"'00.mp4' in .*: frame 0 is not what was written"):
        reader["00.mp4"]
    with pytest.raises(BatchError, match=r"and 2 more of the batch") as caught:
        reader.read([*ids[0], *ids[1]], [0, 3])
    assert sorted(caught.value.failed) == [0, 1, 2]
    assert np.array_equal(caught.value.batch.features[4], make_video("11.mp4").features[[0, 3]])
    assert "damaged are the frames 0 of '00.mp4'" in str(verify(tmp_path / "set")[0])


def test_a_file_that_goes_while_it_is_read(shard_set: ShardSet) -> None:
    folder, videos = shard_set
    reader = open_shards(folder, max_open_files=1)
    reader["a.mp4"]
    data_path(folder, 0).unlink()
    assert reader["c/ünï-日本.mkv"].equals(videos["c/ünï-日本.mkv"]), "it is open"
    reader["f.avi"]
    with pytest.raises(ShardError, match=r"cannot read .*shard-00000"):
        reader["a.mp4"]
    with pytest.raises(BatchError, match="cannot read") as caught:
        reader.read(["f.avi", "a.mp4", "d.webm"], [0])
    assert list(caught.value.failed) == [1]


def test_a_shard_that_is_replaced_while_it_is_read(shard_set: ShardSet, make_video: MakeVideo) -> None:
    folder, videos = shard_set
    reader = open_shards(folder, max_open_files=1)
    reader["d.webm"]
    old = Receipt.read(folder / "shard-00001.json")
    with ShardWriter(folder, 1, Manifest.read(folder), replaces=old) as writer:
        for name in ("bad.mp4", "d.webm", "e.jpg"):
            writer.add(videos.get(name) or make_video(name))
        writer.finish()
    assert reader["e.jpg"].equals(videos["e.jpg"]), "the old file is open"
    reader["a.mp4"]
    with pytest.raises(ShardError, match="shard-00001") as caught:
        reader["e.jpg"]
    assert "open the shards again" in str(caught.value)
    assert open_shards(folder)["bad.mp4"].equals(make_video("bad.mp4"))


def test_checks_can_be_switched_off(shard_set: ShardSet) -> None:
    folder, videos = shard_set
    path = data_path(folder, 0)
    content = path.read_bytes()
    wanted = videos["a.mp4"].features[1].tobytes()
    damaged = bytearray(wanted)
    damaged[0] ^= 1
    path.write_bytes(content.replace(wanted, bytes(damaged)))
    with pytest.raises(ShardError, match=r"frame 1 is not what was written.*shards verify"):
        open_shards(folder)["a.mp4"]
    reader = open_shards(folder, checksums=False)
    assert not reader["a.mp4"].equals(videos["a.mp4"])
    assert reader.read(["a.mp4"], [1]).features.tobytes() == bytes(damaged)
    assert verify(folder)[0].message.endswith("damaged are the frames 1 of 'a.mp4'")


def test_shards_of_the_first_version_read_as_before_and_say_so_once(
    shard_set: ShardSet, caplog: pytest.LogCaptureFixture
) -> None:
    folder, videos = shard_set
    assert open_shards(folder).checked == 1
    assert not caplog.records
    without_index(folder)
    assert "index" not in json.loads((folder / "shard-00000.json").read_text())
    reader = open_shards(folder)
    assert [record.message for record in caplog.records] == [
        f"3 of 3 shards in {folder} carry no checksums, so damage to them is not noticed while reading; "
        "'regionvlp shards convert' gives them some"
    ]
    assert reader.checked == 0
    assert all(reader[name].equals(video) for name, video in videos.items())
    open_shards(folder)
    assert len(caplog.records) == 1
    assert verify(folder) == []


def test_looked_up_once_for_all_workers(shard_set: ShardSet, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, videos = shard_set
    without_index(folder)
    reader = open_shards(folder)
    reader.prepare()
    monkeypatch.setattr("regionvlp.shards.guarded.format_of", None)
    monkeypatch.setattr("subprocess.Popen", None)
    for one in (reader, pickle.loads(pickle.dumps(reader))):
        assert all(one[name].equals(video) for name, video in videos.items())


@pytest.mark.parametrize("how", ["hangs", "dies"])
def test_a_library_that_hangs_or_dies_over_an_old_shard(
    shard_set: ShardSet, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, videos = shard_set
    without_index(folder)
    real = sys.executable
    program = folder.parent / "python"  # stands for a library that cannot get through the second shard
    act = "while True: pass" if how == "hangs" else "os.kill(os.getpid(), 9)"
    program.write_text(
        f"""#!{real}
import os, sys
import regionvlp.shards.guarded as guarded
real = guarded.look_into
def look_into(path, manifest):
    if "shard-00001" in str(path):
        {act}
    return real(path, manifest)
guarded.look_into = look_into
guarded._serve()
"""
    )
    program.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(program))
    words = "does not come to an end" if how == "hangs" else "whatever reads it dies"
    reader = open_shards(folder)
    reader.num_frames_of([0])  # the process is there
    monkeypatch.setattr("regionvlp.shards.guarded._PATIENCE", 2.0)
    with pytest.raises(ShardError, match=rf"shard-00001.* is damaged: .*{words}"):
        reader.prepare()
    monkeypatch.undo()
    reader = ShardReader(folder, shards=[0, 2])
    assert all(reader[name].equals(videos[name]) for name in reader)


@pytest.mark.parametrize("file_format", ["hdf5"], indirect=True)
def test_numbers_that_are_none_in_shards_without_checksums(shard_set: ShardSet) -> None:
    folder, _ = shard_set
    path = data_path(folder, 2)
    with h5py.File(path, "r+") as file:
        file["features"][0, 1, 0] = np.nan
    without_index(folder)
    receipt = Receipt.read(folder / "shard-00002.json")
    replace(receipt, bytes=path.stat().st_size, sha256=sha256_of(path)).write(folder)
    reader = open_shards(folder)
    with pytest.raises(ShardError, match=r"'f.avi' in .*: features holds numbers that are not finite"):
        reader.frame("f.avi", 1)
    with pytest.raises(BatchError, match=r"'f.avi' in .*: features holds numbers that are not finite") as caught:
        reader.read(["g.gif", "f.avi", "f.avi"], [[1, 0], [0, 2], [0, 1]])
    assert list(caught.value.failed) == [2]


@pytest.mark.parametrize("name", ["shards-hdf5", "shards-parquet"])
def test_what_version_0_1_0_left(name: str) -> None:
    reader = open_shards(FIXTURES / name)
    assert len(reader) == 12
    for video_id, video in reader.items():
        assert reader.read([video_id], range(video.num_frames)).features.tobytes() == video.features.tobytes()
    other = open_shards(FIXTURES / ("shards-parquet" if name == "shards-hdf5" else "shards-hdf5"))
    assert all(video.equals(other[video_id]) for video_id, video in reader.items())
    assert verify(FIXTURES / name) == []


def test_data_files_are_what_they_were_before_there_were_checksums(
    tmp_path: Path, make_manifest: MakeManifest, write_shard: WriteShard
) -> None:
    """Only receipts say more than they did, so that version 0.1.0 refuses the folder by its receipts."""
    for kind in ("hdf5", "parquet"):
        old = open_shards(FIXTURES / f"shards-{kind}")
        manifest = replace(old.manifest, created_by="regionvlp 0.1.0")
        write_shard(tmp_path / kind, 0, [old[name] for name in old.video_ids[:6]], manifest)
        suffix = {"hdf5": "h5", "parquet": "parquet"}[kind]
        mine, theirs = tmp_path / kind / f"shard-00000.{suffix}", FIXTURES / f"shards-{kind}" / f"shard-00000.{suffix}"
        assert mine.read_bytes() == theirs.read_bytes()
        text = (tmp_path / kind / "manifest.json").read_text()
        assert text == (FIXTURES / f"shards-{kind}" / "manifest.json").read_text()


def test_an_unreadable_call_names_the_file(shard_set: ShardSet, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = open_shards(shard_set[0])

    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(ShardError, match=r"cannot read .*shard-00000.*Input/output error"):
        reader["a.mp4"]
