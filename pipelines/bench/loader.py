"""``regionvlp bench loader``: how fast batches come out of a loader, against one that opens one npz a frame.

Both are torch loaders with the same number of workers, which live as long as the loader, and deliver the same thing:
features, location vectors and a mask of F frames of each of B clips, in random order. Everything is in the page cache.
The baseline does what the public code does: one item at a time, one compressed npz a frame, float32. Ours read a batch
by the numbers of its rows in one go, in the dtype of the shards, with checksums.
"""

from __future__ import annotations

import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from regionvlp.errors import InputError
from regionvlp.pipelines.bench.clips import Clip, bench_manifest, draw_clips, write_npz, write_shard
from regionvlp.pipelines.bench.shards import checked_shares
from regionvlp.pipelines.output import console_for, json_option, write_json
from regionvlp.regions import location_vectors
from regionvlp.shards import RegionBatch, ShardReader, open_shards

CLIPS_PER_SHARD = 2
EPOCHS = 3
PASSES = 8  # of our loader over all clips in an epoch
KINDS = 8  # of clips that differ


@click.command("loader")
@click.option("--shards", "count", default=200, show_default=True, type=click.IntRange(1, 10_000), help="Of 2 clips.")
@click.option("--frames", default=1, show_default=True, type=click.IntRange(1, 64), help="Read of each clip.")
@click.option("--regions", default=30, show_default=True, type=click.IntRange(1, 300), help="Per frame.")
@click.option("--batch", default=64, show_default=True, type=click.IntRange(1, 4096), help="Clips of a batch.")
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1, 256), help="Of either loader.")
@click.option("--format", "kind", default="hdf5", show_default=True, metavar="hdf5|parquet", help="Of our shards.")
@click.option("--dir", "folder", type=click.Path(path_type=Path), help="On which disk.  [the system's for temporaries]")
@json_option
def command(folder: Path | None, json_path: str | None, **options: Any) -> None:
    """Time loaders alone: batches of rows out of shards, against one npz a frame, one item at a time."""
    if folder is not None and not folder.is_dir():
        raise InputError(f"no folder at {folder}", "give --dir a folder that exists")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        rows, ratios = measure(Path(scratch), **options)
    result = {"device": platform.processor() or platform.machine(), "rows": rows, "ratios": ratios}
    console = console_for(json_path)
    for row in rows:
        console.print(f"  {row['name']:36} {row['value']:>12,.3f} {row['unit']}")
    for name, ratio in ratios.items():
        console.print(f"  {name:36} {ratio:>12,.1f} times")
    write_json(result, json_path)


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
    reader.prepare()
    order = [rng.permutation(len(clips)) for _ in range(EPOCHS)]
    # Ours is through with all clips before its workers are at full speed, so an epoch of it has them several times.
    longer = [np.concatenate([rng.permutation(len(clips)) for _ in range(PASSES)]) for _ in range(EPOCHS)]
    ours = _loader(_RowBatches(reader, frames), _pieces(longer, batch), None, workers)
    public = _loader(_Files(scratch / "npz", clips, frames, regions), order, batch, workers)
    rates: dict[str, list[float]] = {"loader": [], "npz_loader": []}
    starts: list[float] = []
    for epoch in range(EPOCHS + 1):  # the first is not counted: it starts the workers and fills the page cache
        for name, loader in (("loader", ours), ("npz_loader", public)):
            started = time.perf_counter()
            iterator = iter(loader)
            samples = len(next(iterator)["features"])
            if name == "loader" and epoch:
                starts.append(time.perf_counter() - started)
            samples += sum(len(one["features"]) for one in iterator)
            if epoch:
                rates[name].append(samples / (time.perf_counter() - started))
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


def _loader(
    dataset: Dataset[dict[str, Tensor]], epochs: Iterable[Any], batch: int | None, workers: int
) -> DataLoader[dict[str, Tensor]]:
    return DataLoader(
        dataset,
        batch_size=batch,
        sampler=_Epochs(list(epochs)),
        num_workers=workers,
        persistent_workers=True,
        multiprocessing_context="fork",
    )


class _Epochs(torch.utils.data.Sampler[Any]):
    """Goes through the next of some orders each time it is asked."""

    def __init__(self, orders: list[Any]) -> None:
        self._orders, self._epoch = orders, 0

    def __iter__(self) -> Any:
        order = self._orders[self._epoch % len(self._orders)]
        self._epoch += 1
        return iter(order)

    def __len__(self) -> int:
        return len(self._orders[0])


def _pieces(orders: list[NDArray[np.int64]], batch: int) -> list[list[NDArray[np.int64]]]:
    return [[order[start : start + batch] for start in range(0, len(order), batch)] for order in orders]


class _RowBatches(Dataset[dict[str, Tensor]]):
    """What the training loader reads with, alone: a batch by the numbers of its rows."""

    def __init__(self, reader: ShardReader, frames: int) -> None:
        self._reader, self._frames = reader, frames

    def __getitem__(self, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        # Read to where the process that trains will find it: the way of torch's own collate function.
        out = RegionBatch.empty(self._reader.manifest, len(rows), self._frames)
        features = _shared_like(torch.from_numpy(out.features))
        batch = self._reader.read_rows(rows, np.arange(self._frames), replace(out, features=features.numpy()))
        return {
            "features": features,
            "location": torch.from_numpy(location_vectors(batch.boxes, batch.image_size)),
            "region_mask": torch.from_numpy(batch.mask()),
        }


def _shared_like(tensor: Tensor) -> Tensor:
    """A tensor of that shape and dtype in shared memory, with nothing in it yet."""
    untyped: Any = torch.UntypedStorage
    memory: Tensor = torch.empty(0, dtype=torch.uint8).set_(untyped._new_shared(tensor.nbytes, device="cpu"))
    return memory.view(tensor.dtype).view(tensor.shape)


class _Files(Dataset[dict[str, Tensor]]):
    """The public way: every item opens one npz a frame."""

    def __init__(self, folder: Path, clips: list[Clip], frames: int, regions: int) -> None:
        self._folder, self._frames, self._regions = folder, frames, regions
        self._ids = [clip.video_id for clip in clips]

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
