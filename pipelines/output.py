"""What every command shares: the console, ``--json``, and counted tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from regionvlp.config import merge
from regionvlp.errors import InputError

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


def json_option(command: CommandT) -> CommandT:
    """Adds ``--json FILE`` (``-`` is standard output), which :func:`write_json` then honours."""
    return click.option(
        "--json",
        "json_path",
        metavar="FILE",
        callback=_check_json_path,
        help="Also write the result as JSON ('-': standard output).",
    )(command)


def _check_json_path(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Finds out before the work, not after it, that its result has nowhere to go."""
    if value not in (None, "-") and (Path(value).is_dir() or not Path(value).absolute().parent.is_dir()):
        raise InputError(f"cannot write {value}", "give --json a file in a folder that exists")
    return value


def options_layer(keys: Mapping[str, str], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, as a layer of a configuration: ``keys`` says which dotted key each one sets."""
    layer: dict[str, Any] = {}
    for name, value in options.items():
        if value is not None:
            for part in reversed(keys[name].split(".")):
                value = {part: value}
            layer = merge(layer, value)
    return layer


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
    from regionvlp.store.files import replacing

    try:
        with replacing(Path(json_path)) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {json_path}: {error.strerror}", "choose another file for --json") from None


def say_failures(console: Console, folder: Path, counts: Mapping[str, int], most: int) -> None:
    """Failures by reason, then which videos they are and why, at most ``most`` of them."""
    from regionvlp.store.receipts import BaseReceipt, read_receipts_as

    if not counts:
        return
    console.print(counted_table("failures", "reason", counts))
    failures = [failure for receipt in read_receipts_as(BaseReceipt, folder) for failure in receipt.failures]
    for failure in failures[:most]:
        console.print(f"  {failure.video_id}: {failure.message}", markup=False)
    if len(failures) > most:
        console.print(f"  and {len(failures) - most:,} more: regionvlp status {folder} --failures", markup=False)


def counted_table(title: str, column: str, counts: Mapping[str, int]) -> Table:
    """A small table of counts, largest first."""
    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    table.add_column(column)
    table.add_column("count", justify="right")
    for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        table.add_row(name, f"{count:,}")
    return table


def many(count: int, what: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{count:,} {what}" + ("s" if count != 1 else "")


def human_bytes(count: float) -> str:
    """``1536`` as ``1.5 kB``; decimal units, as disks are sold."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def human_time(seconds: float) -> str:
    """``93784`` as ``1 d 2 h``: the two largest units."""
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    whole = max(1, round(seconds))
    first = next(i for i, (_, size) in enumerate(units) if whole >= size)
    name, size = units[first]
    text = f"{whole // size} {name}"
    if first + 1 < len(units) and whole % size >= units[first + 1][1]:
        smaller, unit = units[first + 1]
        text += f" {whole % size // unit} {smaller}"
    return text
