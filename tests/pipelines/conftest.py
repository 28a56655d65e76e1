"""A tiny world with its shards, and a recipe over it that trains in a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from regionvlp.config import load_config
from regionvlp.extract.launch.launch import extract_folder
from regionvlp.extract.settings import ExtractConfig
from regionvlp.pipelines.toy import world as toyworld

Edit = Callable[..., Path]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 clips to learn from, 8 held out, and the shards of both."""
    folder = tmp_path_factory.mktemp("world")
    toyworld.write_clips(folder / "videos", 24, split="train")
    toyworld.write_clips(folder / "videos", 8, split="test")
    settings = {"detector": {"name": "toy"}, "video": {"frames": 2}, "shards": {"size": 16}}
    extract_folder(folder / "videos", folder / "shards", load_config(ExtractConfig, settings))
    return folder


@pytest.fixture
def recipe(world: Path, tmp_path: Path) -> Edit:
    """Writes a tiny recipe over that world, with changes laid on top."""

    def write(**changes: object) -> Path:
        tower = {"width": 16, "depth": 1, "heads": 2, "joint_width": 8}
        shards = str(world / "shards")
        config = {
            "data": {"sources": [{"captions": str(world / "videos/train.jsonl"), "shards": shards}],
                     "frames": 2, "regions": 6, "text_length": 24},
            "model": {"video": {**tower, "feature_width": 256, "frames": 2, "regions": 6},
                      "text": {**tower, "mlp_width": 32, "max_length": 24, "dropout": 0.1}},
            "optim": {"lr": 1e-3, "schedule": "constant"},
            "train": {"batch_size": 8, "epochs": 2, "log_every": 1, "workers": 0, "device": "cpu"},
            "eval": {"source": {"captions": str(world / "videos/test.jsonl"), "shards": shards}},
        }  # fmt: skip
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump({**config, **changes}))
        return path

    return write
