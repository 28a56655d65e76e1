"""``regionvlp status``: how far an extraction is."""

from __future__ import annotations

from pathlib import Path

import click

from regionvlp.extract.status import folder_status
from regionvlp.pipelines.output import console_for, counted_table, human_bytes, json_option, write_json


@click.command("status")
@click.argument("shards", type=click.Path(path_type=Path))
@json_option
def command(shards: Path, json_path: str | None) -> None:
    """Show how far the extraction into SHARDS is."""
    status = folder_status(shards)
    console = console_for(json_path)
    console.print(f"{shards}: {status.shards_done:,} of {status.shards:,} shards done")
    part = f" ({status.partial:,} only in part)" if status.partial else ""
    console.print(
        f"  videos {status.videos:,}: {status.done:,} done{part}, {status.failed:,} failed, {status.left:,} left"
    )
    console.print(f"  frames {status.frames:,}, regions {status.regions:,}, {human_bytes(status.bytes)}")
    if status.failures:
        console.print(counted_table("failures", "reason", status.failures))
    write_json(status.to_dict(), json_path)
