"""Pointing: boxes that count their last pixel, and boxes that end at an edge, are each measured as what they are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regionvlp.checkpoints.folder import load_checkpoint
from regionvlp.data.settings import SourceSettings
from regionvlp.pipelines.measure import measure
from regionvlp.regions import VideoRegions
from regionvlp.shards import Manifest, ShardWriter

RUN = Path(__file__).parents[1] / "fixtures" / "v0_1_0" / "run" / "checkpoints" / "step-00000020"
FRAMES, REGIONS, WIDTH = 2, 3, 8
TRUE = [3, 3, 5, 5]  # the edges of an object of two by two pixels


@pytest.fixture
def world(tmp_path: Path) -> Callable[..., SourceSettings]:
    """Clips whose regions all are the two pixels from 3 to 4, as a detector writes them that counts both."""

    def make(detector: dict[str, Any]) -> SourceSettings:
        slots = (FRAMES, REGIONS)
        manifest = Manifest(
            format="hdf5",
            dtype="float32",
            frames=FRAMES,
            regions=REGIONS,
            feature_width=WIDTH,
            shard_size=2,
            detector=detector,
            video={},
        )
        manifest = Manifest.create_or_check(tmp_path / "shards", manifest)
        with ShardWriter(tmp_path / "shards", 0, manifest) as writer:
            for seed in range(2):
                features = np.random.default_rng(seed).normal(size=(*slots, WIDTH)).astype(np.float32)
                writer.add(
                    VideoRegions(
                        video_id=f"{seed}.mp4",
                        frame_index=np.arange(FRAMES),
                        frame_time=np.arange(FRAMES, dtype=np.float64),
                        image_size=np.full((FRAMES, 2), 10, np.int32),
                        features=features,
                        boxes=np.tile(np.float32([3, 3, 4, 4]), (*slots, 1)),
                        scores=np.ones(slots, np.float32),
                        class_ids=np.zeros(slots, np.int32),
                        attribute_ids=np.zeros(slots, np.int32),
                        attribute_scores=np.zeros(slots, np.float32),
                        num_regions=np.full(FRAMES, REGIONS, np.int32),
                    )
                )
            writer.finish()
        thing = {"noun_span": [2, 5], "boxes": [TRUE] * FRAMES}
        rows = [{"video_id": f"{seed}.mp4", "caption": "a dog", "objects": [thing]} for seed in range(2)]
        (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return SourceSettings(captions=tmp_path / "test.jsonl", shards=tmp_path / "shards")

    return make


@pytest.mark.parametrize(
    ("detector", "last_pixel"),
    [
        ({"family": "caffe"}, True),
        ({"family": "d2", "plus_one": True}, True),
        ({"family": "d2"}, False),
        ({"family": "maxnms"}, False),
        ({"name": "somebody's"}, False),
    ],
)
def test_the_detector_says_how_wide_a_box_is(
    detector: dict[str, Any], last_pixel: bool, world: Callable[..., SourceSettings], tmp_path: Path
) -> None:
    shutil.copytree(RUN, tmp_path / "run")
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace("@HERE@", str(tmp_path)))
    results = measure(load_checkpoint(tmp_path / "run"), world(detector))
    # From edge to edge, 3 to 4 is one pixel of the object's four.
    assert (results.grounding["ceiling"], results.grounding["cases"]) == (100 if last_pixel else 0, 2 * FRAMES)
    assert results.last_pixel is last_pixel
