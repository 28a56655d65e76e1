"""Shards in the other format or dtype: the same videos, plan and failures, resumed, and honest about what is lost."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shard_sets import without_index

from regionvlp.errors import ShardError
from regionvlp.pipelines.cli import run
from regionvlp.regions import VideoRegions
from regionvlp.shards import Manifest, open_shards, read_plan, verify
from regionvlp.shards.codec import dequantise, quantise
from regionvlp.shards.interop.convert import convert, converted_manifest
from regionvlp.store.receipts import Receipt

ShardSet = tuple[Path, dict[str, VideoRegions]]


def test_the_other_format_is_the_same(shard_set: ShardSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, videos = shard_set
    out, back = tmp_path / "out", tmp_path / "back"
    formats = ["hdf5", "parquet"]
    first = Manifest.read(folder).format
    other = formats[1 - formats.index(first)]
    assert run(["shards", "convert", str(folder), str(out), "--format", other]) == 0
    assert "exact: every number stays" in capsys.readouterr().out
    assert verify(out, planned=True) == []
    reader = open_shards(out)
    assert list(reader) == list(videos)
    assert all(reader[name].equals(video) for name, video in videos.items())
    assert reader.failures == open_shards(folder).failures
    assert list(read_plan(out) or ()) == list(read_plan(folder) or ())
    manifest = Manifest.read(out)
    assert manifest.detector == Manifest.read(folder).detector
    assert manifest.video["converted_from"] == [{"format": first, "dtype": "float16"}]
    assert Receipt.read(out / "shard-00001.json").versions == Receipt.read(folder / "shard-00001.json").versions
    assert run(["shards", "convert", str(out), str(back), "--format", first]) == 0
    assert all(open_shards(back)[name].equals(video) for name, video in videos.items())
    assert len(Manifest.read(back).video["converted_from"]) == 2


def test_old_shards_get_checksums(shard_set: ShardSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, videos = shard_set
    arguments = ["shards", "convert", str(folder), str(tmp_path / "out")]
    assert run(arguments) == 2
    assert "already, and have checksums" in capsys.readouterr().err
    without_index(folder)
    assert run(arguments) == 0
    reader = open_shards(tmp_path / "out")
    assert reader.checked == 1
    assert verify(tmp_path / "out", planned=True) == []
    assert all(reader[name].equals(video) for name, video in videos.items())
    for path in folder.iterdir():
        if path.suffix != ".json" or path.name == "manifest.json":
            assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes(), "only receipts say more"


@pytest.mark.parametrize(("before", "after"), permutations(["float16", "float32", "uint8"], 2))
def test_dtypes(tmp_path: Path, before: str, after: str, make_manifest: Any, make_video: Any, write_shard: Any) -> None:
    source = make_manifest(dtype=before)
    video = make_video("v.mp4", dtype=source.memory_dtype.name)
    write_shard(tmp_path / "set", 0, [video], source)
    assert run(["shards", "convert", str(tmp_path / "set"), str(tmp_path / "out"), "--dtype", after]) == 0
    stored = open_shards(tmp_path / "set")["v.mp4"].features.astype(np.float32)
    expected = {
        "float16": lambda: stored.astype(np.float16),
        "float32": lambda: stored,
        "uint8": lambda: dequantise(*quantise(stored)),
    }[after]()
    read = open_shards(tmp_path / "out")["v.mp4"]
    assert read.features.dtype == expected.dtype
    assert np.array_equal(read.features, expected)
    assert replace(read, features=video.features).equals(video)


def test_numbers_that_do_not_fit_end_it(
    tmp_path: Path, make_manifest: Any, make_video: Any, write_shard: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    video = make_video("v.mp4", dtype="float32", counts=[5] * 4)
    for dtype, features, words in (
        ("float16", video.features * np.float32(1e6), "not finite"),
        ("uint8", video.features - np.float32(0.5), "negative"),
    ):
        folder = tmp_path / dtype
        write_shard(folder / "set", 0, [replace(video, features=features)], make_manifest(dtype="float32"))
        assert run(["shards", "convert", str(folder / "set"), str(folder / "out"), "--dtype", dtype]) == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1
        assert not list((folder / "out").glob("shard-*"))


def test_what_is_missing_is_done_and_what_is_there_kept(shard_set: ShardSet, tmp_path: Path) -> None:
    folder, videos = shard_set
    out = tmp_path / "out"
    target = converted_manifest(Manifest.read(folder), None, "uint8")
    receipt = folder / "shard-00002.json"
    hidden = receipt.rename(tmp_path / receipt.name)
    assert convert(folder, out, target) == 2
    stamp = (out / "shard-00000.json").stat().st_mtime_ns
    hidden.rename(receipt)
    seen: list[Any] = []
    assert convert(folder, out, target, on_plan=lambda *plan: seen.append(plan), on_video=seen.append) == 1
    assert seen == [(7, 2), 4, 4]
    assert (out / "shard-00000.json").stat().st_mtime_ns == stamp
    assert convert(folder, out, target) == 0
    assert verify(out, planned=True) == []
    assert set(open_shards(out)) == set(videos)


def test_a_damaged_shard_is_not_passed_on(shard_set: ShardSet, tmp_path: Path) -> None:
    folder, _ = shard_set
    path = folder / Manifest.read(folder).data_name(1)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ShardError, match="not what its receipt says"):
        convert(folder, tmp_path / "out", converted_manifest(Manifest.read(folder), None, "float32"))
    assert not (tmp_path / "out" / "shard-00001.json").exists()


def test_mistakes_are_one_line(shard_set: ShardSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = shard_set
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    for arguments, words in (
        ([folder, tmp_path / "out"], "already"),
        ([folder, tmp_path / "out", "--dtype", "float8"], "unknown feature dtype"),
        ([folder, tmp_path / "out", "--format", "zip"], "unknown shard format"),
        ([folder, folder, "--dtype", "uint8"], "into itself"),
        ([tmp_path / "nowhere", tmp_path / "out", "--dtype", "uint8"], "no shard folder"),
        ([tmp_path / "other", tmp_path / "out", "--dtype", "uint8"], "not a shard folder"),
        ([folder, tmp_path / "other", "--dtype", "uint8"], "is not empty"),
    ):
        assert run(["shards", "convert", *map(str, arguments)]) == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1
    assert not os.path.exists(tmp_path / "out")


def test_json(shard_set: ShardSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = shard_set
    assert run(["shards", "convert", str(folder), str(tmp_path / "out"), "--dtype", "uint8", "--json", "-"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["shards"], values["videos"]) == (3, 7)
    assert "255 steps" in values["loss"]
