"""``regionvlp shards drop`` and ``rename``: videos out for good, or by another name."""

from __future__ import annotations

from pathlib import Path

import click

from regionvlp.errors import InputError
from regionvlp.pipelines.output import console_for, json_option, write_json
from regionvlp.progress import ProgressBar


@click.command("drop")
@click.argument("shards", type=click.Path(path_type=Path))
@click.argument("video_ids", metavar="[ID]...", nargs=-1)
@click.option("--list", "listed", metavar="FILE", type=click.Path(path_type=Path), help="More ids, one a line.")
@json_option
def drop_command(shards: Path, video_ids: tuple[str, ...], listed: Path | None, json_path: str | None) -> int:
    """Take videos out of SHARDS for good, as after a takedown.

    The shards that hold them are written anew without them, and no later run can store them there again. Receipts list
    them as failures of the reason 'dropped'.
    """
    from regionvlp.shards.editing import drop

    ids = [*video_ids, *(_lines(listed) if listed else ())]
    if not ids:
        raise InputError("no video to drop", "give ids, or --list FILE")
    _check_folder(shards)
    console = console_for(json_path)
    with ProgressBar("drop", "shards", "shards") as bar:
        done = drop(shards, ids, lambda number: bar.advance(1, 1), bar.begin)
    console.print(f"{done.videos:,} videos dropped; {len(done.shards):,} shards written anew")
    if done.aside:
        names = ", ".join(done.aside[:3]) + (", ..." if len(done.aside) > 3 else "")
        console.print(f"set-aside/ may hold them still: delete {names}", markup=False)
    write_json({"videos": done.videos, "shards": done.shards, "set_aside": done.aside}, json_path)
    return 0


@click.command("rename")
@click.argument("shards", type=click.Path(path_type=Path))
@click.argument("names", metavar="[OLD NEW]...", nargs=-1)
@click.option("--list", "listed", metavar="FILE", type=click.Path(path_type=Path), help="More, OLD tab NEW a line.")
@json_option
def rename_command(shards: Path, names: tuple[str, ...], listed: Path | None, json_path: str | None) -> int:
    """Give videos in SHARDS other ids: in the data, the receipts (which keep the old ones) and the plan."""
    from regionvlp.shards.editing import rename

    if len(names) % 2:
        raise InputError(f"'{names[-1]}' has no new name", "give pairs: OLD NEW")
    pairs = list(zip(names[::2], names[1::2], strict=True))
    for number, line in enumerate(_lines(listed) if listed else (), 1):
        old, tab, new = line.partition("\t")
        if not tab:
            raise InputError(f"{listed}, line {number} has no tab between two names", "write OLD tab NEW")
        pairs.append((old, new))
    if not pairs:
        raise InputError("no video to rename", "give OLD NEW, or --list FILE")
    if len({old for old, _ in pairs}) < len(pairs):
        raise InputError("a video is renamed twice", "name every video once")
    _check_folder(shards)
    console = console_for(json_path)
    with ProgressBar("rename", "shards", "shards") as bar:
        done = rename(shards, dict(pairs), lambda number: bar.advance(1, 1), bar.begin)
    console.print(f"{done.videos:,} videos renamed; {len(done.shards):,} shards written anew")
    write_json({"videos": done.videos, "shards": done.shards}, json_path)
    return 0


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}", "check --list") from None


def _check_folder(shards: Path) -> None:
    if not shards.is_dir():
        raise InputError(f"no shard folder at {shards}", "check the path")
