from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from search.worlds import REGIONS, WIDTH, WORLD, video, write_shards

import regionvlp
from regionvlp.data.clips import dataset
from regionvlp.errors import InputError


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return write_shards(tmp_path / "SHARDS", [video(name, labels) for name, labels in WORLD.items()])


def test_the_documented_loop_runs(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shards.parent)
    assert dataset.__doc__ is not None
    example = textwrap.dedent(dataset.__doc__.split("::\n\n")[1]).replace("num_workers=2", "num_workers=0")
    seen: dict[str, object] = {}
    exec(compile(example, "example", "exec"), seen)
    batch = seen["batch"]
    assert isinstance(batch, dict)
    assert batch["features"].shape == (5, 8, 30, WIDTH)
    assert batch["location"].shape == (5, 8, 30, 7)
    assert sorted(batch["video_id"]) == sorted(WORLD)


def test_a_clip_is_what_is_stored(shards: Path) -> None:
    clips = regionvlp.regions_dataset(shards, ["road/two.mp4"], frames=2, regions=REGIONS)
    stored = regionvlp.open_shards(shards)["road/two.mp4"]
    (clip,) = (clips[i] for i in range(len(clips)))
    assert np.array_equal(clip["features"].numpy(), stored.features)
    assert np.array_equal(clip["region_mask"].numpy(), stored.mask())
    assert clip["video_id"] == "road/two.mp4"
    with pytest.raises(IndexError):
        clips[1]
    with pytest.raises(InputError, match="not in the shards"):
        regionvlp.regions_dataset(shards, ["none.mp4"])


def test_frames_are_drawn_anew_every_epoch(shards: Path) -> None:
    ids = list(WORLD) * 4

    def epoch(number: int) -> torch.Tensor:
        clips = regionvlp.regions_dataset(shards, ids, frames=1, seed=3)
        clips.set_epoch(number)
        loader = torch.utils.data.DataLoader(clips, batch_size=7)
        return torch.cat([batch["features"] for batch in loader])

    assert torch.equal(epoch(0), epoch(0))
    assert not torch.equal(epoch(0), epoch(1))
