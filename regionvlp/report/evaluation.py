"""The page of an evaluation: figures, successes and failures with word-region heat, the rank of every query.

In: the folder that ``regionvlp eval`` leaves (``metrics.json``, ``ranks.parquet``). Out: one HTML file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from regionvlp.errors import InputError
from regionvlp.evaluation.metrics import CUTOFFS
from regionvlp.evaluation.ranks import RANKS_NAME, Ranked, read_ranks
from regionvlp.report.plots import Curve, Plot
from regionvlp.report.retrieval import Example, Hit, write_retrieval_page

METRICS_NAME = "metrics.json"
MOST_LISTED = 1000  # queries in the table of a page
SHOWN_HITS = 5
NAMES = (*(f"R{k}" for k in CUTOFFS), "MedR", "MeanR")
DIRECTIONS = (("text to video", "t2v", "chance"), ("video to text", "v2t", "chance_v2t"))
FACTS = ("checkpoint", "annotations", "split", "shards", "videos", "frames", "regions", "queries", "gallery")
ExampleOf = Callable[[Ranked], Example]


def is_evaluation(folder: Path) -> bool:
    """Whether a folder is one that ``regionvlp eval`` left."""
    return (folder / METRICS_NAME).is_file()


def read_evaluation(folder: Path) -> tuple[dict[str, Any], list[Ranked]]:
    """The figures of an evaluation, and what became of each query.

    Raises:
        InputError: it is none, or one of before there was a table of ranks.
    """
    path, hint = folder / METRICS_NAME, "name a folder below the 'eval' of a checkpoint"
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}", hint) from None
    if not isinstance(metrics, dict) or not all(isinstance(metrics.get(key), dict) for _, key, _ in DIRECTIONS):
        raise InputError(f"{path} holds no figures of 'regionvlp eval'", hint)
    rows = read_ranks(folder / RANKS_NAME)
    if not rows:
        raise InputError(f"{folder / RANKS_NAME} holds no query", "run 'regionvlp eval' again")
    return metrics, rows


def chosen(rows: Sequence[Ranked], count: int) -> tuple[list[Ranked], list[Ranked]]:
    """At most ``count`` queries whose video is first by the widest margin, and as many with the worst ranks above 1."""
    found = [row for row in rows if row.rank == 1]
    missed = [row for row in rows if row.rank > 1]
    return sorted(found, key=_margin, reverse=True)[:count], sorted(missed, key=lambda row: -row.rank)[:count]


def _margin(row: Ranked) -> float:
    return row.top_scores[0] - row.top_scores[1] if len(row.top_scores) > 1 else 0.0


def plain_example(row: Ranked) -> Example:
    """A query with its ranking, without frames and pictures."""
    return Example(row.query, row.query.split(), 0, row.video_id, row.rank, (), hits_of(row))


def hits_of(row: Ranked, picture: Callable[[str], str] = lambda video_id: "") -> list[Hit]:
    """The first of a query's ranking. ``picture`` gives a thumbnail's address, or nothing."""
    pairs = list(zip(row.top_ids, row.top_scores, strict=True))[:SHOWN_HITS]
    return [Hit(picture(video_id), video_id, score, video_id == row.video_id) for video_id, score in pairs]


def write_evaluation_page(
    path: Path,
    folder: Path,
    metrics: Mapping[str, Any],
    rows: Sequence[Ranked],
    *,
    count: int = 6,
    example: ExampleOf = plain_example,
    notes: Sequence[str] = (),
) -> None:
    """Draws the page.

    Args:
        path: the HTML file. folder, metrics, rows: see :func:`read_evaluation`.
        count: queries that went best and, as many, worst. example: draws one. notes: what it could not draw.
    """
    best, worst = chosen(rows, count)
    listed = sorted(rows, key=lambda row: -row.rank)[:MOST_LISTED]
    write_retrieval_page(
        path,
        title=f"Evaluation {folder.resolve().name}",
        lead=_lead(metrics, rows),
        facts={
            name: f"{v:,}" if isinstance(v := metrics[name], int) else str(v) for name in FACTS if metrics.get(name)
        },
        table=figures(metrics),
        plots=[recall_plot({"this model": rows, "a random order": None}, int(metrics["gallery"]))],
        unit="first",
        groups=[
            ("Found first", [example(row) for row in best]),
            ("Missed by most", [example(row) for row in worst]),
        ],
        notes=notes,
        queries=[(row.rank, row.query, row.video_id, row.top_ids[0]) for row in listed],
        left_out=len(rows) - len(listed),
    )


def _lead(metrics: Mapping[str, Any], rows: Sequence[Ranked]) -> str:
    first, gallery, annotated = sum(row.rank == 1 for row in rows), metrics["gallery"], metrics["annotated_videos"]
    words = f"{first:,} of {len(rows):,} queries find their video first among {gallery:,}; "
    words += f"the middle one has rank {np.median([row.rank for row in rows]):g}."
    if gallery < annotated:
        words += f" Only {gallery:,} of {annotated:,} videos were there: not comparable with figures on all of them."
    return words


def figures(metrics: Mapping[str, Any]) -> list[dict[str, str]]:
    """The rows of the page's table: both directions, each with a random order's."""
    found = []
    for title, key, chance in DIRECTIONS:
        for name, values in ((title, metrics[key]), (f"{title}, a random order", metrics[chance])):
            found.append({"": name, **{k: f"{values[k]:.1f}" if k in values else "" for k in NAMES}})
    return found


def recall_plot(models: Mapping[str, Sequence[Ranked] | None], gallery: int) -> Plot:
    """The share of queries whose video is among the first k, for each k; of None that of a random order."""
    curves = []
    for name, rows in models.items():
        if rows is None:
            curves.append(Curve(name, [(1.0, 100 / gallery), (float(gallery), 100.0)]))
            continue
        # As the metrics count: among the first k where fewer than k stand before it; first, where none does.
        ranks = np.sort([row.rank for row in rows])
        places = np.unique(np.geomspace(1, gallery, 200).round())
        inside = np.where(places == 1, (ranks == 1).sum(), np.searchsorted(ranks - 1, places, side="left"))
        shares = 100 * inside / len(ranks)
        curves.append(Curve(name, list(zip(places.tolist(), shares.tolist(), strict=True))))
    return Plot("queries found among the first k, %", curves)
