"""Markdown of the cards that stand in folders: what shards and shared models say of themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping


def table(rows: Mapping[str, str]) -> Iterator[str]:
    """The lines of a table of names and values without a head."""
    yield "| | |"
    yield "|---|---|"
    for name, value in rows.items():
        yield f"| {cell(name)} | {cell(value)} |"


def cell(text: str) -> str:
    """A text as it may stand in a cell: in one line, and nothing of it markup."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())
