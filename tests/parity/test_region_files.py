"""Region files in the public layout become the tensors that the public reader makes of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from regionvlp.data.clips.frame_choice import FrameChoice
from regionvlp.data.clips.regions import RegionClips
from regionvlp.data.settings import RegionClipSettings
from regionvlp.pipelines.cli import run
from regionvlp.shards import open_shards

from .discovery import Case, cases
from .table import record


@pytest.mark.parametrize("case", cases("demovlp", "region_files"))
def test_region_files(case: Case, tmp_path: Path) -> None:
    """Imported as float32 with edge padding and 6 locations: float32's tolerance of the folder's README."""
    with np.load(case.path(".npz"), allow_pickle=False) as file:
        config = json.loads(str(file["config"]))
        tensor, mask = file["tensor"], file["mask"]
    folder = tmp_path / "npz" / "video"
    shutil.copytree(case.folder / case.stem.removesuffix("_expected"), folder)
    number = int(config["object_num"])
    assert run(["shards", "import-npz", str(folder.parent), str(tmp_path / "out"), "--dtype", "float32"]) == 0
    shards, frames = open_shards(tmp_path / "out"), config["frame_indices"]
    video = shards["video"]
    rows = [video.frame_index.tolist().index(frame) for frame in frames]
    assert np.minimum(video.num_regions, number)[rows].tolist() == config["object_len"]
    settings = RegionClipSettings(frames=video.num_frames, regions=number, loc_dim=6, padding="edge")
    batch = RegionClips(shards, ["video"], settings).read_batch([0], FrameChoice(settings.frames))
    sample = {key: values[0] for key, values in batch.items()}
    found = np.concatenate([sample["features"].numpy(), sample["location"].numpy()], axis=-1)
    record(float(np.abs(found[rows] - tensor).max()), 2e-5)
    np.testing.assert_allclose(found[rows], tensor, rtol=0, atol=2e-5)
    assert np.array_equal(sample["region_mask"].numpy()[rows], mask == 1)
