"""``regionvlp shards``: look into shard folders, check and repair them; what fills and empties them is next door."""

from __future__ import annotations

from pathlib import Path

import click

from regionvlp.errors import InputError
from regionvlp.pipelines.output import console_for, human_bytes, json_option, write_json
from regionvlp.pipelines.shards_draw import command as draw_command
from regionvlp.pipelines.shards_edit import drop_command, rename_command
from regionvlp.pipelines.shards_transfer import COMMANDS


@click.group("shards")
def command() -> None:
    """Inspect, check, draw, convert, import and export region shards."""


for other in (draw_command, drop_command, rename_command, *COMMANDS):
    command.add_command(other)


@command.command("inspect")
@click.argument("shards", type=click.Path(path_type=Path))
@json_option
def inspect_command(shards: Path, json_path: str | None) -> None:
    """Say what SHARDS holds: format, detector, counts, sizes."""
    from rich.table import Table

    from regionvlp.shards import inspect
    from regionvlp.shards.pictures import FrameManifest, FrameReceipt
    from regionvlp.shards.pictures.format import holds_frames
    from regionvlp.store.summary import summarise

    summary = summarise(shards, FrameManifest, FrameReceipt) if holds_frames(shards) else inspect(shards)
    table = Table(show_header=False, show_edge=False, pad_edge=False)
    for name, value in summary.items():
        if name == "detector":
            words = {key: str(value[key]) for key in ("name", "family", "weights") if value.get(key)}
            value = ", ".join(word[:16] if key == "weights" else word for key, word in words.items())
        if value not in ({}, None):
            table.add_row(name.replace("_", " "), _shown(name, value))
    console_for(json_path).print(table)
    write_json(summary, json_path)


def _shown(name: str, value: object) -> str:
    """A value of the summary as people read it."""
    if name == "bytes":
        return human_bytes(float(str(value)))
    if isinstance(value, dict):
        return ", ".join(f"{key.replace('_', ' ')} {item}" for key, item in value.items() if item is not None)
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
    from regionvlp.shards import Manifest, Receipt, verify
    from regionvlp.shards.pictures import FrameReceipt, verify_frames
    from regionvlp.shards.pictures.format import holds_frames
    from regionvlp.store.receipts import read_receipts_as

    frames = holds_frames(shards)
    if not frames and not any(shards.glob("shard-*")):
        Manifest.read(shards)  # a folder of something else is a mistake, not a fault
    faults = verify_frames(shards, deep=not quick) if frames else verify(shards, deep=not quick, planned=True)
    console = console_for(json_path)
    for fault in faults:
        console.print(f"fault: {fault}", markup=False)
    if faults:
        mend = "" if all(fault.undone for fault in faults) else f"'regionvlp shards repair {shards}', then "
        console.print(f"to mend: {mend}the command that made the shards, again", markup=False)
    else:
        receipts = list(read_receipts_as(FrameReceipt if frames else Receipt, shards))
        videos, pictures = (sum(getattr(receipt, name) for receipt in receipts) for name in ("videos", "frames"))
        console.print(f"whole: {videos:,} videos, {pictures:,} frames")
    write_json({"faults": [str(fault) for fault in faults]}, json_path)
    return 1 if faults else 0


@command.command("repair")
@click.argument("shards", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@json_option
def repair_command(shards: Path, dry_run: bool, json_path: str | None) -> int:
    """Set aside what 'verify' finds bad in SHARDS, so that the command that made it does exactly that again.

    Nothing is deleted: bad files go into SHARDS/set-aside. Exit code 1 where nothing can do a bad shard again.
    """
    from regionvlp.shards import read_plan
    from regionvlp.shards.pictures import repair_frames
    from regionvlp.shards.pictures.format import holds_frames
    from regionvlp.shards.repair import repair

    done = (repair_frames if holds_frames(shards) else repair)(shards, dry_run=dry_run)
    console = console_for(json_path)
    for fault in done.faults:
        console.print(f"fault: {fault}", markup=False)
    if done.restored:
        console.print("manifest.json: restored from a data file that is whole")
    for name in done.moved:
        console.print(f"{'would be ' if dry_run else ''}set aside: {name}", markup=False)
    lost = done.redo if read_plan(shards) is None else []
    if lost:
        console.print(f"no plan: nothing knows what shards {', '.join(map(str, lost))} held; import them anew")
    elif done.redo and not dry_run:
        console.print(f"{len(done.redo):,} shards to do again: run the command that made them")
    elif not done.moved:
        undone = sum(fault.undone for fault in done.faults)
        left = f"; {undone:,} shards to do: run the command that made them" if undone else ""
        console.print(f"nothing to repair{left}")
    write_json(
        {"faults": [str(fault) for fault in done.faults], "moved": done.moved, "redo": done.redo, "dry_run": dry_run},
        json_path,
    )
    return 1 if lost else 0


@command.command("card")
@click.argument("shards", type=click.Path(path_type=Path))
def card_command(shards: Path) -> int:
    """Write the dataset card of SHARDS, its README.md; one that was edited is left alone."""
    from regionvlp.extract.run.card import CARD_NAME, write_card

    if not write_card(shards):
        raise InputError(f"{shards / CARD_NAME} was edited, so it is left as it is", "move it away to have a new one")
    console_for(None).print(f"wrote {shards / CARD_NAME}", markup=False)
    return 0
