"""Pictures that are not plain RGB photos go through a whole extraction: rows or failure rows, never a crash."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regionvlp.config import load_config
from regionvlp.extract.launch.launch import extract_folder
from regionvlp.extract.settings import ExtractConfig
from regionvlp.shards import open_shards, verify

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (12, 16, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)


def made_up(folder: Path) -> None:
    """Writes one picture of each odd kind."""
    rgb = Image.fromarray(PHOTO)
    grey16 = np.linspace(0, 65535, 96 * 128).reshape(96, 128).astype(np.uint16)
    kinds = {
        "one-pixel.png": Image.new("RGB", (1, 1), (9, 200, 30)),
        "line.png": Image.new("RGB", (1, 500), (9, 200, 30)),
        "panorama.png": Image.fromarray(np.tile(PHOTO[:30], (1, 79, 1))[:, :10_000]),
        "tower.png": Image.fromarray(np.tile(PHOTO[:, :30], (105, 1, 1))[:10_000]),
        "grey.jpg": rgb.convert("L"),
        "bilevel.png": rgb.convert("1"),
        "alpha.png": rgb.convert("RGBA"),
        "grey-alpha.png": rgb.convert("LA"),
        "deep.png": Image.fromarray(grey16),
        "cmyk.jpg": rgb.convert("CMYK"),
        "palette.png": rgb.convert("P"),
    }
    folder.mkdir()
    for name, picture in kinds.items():
        picture.save(folder / name)


@pytest.mark.parametrize("real", [False, True])
def test_odd_pictures(real: bool, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    videos = tmp_path / "videos"
    if real:
        shutil.copytree(request.getfixturevalue("sample_data") / "images" / "odd", videos)
    else:
        made_up(videos)
    names = sorted(path.name for path in videos.iterdir())
    base = {"detector": {"name": "toy", "device": "cpu"}, "video": {"workers": 1}}
    outcome = extract_folder(videos, tmp_path / "out", load_config(ExtractConfig, base))
    assert (outcome.status.videos, outcome.status.done, outcome.status.failed) == (len(names), len(names), 0)
    assert verify(tmp_path / "out") == []
    with open_shards(tmp_path / "out") as shards:
        assert sorted(shards.video_ids) == names
        for name in names:
            regions = shards[name]
            assert regions.num_frames == 1
            count = int(regions.num_regions[0])
            height, width = regions.image_size[0]
            assert np.isfinite(regions.features).all()
            assert (regions.boxes[0, :count] >= 0).all()
            assert (regions.boxes[0, :count] <= [width, height, width, height]).all()
            # A line, or a panorama of 333 to 1, leaves the network no cell to look at; any other shape has regions.
            assert (count > 0) == (max(height, width) < 100 * min(height, width) and min(height, width) > 1)
