"""What the user does not state is what the folder was made with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from regionvlp.config import load_config
from regionvlp.errors import ShardError
from regionvlp.extract.launch.launch import extract_folder
from regionvlp.extract.run.resuming import resumed
from regionvlp.extract.settings import ExtractConfig
from regionvlp.shards import Manifest
from regionvlp.store.manifest import MANIFEST_NAME

STATED: dict[str, Any] = {
    "detector": {"name": "toy", "regions": 12, "proposals": 40, "selection": "suppressed", "device": "cpu"},
    "video": {"frames": 2, "max_seconds": 1.5, "workers": 1},
    "shards": {"format": "parquet", "dtype": "float32", "size": 3},
    "run": {"card": False},
}


def config(**sections: dict[str, object]) -> ExtractConfig:
    return load_config(ExtractConfig, sections)


def test_out_alone_goes_on(tmp_path: Path, make_clip: Callable[..., Path]) -> None:
    for number in range(4):
        make_clip(tmp_path / "videos" / f"{number}.mp4", seed=number)
    out = tmp_path / "out"
    extract_folder(tmp_path / "videos", out, config(**STATED))
    make_clip(tmp_path / "videos" / "more.mp4", seed=9)
    outcome = extract_folder(tmp_path / "videos", out, config(video={"workers": 1}))
    assert (outcome.new_videos, outcome.status.done) == (1, 5)
    same = resumed(config(), out)
    for section in ("video", "shards"):
        for name, value in STATED[section].items():
            if name != "workers":
                assert getattr(getattr(same, section), name) == value
    assert {name: getattr(same.detector, name) for name in ("name", "regions", "proposals", "selection")} == {
        "name": "toy",
        "regions": 12,
        "proposals": 40,
        "selection": "suppressed",
    }
    with pytest.raises(ShardError, match="frames is 2 there and 3"):
        extract_folder(tmp_path / "videos", out, config(video={"workers": 1, "frames": 3}))


def test_what_is_stated_stays(tmp_path: Path) -> None:
    settings = {"format": "hdf5", "dtype": "uint8", "frames": 4, "regions": 9, "feature_width": 8, "shard_size": 512}
    Manifest.create_or_check(tmp_path, Manifest(**settings, detector={"name": "somebody's"}, video={"reader": "npz"}))
    found = resumed(config(shards={"dtype": "float16"}, detector={"name": "vg-hub"}), tmp_path)
    assert (found.shards.format, found.shards.dtype, found.shards.size) == ("hdf5", "float16", None)
    assert (found.detector.name, found.detector.regions) == ("vg-hub", 9)
    assert (found.video.frames, found.video.decoder) == (4, "auto")
    assert resumed(config(), tmp_path).detector.name == "auto"


def test_without_a_manifest_nothing_is_taken(tmp_path: Path) -> None:
    assert resumed(config(), tmp_path / "nowhere") == config()
    (tmp_path / MANIFEST_NAME).write_text("{")
    assert resumed(config(), tmp_path) == config()
