"""``regionvlp data``: what is twice in a data set, and which captions do not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from regionvlp.errors import InputError
from regionvlp.pipelines.output import console_for, json_option, many, write_json

if TYPE_CHECKING:
    from regionvlp.search.cleaning import DuplicateRow, PairRow

SHOWN = 20  # rows on a terminal
_LIST = click.option(
    "--list", "list_path", type=click.Path(path_type=Path), metavar="FILE", help="Write all as a CSV table."
)


@click.group("data")
def command() -> None:
    """Clean a data set by an index of it ('regionvlp index'). Nothing is deleted: what to keep or drop is listed."""


@command.command("duplicates")
@click.argument("index", type=click.Path(path_type=Path))
@click.option(
    "--least", default=0.5, show_default=True, type=click.FloatRange(0, 1), help="Share of a file that is copies."
)
@_LIST
@json_option
def duplicates_command(index: Path, least: float, list_path: Path | None, json_path: str | None) -> None:
    """List files of INDEX that show the same as others, one of each group to keep."""
    from regionvlp.search.cleaning import duplicates
    from regionvlp.search.index import open_index

    _check(list_path)
    rows = duplicates(open_index(index), least)
    dropped = sum(row.action == "drop" for row in rows)
    console = console_for(json_path)
    console.print(f"{many(len({row.group for row in rows}), 'group')} of files that show the same; {dropped:,} to drop")
    for row in rows[:SHOWN]:
        console.print(
            f"{row.group:4}  {row.action}  {row.video_id}  {100 * row.share:.0f} % of it, "
            f"{row.start:.1f} to {row.end:.1f} s",
            markup=False,
        )
    _rest(len(rows), list_path)
    _write(list_path, rows)
    write_json({"groups": len({row.group for row in rows}), "rows": [asdict(row) for row in rows]}, json_path)


@command.command("rank-pairs")
@click.argument("index", type=click.Path(path_type=Path))
@click.option("--captions", required=True, type=click.Path(path_type=Path), help="Table of video_id and caption.")
@click.option("--split", help="Which rows of the split column.  [all]")
@click.option("--allow-missing", is_flag=True, help="Leave out captions whose video the index does not hold.")
@click.option("--least", default=0.5, show_default=True, type=click.FloatRange(0, 1), help="Agreement; chance is 0.5.")
@_LIST
@json_option
def rank_pairs_command(
    index: Path,
    captions: Path,
    split: str | None,
    allow_missing: bool,
    least: float,
    list_path: Path | None,
    json_path: str | None,
) -> None:
    """Rank captions by how well they fit their videos in INDEX, the worst first.

    A caption agrees with its video by the share of the other videos that it fits less well.
    """
    from regionvlp.data.captions import load_captions, resolve_videos
    from regionvlp.search.cleaning import rank_pairs
    from regionvlp.search.evaluate import gallery
    from regionvlp.search.index import open_index

    _check(list_path)
    opened = open_index(index)
    known = resolve_videos(load_captions(captions, split=split), gallery(opened)[0], allow_missing=allow_missing)
    rows = rank_pairs(opened, [(row.video_id, row.caption) for row in known], least)
    dropped = sum(row.action == "drop" for row in rows)
    console = console_for(json_path)
    console.print(f"{many(len(rows), 'pair')}, the worst first; {dropped:,} to drop (agreement below {least:g})")
    for row in rows[:SHOWN]:
        console.print(f"{row.agreement:5.2f}  {row.action}  {row.video_id}  {row.caption[:100]}", markup=False)
    _rest(len(rows), list_path)
    _write(list_path, rows)
    write_json({"rows": [asdict(row) for row in rows]}, json_path)


def _check(path: Path | None) -> None:
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise InputError(f"cannot write {path}", "give --list a file in a folder that exists")


def _rest(count: int, list_path: Path | None) -> None:
    if count > SHOWN and list_path is None:
        click.echo(f"      and {count - SHOWN:,} more: --list FILE writes all", err=True)


def _write(path: Path | None, rows: Sequence[DuplicateRow | PairRow]) -> None:
    if path is None:
        return
    import csv
    import io

    from regionvlp.store.files import replacing

    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(asdict(rows[0])), lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    with replacing(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
