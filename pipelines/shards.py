"""``regionvlp shards``: look into shard folders and check them."""

from __future__ import annotations

from pathlib import Path

import click

from regionvlp.pipelines.output import console_for, json_option, write_json


@click.group("shards")
def command() -> None:
    """Inspect and verify region shards."""


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
        shown = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
        table.add_row(name.replace("_", " "), shown)
    console_for(json_path).print(table)
    write_json(summary, json_path)


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
    faults = verify(shards, deep=not quick)
    console = console_for(json_path)
    for fault in faults:
        console.print(f"fault: {fault}", markup=False)
    if not faults:
        summary = inspect(shards)
        console.print(f"whole: {summary['videos']:,} videos, {summary['frames']:,} frames")
    write_json({"faults": [str(fault) for fault in faults]}, json_path)
    return 1 if faults else 0
