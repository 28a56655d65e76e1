"""Our retrieval numbers beside those that the papers print.

In: metrics of one direction, the data set they were measured on. Out: rows, or a table for a terminal.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any, Literal

import yaml
from rich.markup import escape
from rich.table import Table

Direction = Literal["t2v", "v2t"]
COLUMNS = ("R1", "R5", "R10", "R50", "MedR", "MeanR")
# Columns of a terminal from which on a column is shown.
NEEDS = {"R50": 90, "MeanR": 80, "setting": 80, "source": 100}
_TITLES = {"t2v": "text-to-video", "v2t": "video-to-text"}
_SETTINGS = {"zero_shot": "zero-shot", "fine_tuned": "fine-tuned"}


@cache
def paper_tables() -> tuple[dict[str, Any], ...]:
    """The tables of ``paper_tables.yaml``, as its head describes them."""
    return tuple(_paper_file()["tables"])


@cache
def paper_ablations() -> dict[str, dict[str, Any]]:
    """DemoVLP's rows about its losses, tables 4 to 6: variant -> ``table``, ``R1``, ``R5``, ``R10``."""
    found = _paper_file()["ablations"]
    return {
        name: {"table": row["table"], **dict(zip(found["columns"], row["values"], strict=True))}
        for name, row in found["rows"].items()
    }


@cache
def paper_cost() -> dict[str, dict[str, float | None]]:
    """DemoVLP's table 3: per component ``frozen_flops`` and so on, FLOPs in 1e9, parameters in 1e6."""
    table = _paper_file()["cost"]
    return {name: dict(zip(table["columns"], values, strict=True)) for name, values in table["rows"].items()}


def comparison_rows(
    metrics: Mapping[str, float],
    dataset: str,
    *,
    split: str = "",
    direction: Direction = "t2v",
    name: str = "ours",
    setting: str = "",
) -> list[dict[str, Any]]:
    """The papers' rows for a data set, and ours as the last one.

    Args:
        metrics: one direction of :func:`regionvlp.evaluation.metrics.retrieval_metrics`.
        dataset: ``MSRVTT``, ``DiDeMo``, ``LSMDC``, ``MSVD``; another one has no rows but ours.
        split: which gallery of the data set, ``1ka`` or ``full`` for MSR-VTT; rows of other galleries are left out.
        direction: which of the papers' tables.
        name: what to call our row.
        setting: ``zero-shot`` or ``fine-tuned`` where that is known of ours; then only such rows are returned.

    Returns:
        Per row ``method``, ``source`` (paper and table), ``setting``, and R1 R5 R10 R50 MedR MeanR or None. A method
        that several papers quote with the same figures stands once.
    """
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for table in paper_tables():
        if (table["dataset"].lower(), table["split"], table["direction"]) != (dataset.lower(), split, direction):
            continue
        for key, title in _SETTINGS.items():
            if setting not in ("", title):
                continue
            for method, *values in table.get(key, ()):
                figures = dict(zip(table["columns"], values, strict=True))
                source = f"{table['paper']}, table {table['table']}"
                row = {"method": method, "source": source, "setting": title}
                rows.setdefault((title, method, *values), row | {column: figures.get(column) for column in COLUMNS})
    ours = {"method": name, "source": "this run", "setting": setting}
    return [*rows.values(), ours | {column: metrics.get(column) for column in COLUMNS}]


def comparison_table(
    metrics: Mapping[str, float],
    dataset: str,
    *,
    split: str = "",
    direction: Direction = "t2v",
    name: str = "ours",
    setting: str = "",
    width: int = 120,
) -> Table:
    """:func:`comparison_rows` for a terminal, ours first; columns that no row fills are left out.

    Args:
        width: of the terminal. Where it is narrow whole columns go, the least important first, never digits.
    """
    *papers, ours = comparison_rows(metrics, dataset, split=split, direction=direction, name=name, setting=setting)
    rows = [ours, *papers]
    columns = [column for column in COLUMNS if any(row[column] is not None for row in rows)]
    columns = [column for column in columns if width >= NEEDS.get(column, 0)]
    table = Table(title=f"{dataset} {split}".strip() + f", {_TITLES[direction]}", title_justify="left")
    texts = [column for column in ("setting", "source") if width >= NEEDS[column]]
    table.add_column("method")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for column in texts:
        table.add_column(column, style="dim")
    for row in rows:
        figures = ("" if row[column] is None else f"{row[column]:.1f}" for column in columns)
        more = (row[column] for column in texts)
        table.add_row(escape(row["method"]), *figures, *more, style="bold" if row is ours else None)
    return table


def _paper_file() -> dict[str, Any]:
    text = (resources.files("regionvlp.evaluation") / "paper_tables.yaml").read_text(encoding="utf-8")
    values: dict[str, Any] = yaml.safe_load(text)
    return values
