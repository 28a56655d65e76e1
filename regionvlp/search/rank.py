"""Ranking: the exact product of a query with every clip, and the fusion of several rankings.

Shape letters: N clips of an index, D width of a vector.

Vectors lie on disk in half precision and are never converted as a whole: the product in half precision, whose error is
bounded, tells which clips can be among the best, and only these few are compared again in float32. The result is that
of float32 throughout, at the speed of reading half the bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regionvlp.search.encoders.base import Floats

RRF = 60  # Cormack, Clarke and Buettcher (2009): how little the first ranks count for more than the next
# A half-precision product of vectors of length 1: the query is rounded (a relative 2**-11 of its length) and so is the
# score (2**-12, below 1); the sum is formed in float32. Twice their sum, since two clips are compared, and some room.
_MARGIN = 2 * (2**-11 + 2**-12) + 2**-11
_BLOCK = 64  # scores
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Ranked:
    """The best clips for a query, best first.

    Attributes:
        rows: [n] int64, their numbers. scores: [n] float32, never rising.
    """

    rows: Rows
    scores: Floats

    def __len__(self) -> int:
        return len(self.rows)


class Gallery:
    """The pooled vectors of an index, in pieces.

    Args:
        pieces: [n_i, D] float16 each, memory-mapped; their rows are numbered through.
    """

    def __init__(self, pieces: Sequence[NDArray[np.float16]]) -> None:
        self._arrays = [piece for piece in pieces if len(piece)]
        self._pieces = [_tensor(piece) for piece in self._arrays]
        self._starts = np.cumsum([0, *map(len, self._arrays)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def vectors(self, rows: Rows) -> Floats:
        """[n, D] float32, of some rows."""
        found = np.empty((len(rows), self._arrays[0].shape[1] if self._arrays else 0), np.float32)
        piece = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(piece):
            mine = piece == number
            found[mine] = self._arrays[number][rows[mine] - self._starts[number]]
        return found

    def best(self, query: Floats, count: int, allowed: NDArray[np.bool_] | None = None) -> Ranked:
        """The ``count`` clips that are most similar to ``query`` [D], of length 1; of equal ones, the first.

        Args:
            allowed: [N] bool, which clips count; all by default.
        """
        import torch

        if not len(self):
            return Ranked(np.zeros(0, np.int64), np.zeros(0, np.float32))
        half = torch.from_numpy(np.asarray(query, np.float32)).half()
        # A linear layer takes a seventh less time than a product of matrix and vector.
        rough = torch.cat([torch.nn.functional.linear(half[None], piece)[0] for piece in self._pieces])
        if allowed is not None:
            rough[~torch.from_numpy(allowed)] = -torch.inf
            count = min(count, int(allowed.sum()))
        count = min(count, len(rough))
        if count == 0:
            return Ranked(np.zeros(0, np.int64), np.zeros(0, np.float32))
        limit = _surpassed(rough, count) - _MARGIN
        rows = (rough >= limit).nonzero()[:, 0].numpy()
        if allowed is not None:
            rows = rows[allowed[rows]]
        scores = self.vectors(rows) @ np.asarray(query, np.float32)
        return top(rows, scores, count)


def top(rows: Rows, scores: Floats, count: int) -> Ranked:
    """The ``count`` best of some rows, best first; of equal ones, the first."""
    order = np.lexsort((rows, -scores))[:count]
    return Ranked(rows[order].astype(np.int64), scores[order].astype(np.float32))


def reranked(ranked: Ranked, scores: Floats) -> Ranked:
    """The first of a ranking in the order of new scores, the others behind them as they were.

    The two kinds of score are not comparable, so those behind are moved below the first, their distances kept.

    Args:
        scores: [k] of the first k.
    """
    first = top(ranked.rows[: len(scores)], scores, len(scores))
    rest = ranked.scores[len(scores) :]
    if len(rest):
        rest = rest - max(0.0, float(rest[0]) - float(first.scores[-1]))
    return Ranked(np.concatenate([first.rows, ranked.rows[len(scores) :]]), np.concatenate([first.scores, rest]))


def mean_ranks(ranked: Ranked) -> Floats:
    """[n] float32: the rank of each, from 1; those of equal scores share the mean of theirs."""
    _, first, inverse, counts = np.unique(-ranked.scores, return_index=True, return_inverse=True, return_counts=True)
    shared: Floats = (first + (counts + 1) / 2)[inverse].astype(np.float32)
    return shared


def fused(rankings: Sequence[Ranked]) -> tuple[Ranked, list[dict[int, float]]]:
    """Reciprocal rank fusion: a clip's score is the sum over rankings of 1 / (60 + rank), scaled to 1 where all agree.

    Returns:
        The fused ranking, and for each of ``rankings`` what it gave to each row.
    """
    shares: list[dict[int, float]] = []
    for ranked in rankings:
        parts = (RRF + 1) / (len(rankings) * (RRF + mean_ranks(ranked)))
        shares.append(dict(zip(ranked.rows.tolist(), parts.tolist(), strict=True)))
    total: dict[int, float] = {}
    for share in shares:
        for row, given in share.items():
            total[row] = total.get(row, 0.0) + given
    rows = np.fromiter(total, np.int64, len(total))
    scores = np.fromiter(total.values(), np.float32, len(total))
    return top(rows, scores, len(rows)), shares


def _surpassed(scores: Any, count: int) -> float:
    """A score that ``count`` of [N] scores reach, and hardly more: of many, the ``count``-th best of blocks' best."""
    import torch

    if len(scores) < 4 * _BLOCK * count:
        return float(torch.topk(scores, count, sorted=False).values.min())
    whole = len(scores) // _BLOCK * _BLOCK
    best = scores[:whole].view(-1, _BLOCK).amax(1)
    return float(torch.topk(best, count, sorted=False).values.min())


def _tensor(piece: NDArray[np.float16]) -> Any:
    import warnings

    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that it cannot be written to: nobody does
        return torch.from_numpy(piece)
