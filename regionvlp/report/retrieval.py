"""The page that shows what a model finds, and which regions answer which words.

In: metrics, training logs, retrieval results with their encodings. Out: one HTML file; a word under the mouse shows its
regions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regionvlp.report.page import write_page
from regionvlp.report.plots import CURVE_HEIGHT, CURVE_WIDTH, Plot, drawn


@dataclass(frozen=True)
class RegionBox:
    """A region's box in percent of the picture, and its class."""

    left: float
    top: float
    width: float
    height: float
    label: str


@dataclass(frozen=True)
class GroundedFrame:
    """A frame, its regions, and for each word of the caption how strongly each region answers it (0 to 1)."""

    picture: str
    width: int
    height: int
    boxes: Sequence[RegionBox]
    answers: Sequence[Sequence[float]]


@dataclass(frozen=True)
class Hit:
    """One video of a ranking: a thumbnail, its similarity, and whether it is the right one."""

    picture: str
    video_id: str
    similarity: float
    right: bool


@dataclass(frozen=True)
class Example:
    """One query: the caption's words, where the right video came out, the first of the ranking, the right video."""

    words: Sequence[str]
    shown: int  # the word whose regions are shown first
    rank: float
    hits: Sequence[Hit]
    frames: Sequence[GroundedFrame]


def write_retrieval_page(
    path: Path,
    *,
    title: str,
    story: str,
    facts: Mapping[str, str],
    table: Sequence[Mapping[str, Any]],
    plots: Sequence[Plot],
    best: Sequence[Example],
    worst: Sequence[Example],
) -> None:
    """Draws the page.

    Args:
        path: the HTML file.
        title, story: heading, and a sentence or two below it.
        facts: name and value of each line of the summary.
        table: rows of the same keys; the first key is the row's name.
        plots: training curves.
        best, worst: queries to show.
    """
    write_page(
        path,
        "retrieval.html.j2",
        title=title,
        story=story,
        facts=dict(facts),
        table=[dict(row) for row in table],
        plots=[drawn(plot) for plot in plots],
        groups=[("Found first", best), ("Missed by most", worst)],
        width=CURVE_WIDTH,
        height=CURVE_HEIGHT,
    )
