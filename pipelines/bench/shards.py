"""``regionvlp bench shards``: how fast shards are written and read, against the public layout of one npz a frame.

Everything runs in this process, on one core, in turns; of three rounds the middle one counts. What both sides are given
is what a detector gives: float32 regions of one frame after another. What ours write is complete, with checks,
checksums, flushes to the disk and receipts; the public layout has none of these.

The features are drawn like those of real regions (six photos of the original bottom-up-attention model, 36 regions
each): 34 % zeros, the others with a mean of 0.92 and a mean square of 3.8. How well npz compresses depends on that.
"""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from regionvlp.errors import InputError
from regionvlp.pipelines.output import console_for, human_bytes, json_option, write_json
from regionvlp.regions import FrameRegions, VideoRegions
from regionvlp.shards import Manifest, ShardReader, ShardWriter, open_shards

WIDTH = 2048
HEIGHT_WIDTH = (360, 640)
ZEROS, SHAPE, SCALE = 0.345, 0.286, 3.23  # share of zeros; gamma distribution of the rest
ROUNDS = 3
LAYOUTS = ("npz", "plain_npz")
FORMATS = ("hdf5", "parquet")


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
        value = human_bytes(row["value"]) if row["unit"] == "bytes" else f"{row['value']:,.0f} {row['unit']}"
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


@dataclass(frozen=True)
class _Clip:
    """What a detector found in a video."""

    video_id: str
    frames: Sequence[FrameRegions]


class _Bench:
    """One run: fills ``rows`` and ``ratios``."""

    FRAMES = 8

    def __init__(self, scratch: Path, videos: int, regions: int, dtype: str) -> None:
        self.scratch, self.regions, self.dtype = scratch, regions, dtype
        self.rng = np.random.default_rng(0)
        kinds = [[self._frame() for _ in range(self.FRAMES)] for _ in range(min(videos, 8))]
        self.clips = [_Clip(f"clip{n:05d}.mp4", kinds[n % len(kinds)]) for n in range(videos)]
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
        """All clips as a shard, from regions in float32 to the receipt."""
        folder = self.scratch / kind
        settings: dict[str, Any] = {"format": kind, "dtype": self.dtype, "frames": self.FRAMES, "regions": self.regions}
        wanted = Manifest(**settings, feature_width=WIDTH, shard_size=len(self.clips), detector={}, video={})
        manifest = Manifest.create_or_check(folder, wanted)
        with ShardWriter(folder, 0, manifest) as writer:
            for clip in self.clips:
                writer.add(
                    VideoRegions.from_frames(
                        clip.video_id,
                        clip.frames,
                        frame_index=range(self.FRAMES),
                        frame_time=np.arange(self.FRAMES) / 2,
                        image_size=[HEIGHT_WIDTH] * self.FRAMES,
                        slots=self.regions,
                        dtype=manifest.memory_dtype.name,
                    )
                )
            return writer.finish().frames

    def write_npz(self, kind: str, save: Callable[..., None]) -> int:
        """One file a frame, with the fields of the public layout."""
        height, width = HEIGHT_WIDTH
        for clip in self.few:
            folder = self.scratch / kind / clip.video_id
            folder.mkdir(parents=True)
            for number, frame in enumerate(clip.frames):
                info = {
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
                save(folder / f"{number}.npz", **fields, image_h=height, image_w=width, info=info)
        return len(self.few) * self.FRAMES

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

    def _frame(self) -> FrameRegions:
        count = self.regions
        features = self.rng.gamma(SHAPE, SCALE, (count, WIDTH)).astype(np.float32)
        features[self.rng.random((count, WIDTH)) < ZEROS] = 0
        boxes = self.rng.random((count, 4)).astype(np.float32) * 300
        boxes[:, 2:] += boxes[:, :2]
        return FrameRegions(
            features=features,
            boxes=boxes,
            scores=np.sort(self.rng.random(count).astype(np.float32))[::-1].copy(),
            class_ids=self.rng.integers(0, 1600, count).astype(np.int32),
            attribute_ids=self.rng.integers(0, 400, count).astype(np.int32),
            attribute_scores=self.rng.random(count).astype(np.float32),
        )
