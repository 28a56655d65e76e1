"""Text-video retrieval on one's own captions: any table of ``video_id`` and ``caption``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from regionvlp.data.formats import Queries
from regionvlp.evaluation.suite.base import Items, Task


@dataclass(frozen=True)
class OwnTable:
    """See :class:`regionvlp.evaluation.suite.base.Benchmark`."""

    name: str = "csv"
    dataset: str = ""
    task: Task = "retrieval"
    splits: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ("R1", "R5", "R10", "R50", "MedR", "MeanR")

    def read(self, annotations: Path, split: str | None, queries: Queries | None) -> Items:
        label = "-".join(part.lower() for part in (annotations.stem, split) if part)
        return Items(annotations, "auto", split, queries, label)


benchmark = OwnTable()
