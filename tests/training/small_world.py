"""A made-up set of clips, and a configuration that trains on it in a moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from regionvlp.regions import VideoRegions
from regionvlp.shards import Manifest, ShardWriter

WIDTH, FRAMES, REGIONS, CLIPS = 8, 2, 3, 16


def write_shards(folder: Path, clips: int = CLIPS, seed: int = 0) -> None:
    manifest = Manifest(
        format="hdf5", dtype="float16", frames=FRAMES, regions=REGIONS, feature_width=WIDTH, shard_size=clips,
        detector={"name": "made-up"}, video={},
    )  # fmt: skip
    shape = FRAMES, REGIONS
    with ShardWriter(folder, 0, Manifest.create_or_check(folder, manifest)) as writer:
        for i in range(clips):
            features = np.random.default_rng(100 * seed + i).normal(size=(*shape, WIDTH)).astype(np.float16)
            writer.add(VideoRegions(
                f"clip{i:02d}.mp4", np.arange(FRAMES), np.arange(FRAMES) / 2.0, np.full((FRAMES, 2), 120, np.int32),
                features, np.tile(np.array([5.0, 5.0, 60.0, 60.0], np.float32), (*shape, 1)),
                np.ones(shape, np.float32), np.zeros(shape, np.int32), np.zeros(shape, np.int32),
                np.zeros(shape, np.float32), np.full(FRAMES, REGIONS, np.int32),
            ))  # fmt: skip
        writer.finish()


def write_captions(path: Path, captions: list[str]) -> Path:
    rows = "".join(f"clip{i:02d},{text}\n" for i, text in enumerate(captions))
    path.write_text("video_id,caption\n" + rows)
    return path


def small_config(folder: Path) -> dict[str, Any]:
    """Writes shards and captions into ``folder``; returns a run's configuration over them."""
    write_shards(folder / "shards")
    captions = write_captions(folder / "captions.csv", [f"thing number {i} moves" for i in range(CLIPS)])
    side = {"width": 16, "depth": 1, "joint_width": 8, "heads": 2}
    return {
        "tokenizer": {"vocab_size": 100},
        "data": {
            "sources": [{"captions": str(captions), "shards": str(folder / "shards")}],
            "clips": {"frames": FRAMES, "regions": REGIONS},
            "text_length": 16,
        },
        "model": {
            "video": {**side, "feature_width": WIDTH, "frames": FRAMES, "regions": REGIONS},
            "text": {**side, "mlp_width": 32, "max_length": 16},
        },
        "optim": {"lr": 1e-3, "schedule": "cosine"},
        "train": {"batch_size": 8, "epochs": 9, "max_steps": 6, "save_every": "2 steps", "workers": 0, "device": "cpu"},
    }
