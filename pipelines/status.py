"""``regionvlp status``: how far an extraction is, and who is at work on it."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from regionvlp.pipelines.output import (
    console_for,
    counted_table,
    human_bytes,
    human_time,
    json_option,
    say_failures,
    write_json,
)

if TYPE_CHECKING:
    from regionvlp.extract.run.status import InFlight, Status

_MOST_WORKERS = 40  # rows of the live view


@click.command("status")
@click.argument("shards", type=click.Path(path_type=Path))
@click.option("--failures", is_flag=True, help="List every failed video, also in the JSON.")
@click.option("--watch", is_flag=True, help="Show it live until nothing is left; Ctrl-C ends it.")
@click.option("--every", type=click.FloatRange(0.2), default=2.0, show_default=True, help="Seconds between two looks.")
@click.option("--stale-after", type=float, default=300.0, show_default=True, help="Silence that counts as death.")
@json_option
def command(shards: Path, failures: bool, watch: bool, every: float, stale_after: float, json_path: str | None) -> None:
    """Show how far the extraction into SHARDS is, and which worker is at what."""
    from regionvlp.extract.run.status import folder_status

    status = folder_status(shards, stale_after)
    console = console_for(json_path)
    if watch:
        console.soft_wrap = False  # the live view counts its lines
        status = _watch(shards, status, every, stale_after, console)
    else:
        console.print(_view(shards, status), soft_wrap=False)
        say_failures(console, shards, status.failures, most=sys.maxsize if failures else 3)
    write_json({**status.to_dict(), **(_listed(shards) if failures else {})}, json_path)


def _watch(shards: Path, status: Status, every: float, stale_after: float, console: Console) -> Status:
    """Looks again and again, until nothing is left and nobody is at work, or until Ctrl-C."""
    from rich.live import Live

    from regionvlp.extract.run.status import folder_status

    def view() -> RenderableType:
        failed = [counted_table("failures", "reason", status.failures)] if status.failures else []
        return Group(_view(shards, status), *failed)

    try:
        with Live(view(), console=console, auto_refresh=False) as live:
            while status.left or status.in_flight:
                time.sleep(every)
                status = folder_status(shards, stale_after)
                live.update(view(), refresh=True)
    except KeyboardInterrupt:
        pass  # the usual way to leave
    return status


def _view(shards: Path, status: Status) -> RenderableType:
    """What there is, what is left, and a line for each worker."""
    handled = status.done + status.failed
    part = f" ({status.partial:,} only in part)" if status.partial else ""
    lines = [
        f"{status.shards_done:,} of {status.shards:,} shards done in {shards}",
        f"  videos {status.videos:,}: {status.done:,} done{part}, {status.failed:,} failed, {status.left:,} left",
        f"  frames {status.frames:,}, regions {status.regions:,}, {human_bytes(status.bytes)}",
    ]
    if status.lost:
        lines.append(f"  {status.lost:,} shards have lost their data; the next extraction does them again")
    living = len(status.in_flight) - status.stale
    if status.in_flight:
        silent = f", {status.stale:,} silent" if status.stale else ""
        eta = "" if status.eta_seconds is None else f", about {human_time(status.eta_seconds)} left"
        lines.append(f"  {living:,} at work{silent}: {status.frames_per_second:,.1f} frames/s{eta}")
    elif status.left:
        lines.append("  nobody is at work on it; run the extraction again to go on")
    shown: list[RenderableType] = [Text("\n".join(lines))]
    if status.left:
        bar = Table.grid()  # a bar alone ends no line
        bar.add_row(ProgressBar(total=max(status.videos, 1), completed=handled, width=60))
        shown.append(bar)
    if status.in_flight:
        shown.append(_workers(status.in_flight))
    return Group(*shown)


def _workers(in_flight: list[InFlight]) -> Table:
    table = Table(show_edge=False, pad_edge=False, box=None)
    for name in ("shard", "videos", "frames/s", "for", "heard"):
        table.add_column(name, justify="right")
    table.add_column("worker", overflow="fold")
    for flight in in_flight[:_MOST_WORKERS]:
        heard = f"{human_time(flight.silent)} ago"
        table.add_row(
            str(flight.shard),
            f"{flight.videos:,}/{flight.of_videos:,}",
            f"{flight.frames_per_second:,.1f}",
            human_time(flight.seconds),
            f"{heard}, stale" if flight.stale else heard,
            flight.worker,
            style="yellow" if flight.stale else None,
        )
    if len(in_flight) > _MOST_WORKERS:
        table.add_row("", "", "", "", "", f"and {len(in_flight) - _MOST_WORKERS:,} more")
    return table


def _listed(shards: Path) -> dict[str, Any]:
    """Every failed video with its reason, and every one that was used only in part."""
    from regionvlp.shards import read_receipts

    receipts = list(read_receipts(shards))
    return {
        "failed_videos": [asdict(failure) for receipt in receipts for failure in receipt.failures],
        "partial_videos": [asdict(partial) for receipt in receipts for partial in receipt.partial],
    }
