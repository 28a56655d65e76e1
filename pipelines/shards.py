"""``regionvlp shards``: look into shard folders and check them."""

from __future__ import annotations

from pathlib import Path

import click

from regionvlp.errors import InputError
from regionvlp.pipelines.output import console_for, human_bytes, json_option, write_json


@click.group("shards")
def command() -> None:
    """Inspect, verify and draw region shards."""


@command.command("inspect")
@click.argument("shards", type=click.Path(path_type=Path))
@json_option
def inspect_command(shards: Path, json_path: str | None) -> None:
    """Say what SHARDS holds: format, detector, counts, sizes."""
    from rich.table import Table

    from regionvlp.shards import inspect

    summary = inspect(shards)
    table = Table(show_header=False, show_edge=False, pad_edge=False)
    for name, value in summary.items():
        if name == "detector":
            value = ", ".join(str(value.get(key)) for key in ("name", "family", "weights") if value.get(key))[:72]
        if value not in ({}, None):
            table.add_row(name.replace("_", " "), _shown(name, value))
    console_for(json_path).print(table)
    write_json(summary, json_path)


def _shown(name: str, value: object) -> str:
    """A value of the summary as people read it."""
    if name == "bytes":
        return human_bytes(float(str(value)))
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.1f}" if isinstance(value, float) else str(value)


@command.command("verify")
@click.argument("shards", type=click.Path(path_type=Path))
@click.option("--quick", is_flag=True, help="Sizes and counts only; do not read the data back.")
@json_option
def verify_command(shards: Path, quick: bool, json_path: str | None) -> int:
    """Check SHARDS against its plan, receipts and checksums; a line per fault, exit code 1 if there are any.

    Recorded failures of single videos are not faults.
    """
    from regionvlp.shards import Manifest, inspect, verify

    if not any(shards.glob("shard-*")):
        Manifest.read(shards)  # a folder of something else is a mistake, not a fault
    faults = verify(shards, deep=not quick, planned=True)
    console = console_for(json_path)
    for fault in faults:
        console.print(f"fault: {fault}", markup=False)
    if faults:
        console.print(
            "to mend: run the extraction again; for a damaged shard, delete its receipt (shard-NNNNN.json) first"
        )
    else:
        summary = inspect(shards)
        console.print(f"whole: {summary['videos']:,} videos, {summary['frames']:,} frames")
    write_json({"faults": [str(fault) for fault in faults]}, json_path)
    return 1 if faults else 0


@command.command("draw")
@click.argument("shards", type=click.Path(path_type=Path))
@click.option("--videos", required=True, type=click.Path(path_type=Path), help="Folder that was extracted.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("regions.html"), show_default=True, help="Page.")
@click.option("--count", type=click.IntRange(1, 1000), default=12, show_default=True, help="Videos to show.")
@click.option("--detector", metavar="NAME|PATH", help="Whose class names to show.  [classes by number]")
def draw_command(shards: Path, videos: Path, out: Path, count: int, detector: str | None) -> None:
    """Draw videos with their strongest regions on one HTML page."""
    from regionvlp.extract.detector import find_detector
    from regionvlp.report.regions import summary_facts, write_regions_page
    from regionvlp.shards import inspect, open_shards

    reader = open_shards(shards)
    names = find_detector(detector).objects if detector else None
    step = max(1, len(reader) // count)
    chosen = reader.video_ids[::step][:count]
    missing = [video_id for video_id in chosen if not (videos / video_id).is_file()]
    if missing:
        raise InputError(f"{videos} does not hold '{missing[0]}'", "give the folder that was extracted")
    wanted = ("format", "dtype", "videos", "frames", "regions", "failures", "partial")
    summary = inspect(shards)
    write_regions_page(
        out,
        title=f"Regions in {shards}",
        facts={
            "detector": str(summary["detector"].get("name")),
            **summary_facts({name: summary[name] for name in wanted}),
            "on disk": human_bytes(summary["bytes"]),
        },
        videos=[(videos / video_id, reader[video_id], "") for video_id in chosen],
        class_names=names.read_text(encoding="utf-8").splitlines() if names else None,
    )
    console_for(None).print(f"drew {len(chosen)} of {len(reader)} videos: {out.resolve().as_uri()}", markup=False)
