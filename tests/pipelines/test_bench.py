"""``regionvlp bench``: the JSON contract, at the toy's size."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from regionvlp.data.clips.frame_choice import FrameChoice
from regionvlp.data.clips.regions import RegionClips
from regionvlp.data.settings import RegionClipSettings
from regionvlp.extract.detector import FAMILIES
from regionvlp.pipelines.bench.clips import bench_manifest, draw_clips, write_npz, write_shard
from regionvlp.pipelines.bench.extract_stages import flops_per_frame
from regionvlp.pipelines.bench.loader_rates import _Files
from regionvlp.pipelines.cli import run
from regionvlp.shards import open_shards

STAGES = {"end_to_end", "decode", "resize", "backbone", "proposals", "res5", "selection", "write"}


def test_bench_extract(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bench.json"
    arguments = ["--frames", "1", "--size", "120x161", "--device", "cpu", "--json", str(path)]
    assert run(["bench", "extract", "--quick", *arguments]) == 0
    assert "extract_speed" in capsys.readouterr().out
    result = json.loads(path.read_text())
    assert set(result) == {"device", "rows", "ratios"}
    assert set(result["ratios"]) == {"extract_speed", "selection_speed"}
    assert all(set(row) == {"name", "value", "unit"} for row in result["rows"])
    values = {row["name"]: row["value"] for row in result["rows"]}
    assert len(values) == len(result["rows"])
    assert {*STAGES, "flops", "peak", "share_of_peak", "peak_memory", "baseline"} <= set(values)
    assert all(math.isfinite(value) and value > 0 for value in [*values.values(), *result["ratios"].values()])
    assert {row["unit"] for row in result["rows"] if row["name"] in STAGES} == {"frames/s"}


def test_the_work_of_a_frame_is_the_published_one() -> None:
    # 959 and 971 thousand million multiply-adds with 300 proposals, regressions and attributes (4 of them) included.
    assert flops_per_frame(FAMILIES["caffe"], 600, 800) / 2 == pytest.approx(959e9, rel=0.01)
    assert flops_per_frame(FAMILIES["caffe"], 720, 1280) / 2 == pytest.approx(971e9, rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["extrct"], "did you mean 'extract'"),
        (["extract", "--size", "big"], "600x800"),
        (["nothing-like-it"], "extract"),
        (["shards", "--dir", "/nowhere/at/all"], "no folder"),
        (["shards", "--dtype", "float8"], "unknown feature dtype"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_bench_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bench.json"
    arguments = ["--videos", "2", "--regions", "3", "--dir", str(tmp_path), "--json", str(path)]
    assert run(["bench", "shards", *arguments]) == 0
    assert "hdf5_random_read" in capsys.readouterr().out
    result = json.loads(path.read_text())
    assert set(result) == {"device", "rows", "ratios"}
    named = {f"{kind}_{what}" for kind in ("hdf5", "parquet") for what in ("random_read", "write")}
    assert named | {f"{name}_vs_plain_npz" for name in named} <= set(result["ratios"])
    values = {row["name"]: row["value"] for row in result["rows"]}
    assert len(values) == len(result["rows"])
    for kind in ("hdf5", "parquet", "npz", "plain_npz"):
        for what in ("write", "bytes_per_frame", "random_read", "sequential_read", "random_read_cold"):
            assert math.isfinite(values[f"{kind}_{what}"])
            assert values[f"{kind}_{what}"] > 0
    assert result["ratios"]["hdf5_write"] == pytest.approx(values["hdf5_write"] / values["npz_write"])
    assert sorted(tmp_path.iterdir()) == [path], "nothing is left behind"


def test_bench_loader(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bench.json"
    small = ["--shards", "3", "--regions", "3", "--batch", "4", "--workers", "1", "--frames", "2", "--captions", "500"]
    assert run(["bench", "loader", *small, "--dir", str(tmp_path), "--json", str(path)]) == 0
    assert "loader_speed" in capsys.readouterr().out
    result = json.loads(path.read_text())
    assert set(result) == {"device", "rows", "ratios"}
    assert set(result["ratios"]) == {"loader_speed"}
    values = {row["name"]: row["value"] for row in result["rows"]}
    named = {"loader", "npz_loader", "later_epoch_begins", "batch_read", "read_with_checksums"}
    tables = {"captions_read", "captions_join", "captions_bytes", "captions_peak"}
    assert set(values) == named | tables | {"batch_read_with_checksums"}
    assert all(math.isfinite(value) and value > 0 for name, value in values.items() if name != "captions_peak")
    assert result["ratios"]["loader_speed"] == pytest.approx(values["loader"] / values["npz_loader"])
    assert sorted(tmp_path.iterdir()) == [path], "nothing is left behind"


def test_both_loaders_of_the_bench_deliver_the_same(tmp_path: Path) -> None:
    clips = draw_clips(3, 2, 5, np.random.default_rng(0))
    write_shard(tmp_path / "shards", 0, clips, bench_manifest("parquet", "float16", 2, 5, 3))
    for clip in clips:
        write_npz(tmp_path / "npz", clip, np.savez)
    source = RegionClips(open_shards(tmp_path / "shards"), [c.video_id for c in clips], RegionClipSettings(regions=5))
    ours = source.read_batch([2, 0], FrameChoice(2))
    for place, number in enumerate((2, 0)):
        theirs = _Files(tmp_path / "npz", clips, 2, 5)[number]
        assert set(theirs) == set(ours)
        assert torch.equal(ours["features"][place].float(), theirs["features"].half().float())
        assert torch.equal(ours["region_mask"][place], theirs["region_mask"])
        assert torch.allclose(ours["location"][place], theirs["location"])
