"""What every command shares: the console, ``--json``, and counted tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from regionvlp.errors import InputError

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


def json_option(command: CommandT) -> CommandT:
    """Adds ``--json FILE`` (``-`` is standard output), which :func:`report` then honours."""
    return click.option(
        "--json", "json_path", metavar="FILE", help="Also write the result as JSON ('-': standard output)."
    )(command)


def console_for(json_path: str | None) -> Console:
    """The console for people: standard output, or standard error where JSON takes standard output."""
    return Console(stderr=json_path == "-", highlight=False, soft_wrap=True)


def write_json(values: Mapping[str, Any], json_path: str | None) -> None:
    """Writes ``values`` where ``--json`` says; does nothing without it.

    Raises:
        InputError: the file cannot be written.
    """
    if json_path is None:
        return
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    if json_path == "-":
        click.echo(text, nl=False)
        return
    try:
        Path(json_path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {json_path}: {error.strerror}", "choose another file for --json") from None


def counted_table(title: str, column: str, counts: Mapping[str, int]) -> Table:
    """A small table of counts, largest first."""
    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    table.add_column(column)
    table.add_column("count", justify="right")
    for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        table.add_row(name, f"{count:,}")
    return table


def human_bytes(count: float) -> str:
    """``1536`` as ``1.5 kB``; decimal units, as disks are sold."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")
