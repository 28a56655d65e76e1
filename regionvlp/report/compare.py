"""The page of two checkpoints side by side on the same queries.

In: two folders that ``regionvlp eval`` left. Out: one HTML file.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from regionvlp.errors import InputError
from regionvlp.evaluation.ranks import Ranked
from regionvlp.report.evaluation import MOST_LISTED, hits_of, read_evaluation, recall_plot
from regionvlp.report.page import write_page
from regionvlp.report.plots import CURVE_HEIGHT, CURVE_WIDTH, drawn

SHOWN = 6  # queries a side
Pair = tuple[Ranked, Ranked]


def pairs_of(one: Sequence[Ranked], other: Sequence[Ranked]) -> list[Pair]:
    """The queries that both have, which are those of the same sentence and right video, in the order of the first."""
    waiting = defaultdict[tuple[str, str], deque[Ranked]](deque)
    for row in other:
        waiting[row.query, row.video_id].append(row)
    found = []
    for row in one:
        same = waiting[row.query, row.video_id]
        if same:
            found.append((row, same.popleft()))
    return found


def write_comparison_page(path: Path, one: Path, other: Path) -> None:
    """Draws the page.

    Args:
        path: the HTML file. one, other: the folders, called A and B.

    Raises:
        InputError: one of them cannot be read, they share no query, or they ranked unequally many videos.
    """
    (metrics_a, rows_a), (metrics_b, rows_b) = read_evaluation(one), read_evaluation(other)
    pairs = pairs_of(rows_a, rows_b)
    if not pairs:
        raise InputError(f"{one} and {other} share no query", "evaluate both checkpoints on the same annotations")
    galleries = int(metrics_a["gallery"]), int(metrics_b["gallery"])
    if galleries[0] != galleries[1]:
        raise InputError(
            f"{one} ranked {galleries[0]:,} videos and {other} {galleries[1]:,}: their ranks cannot be compared",
            "evaluate both on the same gallery",
        )
    sides = {"A": [a for a, _ in pairs], "B": [b for _, b in pairs]}
    gains = sorted(pairs, key=lambda pair: pair[0].rank - pair[1].rank)  # A's gains first
    apart = len(rows_a) + len(rows_b) - 2 * len(pairs)
    write_page(
        path,
        "compare.html.j2",
        title="Two checkpoints on the same queries",
        lead=_lead(pairs),
        facts={
            "A": str(metrics_a.get("checkpoint", one)),
            "B": str(metrics_b.get("checkpoint", other)),
            "queries": f"{len(pairs):,} that both have" + (f"; {apart:,} that only one has are left out" * bool(apart)),
            "gallery": f"{galleries[0]:,}",
        },
        table=_table(pairs),
        plots=[drawn(recall_plot(sides, galleries[0]))],
        groups=[
            ("A finds what B does not", [_side_by_side(pair) for pair in gains if _gain(pair) > 0][:SHOWN]),
            ("B finds what A does not", [_side_by_side(pair) for pair in gains[::-1] if _gain(pair) < 0][:SHOWN]),
        ],
        queries=[_listed(pair) for pair in sorted(pairs, key=lambda pair: -abs(_gain(pair)))[:MOST_LISTED]],
        left_out=max(0, len(pairs) - MOST_LISTED),
        width=CURVE_WIDTH,
        height=CURVE_HEIGHT,
    )


def _gain(pair: Pair) -> float:
    """By how many ranks A is better."""
    return pair[1].rank - pair[0].rank


def _lead(pairs: Sequence[Pair]) -> str:
    count = Counter(np.sign(_gain(pair)) for pair in pairs)
    return (
        f"A ranks the right video better for {count[1.0]:,} of {len(pairs):,} queries, B for {count[-1.0]:,}; "
        f"{count[0.0]:,} are equal."
    )


def _table(pairs: Sequence[Pair]) -> list[dict[str, str]]:
    ranks = np.array([[a.rank, b.rank] for a, b in pairs])  # [Q, 2]
    rows = [(f"R@{k}, %", 100 * (ranks == 1 if k == 1 else ranks - 1 < k).mean(0)) for k in (1, 5, 10, 50)]
    rows += [("median rank", np.median(ranks, 0)), ("mean rank", ranks.mean(0))]
    return [{"": name, "A": f"{a:.1f}", "B": f"{b:.1f}", "B less A": f"{b - a:+.1f}"} for name, (a, b) in rows]


def _side_by_side(pair: Pair) -> dict[str, Any]:
    a, b = pair
    return {"query": a.query, "video_id": a.video_id, "sides": [("A", a.rank, hits_of(a)), ("B", b.rank, hits_of(b))]}


def _listed(pair: Pair) -> tuple[float, float, str, str]:
    a, b = pair
    return a.rank, b.rank, a.query, a.video_id
