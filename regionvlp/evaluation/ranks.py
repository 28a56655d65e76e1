"""What became of each query of an evaluation: a table that anyone can audit, or compare with another model's.

In: a finished :class:`Retrieval`. Out: ``ranks.parquet``, a row for each query in the order of the annotations:

    query       string          the caption
    video_id    string          the right video
    rank        float64         of the right video, 1 for the first; of equally similar ones the mean of their ranks
    score       float32         its similarity
    top_ids     list<string>    the first ten videos of the ranking; equal ones in the gallery's order
    top_scores  list<float>     their similarities

Shape letters: Q queries, V videos.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from regionvlp.errors import InputError
from regionvlp.evaluation.metrics import text_to_video_ranks
from regionvlp.evaluation.retrieval import Retrieval
from regionvlp.store.files import replacing

RANKS_NAME = "ranks.parquet"
TOP = 10
SCHEMA = pa.schema(
    [
        ("query", pa.string()),
        ("video_id", pa.string()),
        ("rank", pa.float64()),
        ("score", pa.float32()),
        ("top_ids", pa.list_(pa.string())),
        ("top_scores", pa.list_(pa.float32())),
    ]
)


@dataclass(frozen=True)
class Ranked:
    """A query and what became of it: a row of the table, see the top of this file."""

    query: str
    video_id: str
    rank: float
    score: float
    top_ids: tuple[str, ...]
    top_scores: tuple[float, ...]


def ranked(run: Retrieval) -> Iterator[Ranked]:
    """The rows of a finished run, text to video."""
    ranks = 1 + text_to_video_ranks(run.similarity, run.target)
    for scores, caption, column, rank in zip(run.similarity, run.captions, run.target, ranks, strict=True):
        first = _first(scores, TOP)
        ids = tuple(run.video_ids[place] for place in first)
        values = tuple(scores[first].tolist())
        yield Ranked(caption.caption, run.video_ids[column], float(rank), float(scores[column]), ids, values)


def write_ranks(path: Path, run: Retrieval) -> None:
    """Writes the table of a run, whole or not at all."""
    table = pa.Table.from_pylist([vars(row) for row in ranked(run)], SCHEMA)
    with replacing(path) as temporary:
        pq.write_table(table, temporary)


def read_ranks(path: Path) -> list[Ranked]:
    """The rows of a table.

    Raises:
        InputError: there is none, or it is no such table.
    """
    hint = "run 'regionvlp eval' again, which writes it"
    try:
        table = pq.read_table(path).select(SCHEMA.names).cast(SCHEMA)
    except FileNotFoundError:
        raise InputError(f"{path.parent} holds no {path.name}", hint) from None
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"cannot read {path}: {str(error).splitlines()[0]}", hint) from None
    return [
        Ranked(**{**row, "top_ids": tuple(row["top_ids"]), "top_scores": tuple(row["top_scores"])})
        for row in table.to_pylist()
    ]


def _first(scores: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """Places of the ``count`` highest of [V], the highest first, equal ones in their order."""
    count = min(count, len(scores))
    least = np.partition(scores, len(scores) - count)[len(scores) - count]
    places = np.flatnonzero(scores >= least)
    return places[np.argsort(-scores[places], kind="stable")[:count]]
