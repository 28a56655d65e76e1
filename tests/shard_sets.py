"""Small fabricated shard sets: 4 frame slots, 5 region slots, 16 features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from regionvlp.regions import VideoRegions
from regionvlp.shards import Failure, Manifest, PlanRow, Receipt, ShardWriter, write_plan

FRAMES, REGIONS, WIDTH = 4, 5, 16
IDS = [["a.mp4", "b with space.mp4", "c/ünï-日本.mkv"], ["d.webm", "e.jpg"], ["f.avi", "g.gif"]]


@pytest.fixture(params=["hdf5", "parquet"])
def file_format(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make_manifest() -> Callable[..., Manifest]:
    def make(**changes: object) -> Manifest:
        values: dict[str, object] = {
            "format": "hdf5",
            "dtype": "float16",
            "frames": FRAMES,
            "regions": REGIONS,
            "feature_width": WIDTH,
            "shard_size": 3,
            "detector": {"name": "toy", "weights": "abc", "size": [600, 1000]},
            "video": {"reader": "pyav", "sampling": "segments"},
        }
        return Manifest(**{**values, **changes})  # type: ignore[arg-type]

    return make


@pytest.fixture
def make_video() -> Callable[..., VideoRegions]:
    def make(
        video_id: str, frames: int = FRAMES, dtype: str = "float16", counts: list[int] | None = None
    ) -> VideoRegions:
        random = np.random.default_rng(list(video_id.encode()))
        num = random.integers(0, REGIONS + 1, frames) if counts is None else np.array(counts)
        real = np.arange(REGIONS) < num[:, None]
        boxes = random.random((frames, REGIONS, 4)) * 100
        boxes[..., 2:] += boxes[..., :2]
        return VideoRegions(
            video_id=video_id,
            frame_index=np.sort(random.integers(0, 2**40, frames)),
            frame_time=random.random(frames),
            image_size=random.integers(1, 2000, (frames, 2)).astype(np.int32),
            features=(random.random((frames, REGIONS, WIDTH)) * real[..., None]).astype(dtype),
            boxes=(boxes * real[..., None]).astype(np.float32),
            scores=(random.random((frames, REGIONS)) * real).astype(np.float32),
            class_ids=(random.integers(0, 1600, (frames, REGIONS)) * real).astype(np.int32),
            attribute_ids=(random.integers(-1, 400, (frames, REGIONS)) * real).astype(np.int32),
            attribute_scores=(random.random((frames, REGIONS)) * real).astype(np.float32),
            num_regions=num.astype(np.int32),
        )

    return make


@pytest.fixture
def write_shard() -> Callable[..., None]:
    def write(folder: Path, number: int, videos: list[VideoRegions], manifest: Manifest, **finish: object) -> None:
        manifest = Manifest.create_or_check(folder, manifest)
        with ShardWriter(folder, number, manifest) as writer:
            for video in videos:
                writer.add(video)
            writer.finish(**finish)  # type: ignore[arg-type]

    return write


@pytest.fixture
def shard_set(
    tmp_path: Path,
    file_format: str,
    make_manifest: Callable[..., Manifest],
    make_video: Callable[..., VideoRegions],
    write_shard: Callable[..., None],
) -> tuple[Path, dict[str, VideoRegions]]:
    """A whole folder of three shards with a plan, one failure in shard 1, and what its videos are."""
    folder = tmp_path / "set"
    videos = {name: make_video(name, frames=1 if name.endswith(".jpg") else FRAMES) for ids in IDS for name in ids}
    for number, ids in enumerate(IDS):
        failures = [Failure("bad.mp4", "open", "empty-file", "VideoError", "no bytes")] if number == 1 else []
        rows = [videos[name] for name in ids]
        write_shard(folder, number, rows, make_manifest(format=file_format), failures=failures)
    planned = [(number, name) for number, ids in enumerate(IDS) for name in ids] + [(1, "bad.mp4")]
    write_plan(folder, [PlanRow(number, name, 10, 20) for number, name in sorted(planned)])
    return folder, videos


def without_index(folder: Path) -> None:
    """Makes the receipts of a folder those that version 0.1.0 would have written."""
    for path in folder.glob("shard-*.json"):
        replace(Receipt.read(path), index=None, schema_version=1).write(folder)
