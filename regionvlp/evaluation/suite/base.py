"""What a benchmark is: how its annotations are read, what is measured, and what the papers print beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from regionvlp.data.formats import CaptionFormat, Queries

Task = Literal["retrieval"]


@dataclass(frozen=True)
class Items:
    """What a benchmark wants to be evaluated: fields of :class:`regionvlp.data.settings.SourceSettings`.

    Attributes:
        captions: the annotation file or folder.
        format: of it. split, queries: the part of it; None for what a run's own settings say, or all.
        label: what results are filed under, such as ``msrvtt-1ka``.
    """

    captions: Path
    format: CaptionFormat
    split: str | None
    queries: Queries | None
    label: str


class Benchmark(Protocol):
    """One benchmark.

    Attributes:
        name: on the command line.
        dataset: what the papers' tables call it; empty where they do not know it.
        task: which kind of measurement.
        splits: the parts that can be measured, the usual one first; empty where a file decides.
        metrics: the columns of its table.
    """

    name: str
    dataset: str
    task: Task
    splits: Sequence[str]
    metrics: Sequence[str]

    def read(self, annotations: Path, split: str | None, queries: Queries | None) -> Items:
        """Where the queries of a split are, in annotations as they lie on disk.

        Raises:
            InputError: there is no such split.
        """
