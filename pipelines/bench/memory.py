"""``regionvlp bench memory``: whether an extraction's memory stays flat over thousands of clips.

In: how many clips. Out: ``{"device", "rows", "ratios"}`` with the curve of the worker's memory and of its decoding
processes', and how fast each still grows once it has warmed up.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from regionvlp.config import load_config
from regionvlp.extract.launch.launch import extract_folder
from regionvlp.extract.settings import ExtractConfig
from regionvlp.pipelines.bench.proc_table import descendants, require_proc, resident_bytes
from regionvlp.pipelines.output import console_for, json_option, write_json
from regionvlp.pipelines.toy.world import write_mp4
from regionvlp.progress import ProgressBar

SAMPLES = 100
WARM_UP = 0.2  # of the clips: buffers, caches and the allocator's arenas grow to their size
_DISTINCT = 40
_HEIGHT, _WIDTH, _FRAMES = 48, 64, 6
_BARS = "▁▂▃▄▅▆▇█"


@dataclass
class MemoryCurve:
    """Memory in bytes after so many clips: of the worker, and of the largest of its decoding processes.

    Attributes:
        others: child processes of before, which have nothing to do with it.
        pids: the decoding processes seen, one after the other and side by side.
    """

    others: frozenset[int] = frozenset()
    clips: list[int] = field(default_factory=list)
    worker: list[int] = field(default_factory=list)
    decoder: list[int] = field(default_factory=list)
    pids: set[int] = field(default_factory=set)

    def sample(self, clips: int) -> None:
        """Adds what this process and its children occupy now."""
        children = [pid for pid in descendants(os.getpid()) if pid not in self.others]
        self.pids.update(children)
        self.clips.append(clips)
        self.worker.append(resident_bytes(os.getpid()))
        self.decoder.append(max(map(resident_bytes, children), default=0))

    def slope(self, values: list[int]) -> float:
        """Bytes per clip by a straight line through the samples after the warm-up."""
        clips = np.array(self.clips)
        warm = clips >= WARM_UP * clips[-1]
        return float(np.polyfit(clips[warm], np.array(values)[warm], 1)[0])


@click.command("memory")
@click.option("--clips", default=5000, show_default=True, type=click.IntRange(100), help="How many are extracted.")
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1), help="Decoding processes.")
@json_option
def command(clips: int, workers: int, json_path: str | None) -> None:
    """Extract thousands of small clips with the toy detector and watch the memory of worker and decoders.

    The clips are forty distinct ones under many names; every one is opened, decoded, detected and written.
    """
    require_proc()
    console = console_for(json_path)
    with tempfile.TemporaryDirectory() as folder, ProgressBar("bench memory", "clips", "clips") as bar:
        bar.begin(clips)
        curve = watch(Path(folder), clips, workers, on_clip=lambda: bar.advance(1, 1))
    rows = rows_of(curve)
    values = {str(row["name"]): float(str(row["value"])) for row in rows}
    console.print(f"worker    {sparkline(curve.worker)}  {_range(curve.worker)}")
    console.print(f"decoders  {sparkline(curve.decoder)}  {_range(curve.decoder)}, {len(curve.pids)} processes")
    console.print(
        f"after the first {WARM_UP:.0%} of {clips:,} clips the worker grows by {values['worker_slope']:+.2f} and its "
        f"largest decoder by {values['decoder_slope']:+.2f} MB per 1,000 clips"
    )
    write_json({"device": f"{workers} decoding processes, cpu", "rows": rows, "ratios": {}}, json_path)


def watch(folder: Path, clips: int, workers: int, on_clip: Callable[[], None] = lambda: None) -> MemoryCurve:
    """Extracts ``clips`` small clips below ``folder`` in this process; returns what was seen on the way."""
    fabricate(folder / "videos", clips)
    config = load_config(
        ExtractConfig,
        {
            "detector": {"name": "toy", "device": "cpu", "regions": 10},
            "video": {"frames": 1, "workers": workers},
            "shards": {"size": 500},
        },
        source="the bench",
    )
    curve = MemoryCurve(others=frozenset(descendants(os.getpid())))
    done = 0

    def on_video(frames: int) -> None:
        nonlocal done
        done += 1
        if done % max(1, clips // SAMPLES) == 0:
            curve.sample(done)
        on_clip()

    extract_folder(folder / "videos", folder / "shards", config, on_video=on_video)
    return curve


def fabricate(folder: Path, clips: int) -> None:
    """Writes ``clips`` tiny clips, a few distinct ones under many names."""
    folder.mkdir(parents=True)
    for number in range(clips):
        path = folder / f"{number:05d}.mp4"
        if number < _DISTINCT:
            write_mp4(path, _pictures(number))
        else:
            os.link(folder / f"{number % _DISTINCT:05d}.mp4", path)


def _pictures(seed: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    patches = rng.integers(0, 256, (_FRAMES, _HEIGHT // 8, _WIDTH // 8, 3), dtype=np.uint8)
    return patches.repeat(8, axis=1).repeat(8, axis=2)


def rows_of(curve: MemoryCurve) -> list[dict[str, object]]:
    """The numbers of a curve, and the curve itself, as the rows of a bench."""

    def row(name: str, value: float, unit: str = "MB") -> dict[str, object]:
        return {"name": name, "value": float(value), "unit": unit}

    rows = [row("clips", curve.clips[-1], "clips"), row("decoder_processes", len(curve.pids), "processes")]
    for name, values in (("worker", curve.worker), ("decoder", curve.decoder)):
        rows += [row(f"{name}_peak", max(values) / 1e6), row(f"{name}_end", values[-1] / 1e6)]
        rows.append(row(f"{name}_slope", curve.slope(values) / 1e6 * 1000, "MB/1000 clips"))
        rows += [row(f"{name}_at_{c}", value / 1e6) for c, value in zip(curve.clips, values, strict=True)]
    return rows


def sparkline(values: list[int], width: int = 50) -> str:
    """``values`` as a line of bars from nothing to the largest."""
    parts = np.array_split(np.array(values, float), min(width, len(values)))
    top = max(max(values), 1)
    return "".join(_BARS[min(int(part.max() / top * len(_BARS)), len(_BARS) - 1)] for part in parts)


def _range(values: list[int]) -> str:
    return f"{min(values) / 1e6:.0f} to {max(values) / 1e6:.0f} MB"
