"""``regionvlp bench shards``: how fast shards are written and read, against the public layout of one npz a frame.

Everything runs in this process, on one core, in turns; of three rounds the middle one counts. What both sides are given
is what a detector gives: float32 regions of one frame after another. What ours write is complete, with checks,
checksums, flushes to the disk and receipts; the public layout has none of these.
"""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from regionvlp.errors import InputError
from regionvlp.pipelines.bench.clips import bench_manifest, draw_clips, write_npz, write_shard
from regionvlp.pipelines.output import console_for, human_bytes, json_option, write_json
from regionvlp.shards import ShardReader, open_shards

ROUNDS = 3
LAYOUTS = ("npz", "plain_npz")
FORMATS = ("hdf5", "parquet")
SHARES = ("read_with_checksums", "batch_read_with_checksums")


@click.command("shards")
@click.option("--videos", default=160, show_default=True, type=click.IntRange(2, 100_000), help="Of 8 frames each.")
@click.option("--regions", default=30, show_default=True, type=click.IntRange(1, 300), help="Per frame.")
@click.option("--dtype", default="float16", show_default=True, metavar="float16|float32|uint8", help="Of our shards.")
@click.option("--dir", "folder", type=click.Path(path_type=Path), help="On which disk.  [the system's for temporaries]")
@json_option
def command(videos: int, regions: int, dtype: str, folder: Path | None, json_path: str | None) -> None:
    """Time writing and reading of HDF5 and Parquet shards against one npz per frame, compressed (the public layout) and
    not.

    Cold means after the system was asked to drop the files from its cache, which it does for files as such, while names
    and places of the npz files stay known to it.
    """
    if folder is not None and not folder.is_dir():
        raise InputError(f"no folder at {folder}", "give --dir a folder that exists")
    with tempfile.TemporaryDirectory(dir=folder) as scratch, one_core():
        bench = _Bench(Path(scratch), videos, regions, dtype)
        bench.run()
    result = {"device": platform.processor() or platform.machine(), "rows": bench.rows, "ratios": bench.ratios}
    console = console_for(json_path)
    console.print(f"{videos * _Bench.FRAMES:,} frames of {regions} regions, {dtype}, on one core")
    for row in bench.rows:
        value = f"{row['value']:,.0f} {row['unit']}"
        if row["unit"] == "bytes":
            value = human_bytes(row["value"])
        elif row["value"] < 10:
            value = f"{row['value']:.3f} {row['unit']}"
        console.print(f"  {row['name']:36} {value:>16}")
    for name, ratio in bench.ratios.items():
        console.print(f"  {name:36} {ratio:>10,.1f} times")
    write_json(result, json_path)


@contextmanager
def one_core() -> Iterator[None]:
    """Keeps this process and its threads on one core."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_setaffinity") else set()
    if cores:
        os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if cores:
            os.sched_setaffinity(0, cores)


class _Bench:
    """One run: fills ``rows`` and ``ratios``."""

    FRAMES = 8

    def __init__(self, scratch: Path, videos: int, regions: int, dtype: str) -> None:
        self.scratch, self.regions, self.dtype = scratch, regions, dtype
        self.rng = np.random.default_rng(0)
        self.clips = draw_clips(videos, self.FRAMES, regions, self.rng)
        # A file a frame takes so long to write that a quarter of the clips has to stand for all.
        self.few = self.clips[: max(1, videos // 4)]
        self.rows: list[dict[str, Any]] = []
        self.ratios: dict[str, float] = {}
        self.rates: dict[str, float] = {}

    def run(self) -> None:
        for kind in FORMATS:
            self.write_shards(kind)  # what is imported and looked up at first use is no part of a rate
        self.writes()
        self.sizes()
        self.reads()
        for kind in FORMATS:
            for what in ("random_read", "write", "sequential_read", "random_read_cold"):
                self.ratios[f"{kind}_{what}"] = self.rates[f"{kind}_{what}"] / self.rates[f"npz_{what}"]
            for what in ("random_read", "write", "sequential_read", "random_read_cold"):
                ratio = self.rates[f"{kind}_{what}"] / self.rates[f"plain_npz_{what}"]
                self.ratios[f"{kind}_{what}_vs_plain_npz"] = ratio

    def writes(self) -> None:
        works: dict[str, Callable[[], int]] = {
            "hdf5": lambda: self.write_shards("hdf5"),
            "parquet": lambda: self.write_shards("parquet"),
            "npz": lambda: self.write_npz("npz", np.savez_compressed),
            "plain_npz": lambda: self.write_npz("plain_npz", np.savez),
        }
        self.race("write", works, before=self.clear)

    def sizes(self) -> None:
        for kind in (*FORMATS, *LAYOUTS):
            frames = len(self.few if kind in LAYOUTS else self.clips) * self.FRAMES
            size = sum(path.stat().st_size for path in self.files(kind))
            self.rows.append({"name": f"{kind}_bytes_per_frame", "value": size / frames, "unit": "bytes"})

    def reads(self) -> None:
        readers = {kind: open_shards(self.scratch / kind) for kind in FORMATS}
        everything = [(clip.video_id, slot) for clip in self.clips for slot in range(self.FRAMES)]
        shuffled = [everything[i] for i in self.rng.permutation(len(everything))]
        few = {clip.video_id for clip in self.few}
        chosen = {
            kind: [one for one in shuffled if kind not in LAYOUTS or one[0] in few] for kind in (*FORMATS, *LAYOUTS)
        }
        in_order = {kind: sorted(frames) for kind, frames in chosen.items()}

        def works(frames: dict[str, list[tuple[str, int]]]) -> dict[str, Callable[[], int]]:
            ours = {kind: self.frames_of(reader, frames[kind]) for kind, reader in readers.items()}
            return {**ours, **{kind: self.npz_frames_of(kind, frames[kind]) for kind in LAYOUTS}}

        for reader in readers.values():
            reader.read(reader.video_ids[:1], [0])  # opens the file, as a loader does once
        self.race("random_read", works(chosen))
        batches = {kind: self.batches_of(reader, chosen[kind]) for kind, reader in readers.items()}
        self.race("random_read_in_batches", batches)
        whole = {kind: self.videos_of(reader) for kind, reader in readers.items()}
        self.race("sequential_read", {**works(in_order), **whole})
        self.race("random_read_cold", works(chosen), before=self.drop)
        for kind, reader in readers.items():
            for name, share in checked_shares(self.scratch / kind, reader.rows([f[0] for f in chosen[kind]])).items():
                self.rows.append({"name": f"{kind}_{name}", "value": share, "unit": "of the rate without"})
        for name in SHARES:
            values = [row["value"] for row in self.rows if row["name"] in {f"{kind}_{name}" for kind in FORMATS}]
            self.rows.append({"name": name, "value": min(values), "unit": "of the rate without"})

    def race(self, what: str, works: dict[str, Callable[[], int]], before: Callable[[str], None] | None = None) -> None:
        """Runs the works in turns; the middle rate of each becomes a row.

        Not the best one: on a machine with other work, that favours what is over before it is disturbed.
        """
        rates: dict[str, list[float]] = {kind: [] for kind in works}
        for _ in range(ROUNDS):
            for kind, work in works.items():
                if before is not None:
                    before(kind)
                started = time.perf_counter()
                frames = work()
                rates[kind].append(frames / (time.perf_counter() - started))
        for kind, rounds in rates.items():
            rate = statistics.median(rounds)
            self.rates[f"{kind}_{what}"] = rate
            self.rows.append({"name": f"{kind}_{what}", "value": rate, "unit": "frames/s"})

    def write_shards(self, kind: str) -> int:
        manifest = bench_manifest(kind, self.dtype, self.FRAMES, self.regions, len(self.clips))
        return write_shard(self.scratch / kind, 0, self.clips, manifest).frames

    def write_npz(self, kind: str, save: Callable[..., None]) -> int:
        return sum(write_npz(self.scratch / kind, clip, save) for clip in self.few)

    @staticmethod
    def frames_of(reader: ShardReader, frames: list[tuple[str, int]]) -> Callable[[], int]:
        """Reads one frame after another."""

        def work() -> int:
            for video_id, slot in frames:
                reader.frame(video_id, slot)
            return len(frames)

        return work

    @staticmethod
    def batches_of(reader: ShardReader, frames: list[tuple[str, int]], size: int = 32) -> Callable[[], int]:
        """Reads as a loader does: one frame of each of 32 videos at a time."""

        def work() -> int:
            for start in range(0, len(frames), size):
                ids, slots = zip(*frames[start : start + size], strict=True)
                reader.read(ids, np.array(slots)[:, None])
            return len(frames)

        return work

    def videos_of(self, reader: ShardReader) -> Callable[[], int]:
        """Reads one video after another in the order of the file."""
        return lambda: sum(video.num_frames for video in reader.values())

    def npz_frames_of(self, kind: str, frames: list[tuple[str, int]]) -> Callable[[], int]:
        """Opens one file after another and reads all that is in it, as the public loader does."""
        folder = self.scratch / kind

        def work() -> int:
            for video_id, slot in frames:
                # The files are those that this bench wrote a moment ago.
                with np.load(folder / video_id / f"{slot}.npz", allow_pickle=True) as file:
                    for name in file.files:
                        file[name]
            return len(frames)

        return work

    def files(self, kind: str) -> list[Path]:
        return [path for path in (self.scratch / kind).rglob("*") if path.is_file()]

    def clear(self, kind: str) -> None:
        """Removes what an earlier round wrote, and lets the disk come to rest."""
        shutil.rmtree(self.scratch / kind, ignore_errors=True)
        os.sync()

    def drop(self, kind: str) -> None:
        """Has the system forget the files' contents; what is not yet on the disk must get there first."""
        if not hasattr(os, "posix_fadvise"):
            return
        for path in self.files(kind):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


def checked_shares(folder: Path, rows: NDArray[np.int64], batch: int = 64) -> dict[str, float]:
    """How much of the rate without checksums is left with them: frame by frame, and in batches of one frame a video.

    Both take turns every few milliseconds, the middle of all turns counts, and what counts is the processor's time, so
    that what else the machine does falls on both alike or not at all. Everything has to be in the page cache.
    """
    readers = [open_shards(folder, checksums=checks) for checks in (False, True)]
    rows = np.resize(rows, max(len(rows), 12 * batch))
    pieces = [rows[start : start + batch] for start in range(0, len(rows) - batch + 1, batch)]

    def one_by_one(reader: ShardReader, rows: NDArray[np.int64]) -> None:
        for row in rows.tolist():
            reader.frame(ids[row], row % frames)

    def together(reader: ShardReader, rows: NDArray[np.int64]) -> None:
        reader.read_rows(rows, rows[:, None] % frames)

    ids, frames = readers[0].video_ids, int(readers[0].num_frames_of(rows).min())
    shares = {}
    for name, work in zip(SHARES, (one_by_one, together), strict=True):
        seconds: list[list[float]] = [[], []]
        for turn in range(ROUNDS * len(pieces)):
            for which in (0, 1) if turn % 2 else (1, 0):
                started = time.process_time()
                work(readers[which], pieces[turn % len(pieces)])
                seconds[which].append(time.process_time() - started)
        shares[name] = statistics.median(seconds[0]) / statistics.median(seconds[1])
    return shares
