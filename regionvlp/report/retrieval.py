"""The page that shows what a model finds, and which regions answer which words.

In: metrics, curves, queries with what became of them. Out: one HTML file; a word that is chosen shows its regions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regionvlp.report.heat import HeatBox
from regionvlp.report.page import write_page
from regionvlp.report.plots import CURVE_HEIGHT, CURVE_WIDTH, Plot, drawn

MOST_WORDS = 32  # of a query that have regions to show


@dataclass(frozen=True)
class GroundedFrame:
    """A frame with the regions that answer the words; ``picture`` is empty where the video was not to be had."""

    picture: str
    width: int
    height: int
    caption: str
    boxes: Sequence[HeatBox]


@dataclass(frozen=True)
class Hit:
    """One video of a ranking: a thumbnail if there is one, its similarity, and whether it is the right one."""

    picture: str
    video_id: str
    similarity: float
    right: bool


@dataclass(frozen=True)
class Example:
    """One query: its words, the one that is shown first; the right video, its rank and frames; the ranking."""

    query: str
    words: Sequence[str]
    shown: int
    video_id: str
    rank: float
    frames: Sequence[GroundedFrame]
    hits: Sequence[Hit]

    @property
    def answered(self) -> frozenset[int]:
        """The words that some region answers."""
        return frozenset(box.word for frame in self.frames for box in frame.boxes if box.word < MOST_WORDS)


def write_retrieval_page(
    path: Path,
    *,
    title: str,
    lead: str,
    facts: Mapping[str, str],
    table: Sequence[Mapping[str, Any]],
    plots: Sequence[Plot],
    groups: Sequence[tuple[str, Sequence[Example]]],
    unit: str = "step",
    notes: Sequence[str] = (),
    queries: Sequence[tuple[float, str, str, str]] = (),
    left_out: int = 0,
) -> None:
    """Draws the page.

    Args:
        path: the HTML file.
        title, lead: heading, and a sentence or two below it.
        facts: name and value of each line of the summary.
        table: rows of the same keys; the first key is the row's name.
        plots: curves. unit: what they count along.
        groups: queries to show, under a heading each.
        notes: what could not be drawn and why, a line each.
        queries: rank, query, right video and the first one of the ranking; ``left_out`` more are not listed.
    """
    write_page(
        path,
        "retrieval.html.j2",
        title=title,
        lead=lead,
        facts=dict(facts),
        table=[dict(row) for row in table],
        plots=[drawn(plot) for plot in plots],
        unit=unit,
        groups=[(heading, examples) for heading, examples in groups if examples],
        most_words=min(MOST_WORDS, max((len(one.words) for _, group in groups for one in group), default=0)),
        notes=notes,
        queries=queries,
        left_out=left_out,
        width=CURVE_WIDTH,
        height=CURVE_HEIGHT,
    )
