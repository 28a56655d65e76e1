"""``regionvlp status``: how far an extraction is."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from regionvlp.extract.status import folder_status
from regionvlp.pipelines.output import console_for, human_bytes, json_option, say_failures, write_json
from regionvlp.shards import read_receipts


@click.command("status")
@click.argument("shards", type=click.Path(path_type=Path))
@click.option("--failures", is_flag=True, help="List every failed video, also in the JSON.")
@json_option
def command(shards: Path, failures: bool, json_path: str | None) -> None:
    """Show how far the extraction into SHARDS is."""
    status = folder_status(shards)
    console = console_for(json_path)
    console.print(f"{shards}: {status.shards_done:,} of {status.shards:,} shards done")
    part = f" ({status.partial:,} only in part)" if status.partial else ""
    console.print(
        f"  videos {status.videos:,}: {status.done:,} done{part}, {status.failed:,} failed, {status.left:,} left"
    )
    console.print(f"  frames {status.frames:,}, regions {status.regions:,}, {human_bytes(status.bytes)}")
    if status.lost:
        console.print(f"  {status.lost:,} shards have lost their data; the next extraction does them again")
    say_failures(console, shards, status.failures, most=sys.maxsize if failures else 3)
    write_json({**status.to_dict(), **(_listed(shards) if failures else {})}, json_path)


def _listed(shards: Path) -> dict[str, Any]:
    """Every failed video with its reason, and every one that was used only in part."""
    receipts = list(read_receipts(shards))
    return {
        "failed_videos": [asdict(failure) for receipt in receipts for failure in receipt.failures],
        "partial_videos": [asdict(partial) for receipt in receipts for partial in receipt.partial],
    }
