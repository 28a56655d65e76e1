"""``regionvlp extract --dry-run``: what an extraction would take, told before a disk is full or a week is gone."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path

from regionvlp.extract.run.estimate import Estimate, estimate
from regionvlp.extract.settings import ExtractConfig
from regionvlp.extract.sources import Source
from regionvlp.pipelines.output import console_for, human_bytes, human_time, write_json


def dry_run(source: Source, out: Path, config: ExtractConfig, json_path: str | None) -> None:
    """Prints the estimate. Writes nothing but the file that ``--json`` names."""
    told = estimate(source, out, config)
    free = shutil.disk_usage(next(folder for folder in (out, *out.absolute().parents) if folder.is_dir())).free
    console = console_for(json_path)
    for name, words in _lines(told, source, config, free):
        console.print(f"{name:<8} {words}", markup=False)
    write_json(asdict(told) | {"bytes": told.bytes, "seconds": told.seconds, "bytes_free": free}, json_path)


def _lines(told: Estimate, source: Source, config: ExtractConfig, free: int) -> list[tuple[str, str]]:
    video, shards = config.video, config.shards
    lines = [("source", f"{source.kind} {source.videos}")]
    if source.is_listed:
        lines.append(("root", source.root))
    earlier = "" if told.left == told.videos else f"; {told.new:,} of them new, {told.left:,} left to do"
    lines += [
        ("videos", f"{told.videos:,}{earlier}"),
        ("shards", f"{told.shards:,} of up to {told.shard_size:,} videos"),
        ("frames", f"{told.frames:,} at most, {video.frames} a video and one a picture"),
        (
            "on disk",
            f"{human_bytes(told.bytes)} at most: {shards.format}, {shards.dtype}, {config.detector.regions} regions, "
            f"{human_bytes(told.frame_bytes)} a frame; {human_bytes(free)} are free"
            + (", which is NOT ENOUGH" if free < told.bytes else ""),
        ),
    ]
    if told.looked.checked:
        missing = f", such as {told.looked.example}" if told.looked.missing else ""
        lines.append(
            ("files", f"{told.looked.missing:,} of {told.looked.checked:,} that were looked for are not there{missing}")
        )
    lines.append(("time", _time(told)))
    took = f"listing and planning took {told.list_seconds:.1f} s and {human_bytes(told.list_memory)} of memory"
    return [*lines, ("dry run", f"{took}; nothing was written")]


def _time(told: Estimate) -> str:
    found = told.calibration
    if found is None or told.seconds is None:
        return f"unknown: {told.why_not}"
    failed = sum(found.failures.values())
    return (
        f"about {human_time(told.seconds)} in one process on {found.device}: {found.decode_seconds:.3f} s a video to "
        f"decode and {found.detect_seconds:.3f} s a frame to detect, by {found.read} videos of the source"
        + (f" ({failed} others could not be read)" if failed else "")
        + f" and {found.detected} of their frames"
    )
