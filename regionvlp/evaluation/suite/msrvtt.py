"""MSR-VTT text-video retrieval: 1k-A, 1k-B, and the full test split (spec of data sets, section 1)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from regionvlp.data.formats import Queries
from regionvlp.errors import InputError, nearest
from regionvlp.evaluation.suite.base import Items, Task


@dataclass(frozen=True)
class MSRVTT:
    """See :class:`regionvlp.evaluation.suite.base.Benchmark`."""

    name: str = "msrvtt"
    dataset: str = "MSRVTT"
    task: Task = "retrieval"
    splits: tuple[str, ...] = ("1ka", "1kb", "full")
    metrics: tuple[str, ...] = ("R1", "R5", "R10", "R50", "MedR", "MeanR")

    def read(self, annotations: Path, split: str | None, queries: Queries | None) -> Items:
        split = split or self.splits[0]
        if split not in self.splits:
            raise InputError(f"MSR-VTT has no split '{split}'", nearest(split, self.splits) or "see --help")
        return Items(annotations, "msrvtt", f"{split}-test", queries, f"msrvtt-{split}")


benchmark = MSRVTT()
