"""Frozen in Time from videos to figures: trained in turns with images, from videos or cached frames, and measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import regionvlp
from regionvlp.pipelines.cli import run

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "grey": (120, 120, 120)}
MODEL: dict[str, Any] = {
    "video": {"image_size": 32, "patch_size": 16, "width": 16, "depth": 1, "heads": 2, "frames": 2, "joint_width": 8},
    "text": {"width": 16, "depth": 1, "heads": 2, "mlp_width": 32, "max_length": 16, "joint_width": 8, "dropout": 0},
}


@pytest.fixture
def world(tmp_path: Path, make_clip: Callable[..., Path]) -> Path:
    """Videos, pictures, and captions of either."""
    for name in ("videos", "images"):
        (tmp_path / name).mkdir()
    rows: dict[str, list[str]] = {"videos": [], "images": []}
    for number in range(6):
        make_clip(tmp_path / "videos" / f"{number}.mp4", number, frames=3 + number)
        rows["videos"].append(f"{number}.mp4,a square moves number {number}")
    for name, colour in COLOURS.items():
        Image.new("RGB", (48, 40), colour).save(tmp_path / "images" / f"{name}.png")
        rows["images"].append(f"{name}.png,a picture all {name}")
    for name, lines in rows.items():
        (tmp_path / f"{name}.csv").write_text("video_id,caption\n" + "\n".join(lines) + "\n")
    return tmp_path


def config(world: Path, videos: str = "videos", **changes: Any) -> dict[str, Any]:
    held_out = {"captions": str(world / "videos.csv"), "videos": str(world / videos)}
    sources = [held_out, {"captions": str(world / "images.csv"), "videos": str(world / "images"), "frames": 1}]
    values = {
        "task": "frozen",
        "model": MODEL,
        "data": {"sources": sources, "clips": {"frames": 2, "image_size": 32}, "text_length": 16},
        "train": {"batch_size": 4, "max_steps": 4, "device": "cpu", "workers": 0, "precision": "float32"},
        "eval": {"source": held_out},
    }
    return {**values, **changes}


def test_train_resume_and_measure(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = config(world)
    regionvlp.train(whole, world / "run")
    log = [json.loads(line) for line in (world / "run" / "log.jsonl").read_text().splitlines()]
    assert any("global_loss" in str(line) for line in log)
    found = regionvlp.evaluate(world / "run")
    assert found.metrics["queries"] == 6
    assert found.metrics["videos"] == str(world / "videos")
    assert "regions" not in found.metrics
    assert run(["eval", "csv", "--checkpoint", str(world / "run"), "--videos", str(world / "images"),
                "--annotations", str(world / "images.csv"), "--json", str(world / "m.json")]) == 0  # fmt: skip
    assert json.loads((world / "m.json").read_text())["gallery"] == 4
    encoded = regionvlp.load_checkpoint(world / "run").encode_videos(["3.mp4", "0.mp4", "3.mp4"], world / "videos")
    assert encoded.tokens.shape == (3, 2 * 4, 8)
    assert torch.equal(encoded.pooled[0], encoded.pooled[2])
    capsys.readouterr()
    assert run(["eval", "csv", "--checkpoint", str(world / "run"), "--shards", str(world / "videos")]) == 2
    assert "this model reads pixels" in capsys.readouterr().err


def test_a_cut_run_ends_as_a_whole_one(world: Path) -> None:
    whole = config(world)
    regionvlp.train(whole, world / "whole")
    half = config(world, train={**whole["train"], "max_steps": 2})
    regionvlp.train(half, world / "cut")
    regionvlp.train(whole, world / "cut")
    first, second = (regionvlp.load_checkpoint(world / name).system.state_dict() for name in ("whole", "cut"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_from_cached_frames_no_video_is_needed(world: Path) -> None:
    arguments = ["--videos", str(world / "videos"), "--out", str(world / "frames"), "--frames", "4"]
    assert run(["extract", "--what", "frames", *arguments, "--set", "video.workers=1"]) == 0
    for path in (world / "videos").iterdir():
        path.unlink()
    regionvlp.train(config(world, "frames"), world / "run")
    assert regionvlp.evaluate(world / "run").metrics["gallery"] == 6


def test_more_frames_and_another_size_from_a_checkpoint(world: Path, caplog: pytest.LogCaptureFixture) -> None:
    regionvlp.train(config(world), world / "run")
    larger = {**MODEL, "video": {**MODEL["video"], "image_size": 48, "frames": 1}}
    values = config(world, model=larger, init=str(world / "run"))
    values["data"] = {**values["data"], "clips": {"frames": 1, "image_size": 48}}
    with caplog.at_level("INFO", logger="regionvlp"):
        regionvlp.train(values, world / "fine")
    assert "made for 2 frames: the first 1 are used" in caplog.text
    assert "positions of 4 patches resized to 3 x 3" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data.clips.image_size": 64}, "data.clips.image_size 64 is not model.video.image_size 32"),
        ({"data.clips.frames": 4}, "4 frames do not fit model.video.frames 2"),
        ({"data.clips.regions": 30}, "data.clips.regions"),
        ({"data.clips.sampling": "legacy"}, "sampling legacy is for clips of regions"),
        ({"data.sources.0": {"captions": "x.csv", "shards": "s", "videos": "v"}}, "both shards and videos"),
        ({"data.sources.0": {"captions": "x.csv"}}, "neither shards nor videos"),
    ],
)
def test_settings_that_do_not_fit(
    change: dict[str, Any], message: str, world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = config(world)
    for key, value in change.items():
        *path, last = key.split(".")
        at: Any = values
        for part in path:
            at = at[int(part)] if part.isdigit() else at[part]
        at[int(last) if last.isdigit() else last] = value
    (world / "config.yaml").write_text(yaml.safe_dump(values))
    assert run(["pretrain", "--config", str(world / "config.yaml"), "--out", str(world / "run")]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (world / "run").exists()


def test_a_video_that_is_none_is_left_out_and_named(world: Path, caplog: pytest.LogCaptureFixture) -> None:
    (world / "videos" / "3.mp4").write_bytes(np.random.default_rng(0).bytes(2000))
    values = config(world, eval={})
    regionvlp.train(values, world / "run")
    assert "left out" in caplog.text
    assert "3.mp4" in caplog.text
