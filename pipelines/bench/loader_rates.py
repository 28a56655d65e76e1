"""The loaders that ``regionvlp bench loader`` times.

Both deliver the same thing: features, location vectors and a mask of F frames of each of B clips, in random order, by
the same number of worker processes. Everything is in the page cache. The baseline does what the public code does: a
torch loader, one item at a time, one compressed npz a frame, float32. Ours is the trainer's own: batches by number,
in the dtype of the shards, with checksums.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from regionvlp.data.clips.frame_choice import FrameChoice
from regionvlp.data.clips.regions import RegionClips
from regionvlp.data.draws import Draws
from regionvlp.data.settings import RegionClipSettings
from regionvlp.pipelines.bench.clips import Clip, bench_manifest, draw_clips, write_npz, write_shard
from regionvlp.pipelines.bench.shards import checked_shares
from regionvlp.regions import location_vectors
from regionvlp.shards import ShardReader, open_shards
from regionvlp.training.distributed import World
from regionvlp.training.loaders import Loader
from regionvlp.training.settings import TrainSettings

CLIPS_PER_SHARD = 2
EPOCHS = 3
PASSES = 8  # of our loader over all clips in an epoch
KINDS = 8  # of clips that differ


def measure(
    scratch: Path, *, count: int, frames: int, regions: int, batch: int, workers: int, kind: str
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Writes both layouts, reads them through both loaders in turns; returns rows and ratios."""
    rng = np.random.default_rng(0)
    clips = draw_clips(count * CLIPS_PER_SHARD, max(frames, 4), regions, rng, KINDS)
    manifest = bench_manifest(kind, "float16", max(frames, 4), regions, CLIPS_PER_SHARD)
    for number in range(count):
        write_shard(scratch / "shards", number, clips[number * CLIPS_PER_SHARD :][:CLIPS_PER_SHARD], manifest)
    _write_npz(scratch / "npz", clips)
    reader = open_shards(scratch / "shards")
    source = RegionClips(reader, [clip.video_id for clip in clips], RegionClipSettings(regions=regions, frames=frames))
    # Ours is through with all clips before its workers are at full speed, so an epoch of it has them several times.
    ours = Loader(_ClipBatches(source, frames, PASSES), TrainSettings(batch_size=batch, workers=workers), World())
    public = DataLoader(
        _Files(scratch / "npz", clips, frames, regions), batch, shuffle=True, num_workers=workers,
        persistent_workers=True, multiprocessing_context="fork",
    )  # fmt: skip
    rates: dict[str, list[float]] = {"loader": [], "npz_loader": []}
    starts: list[float] = []
    for epoch in range(EPOCHS + 1):  # the first is not counted: it starts the workers and fills the page cache
        for name in rates:
            started = time.perf_counter()
            steps = ours.sampler.steps
            batches = (one for (one,) in islice(ours.read(epoch * steps), steps)) if name == "loader" else iter(public)
            samples = len(next(batches)["features"])
            if name == "loader" and epoch:
                starts.append(time.perf_counter() - started)
            samples += sum(len(one["features"]) for one in batches)
            if epoch:
                rates[name].append(samples / (time.perf_counter() - started))
    ours.close()
    middle = {name: statistics.median(values) for name, values in rates.items()}
    rows = [{"name": name, "value": value, "unit": "clips/s"} for name, value in middle.items()]
    rows.append({"name": "later_epoch_begins", "value": 1000 * statistics.median(starts), "unit": "ms"})
    rows.append({"name": "batch_read", "value": _read_ms(reader, batch, frames), "unit": "ms a clip"})
    for name, share in checked_shares(scratch / "shards", np.arange(len(clips)), batch).items():
        rows.append({"name": name, "value": share, "unit": "of the rate without"})
    return rows, {"loader_speed": middle["loader"] / middle["npz_loader"]}


def _read_ms(reader: ShardReader, batch: int, frames: int) -> float:
    """Milliseconds a clip of batches read in this process."""
    rng, seconds = np.random.default_rng(1), []
    for _ in range(20):
        rows = rng.integers(0, len(reader), batch)
        started = time.perf_counter()
        reader.read_rows(rows, np.arange(frames))
        seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds) / batch


def _write_npz(folder: Path, clips: list[Clip]) -> None:
    """Compresses the clips that differ and copies them for the others: each is a file of its own, as it would be."""
    for number, clip in enumerate(clips):
        if number < KINDS:
            write_npz(folder, clip, np.savez_compressed)
        else:
            shutil.copytree(folder / clips[number % KINDS].video_id, folder / clip.video_id)


class _ClipBatches:
    """The video half of what training reads: every clip several times an epoch, frames drawn."""

    def __init__(self, clips: RegionClips, frames: int, passes: int) -> None:
        self._clips, self._choice, self._passes = clips, FrameChoice(frames), passes

    def __len__(self) -> int:
        return len(self._clips) * self._passes

    def read(self, samples: Sequence[int], epoch: int) -> dict[str, Tensor]:
        numbers = np.asarray(samples)
        return self._clips.read_batch(numbers % len(self._clips), self._choice, Draws((0, epoch), numbers))


class _Files(Dataset[dict[str, Tensor]]):
    """The public way: every item opens one npz a frame."""

    def __init__(self, folder: Path, clips: list[Clip], frames: int, regions: int) -> None:
        self._folder, self._frames, self._regions = folder, frames, regions
        self._ids = [clip.video_id for clip in clips]

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        features = torch.zeros(self._frames, self._regions, 2048)
        location = torch.zeros(self._frames, self._regions, 7)
        mask = torch.zeros(self._frames, self._regions, dtype=torch.bool)
        for slot in range(self._frames):
            # The files are those that this bench wrote a moment ago.
            with np.load(self._folder / self._ids[index] / f"{slot}.npz", allow_pickle=True) as file:
                boxes, size = file["bbox"], np.array([file["image_h"], file["image_w"]], np.int32)
                count = min(int(file["num_bbox"]), self._regions)
                features[slot, :count] = torch.from_numpy(file["x"][:count])
                location[slot, :count] = torch.from_numpy(location_vectors(boxes[:count], size))
                mask[slot, :count] = True
        return {"features": features, "location": location, "region_mask": mask}
