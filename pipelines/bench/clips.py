"""What loaders and shards are measured with: made-up clips, as shards and in the public layout of one npz a frame.

The features are drawn like those of real regions (six photos of the original bottom-up-attention model, 36 regions
each): 34 % zeros, the others with a mean of 0.92 and a mean square of 3.8. How well npz compresses depends on that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from regionvlp.regions import FrameRegions, VideoRegions
from regionvlp.shards import Manifest, Receipt, ShardWriter

WIDTH = 2048
HEIGHT_WIDTH = (360, 640)
ZEROS, SHAPE, SCALE = 0.345, 0.286, 3.23  # share of zeros; gamma distribution of the rest


@dataclass(frozen=True)
class Clip:
    """What a detector found in a video."""

    video_id: str
    frames: Sequence[FrameRegions]


def draw_clips(videos: int, frames: int, regions: int, rng: np.random.Generator, kinds: int = 8) -> list[Clip]:
    """Clips of so many frames and regions a frame; no more than ``kinds`` of them differ, since drawing takes long."""
    drawn = [[_draw_frame(regions, rng) for _ in range(frames)] for _ in range(min(videos, kinds))]
    return [Clip(f"clip{n:05d}.mp4", drawn[n % len(drawn)]) for n in range(videos)]


def _draw_frame(count: int, rng: np.random.Generator) -> FrameRegions:
    features = rng.gamma(SHAPE, SCALE, (count, WIDTH)).astype(np.float32)
    features[rng.random((count, WIDTH)) < ZEROS] = 0
    boxes = rng.random((count, 4)).astype(np.float32) * 300
    boxes[:, 2:] += boxes[:, :2]
    return FrameRegions(
        features=features,
        boxes=boxes,
        scores=np.sort(rng.random(count).astype(np.float32))[::-1].copy(),
        class_ids=rng.integers(0, 1600, count).astype(np.int32),
        attribute_ids=rng.integers(0, 400, count).astype(np.int32),
        attribute_scores=rng.random(count).astype(np.float32),
    )


def bench_manifest(kind: str, dtype: str, frames: int, regions: int, shard_size: int) -> Manifest:
    """The manifest of a folder of clips."""
    return Manifest(
        format=kind,
        dtype=dtype,
        frames=frames,
        regions=regions,
        feature_width=WIDTH,
        shard_size=shard_size,
        detector={},
        video={},
    )


def write_shard(folder: Path, number: int, clips: Iterable[Clip], wanted: Manifest) -> Receipt:
    """Clips as a shard, from regions in float32 to the receipt."""
    manifest = Manifest.create_or_check(folder, wanted)
    with ShardWriter(folder, number, manifest) as writer:
        for clip in clips:
            count = len(clip.frames)
            writer.add(
                VideoRegions.from_frames(
                    clip.video_id,
                    clip.frames,
                    frame_index=range(count),
                    frame_time=np.arange(count) / 2,
                    image_size=[HEIGHT_WIDTH] * count,
                    slots=manifest.regions,
                    dtype=manifest.memory_dtype.name,
                )
            )
        return writer.finish()


def write_npz(folder: Path, clip: Clip, save: Callable[..., None]) -> int:
    """One file a frame below ``folder``, with the fields of the public layout; returns how many."""
    height, width = HEIGHT_WIDTH
    (folder / clip.video_id).mkdir(parents=True)
    for number, frame in enumerate(clip.frames):
        info: dict[str, Any] = {
            "image_id": number,
            "image_h": height,
            "image_w": width,
            "num_boxes": len(frame),
            "objects_id": frame.class_ids,
            "objects_conf": frame.scores,
            "attrs_id": frame.attribute_ids,
            "attrs_conf": frame.attribute_scores,
        }
        fields = {"x": frame.features, "bbox": frame.boxes, "num_bbox": len(frame)}
        save(folder / clip.video_id / f"{number}.npz", **fields, image_h=height, image_w=width, info=info)
    return len(clip.frames)
