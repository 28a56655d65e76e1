"""How well an index answers: recall of one's own queries, with intervals.

In: an index, captions of its files. Out: retrieval metrics. A file is as similar to a query as its best clip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regionvlp.evaluation.metrics import CUTOFFS, retrieval_metrics, text_to_video_ranks
from regionvlp.search.index import RERANKED, Index

RESAMPLES = 2000
LEVEL = 95  # percent


def evaluate(index: Index, captions: Sequence[tuple[str, str]], rerank: bool = True, seed: int = 0) -> dict[str, Any]:
    """Ranks the files of an index for every caption.

    Args:
        index: opened. captions: (video id as the index calls it, sentence) each.
        rerank: as in a search. seed: of the resampling.

    Returns:
        See :func:`~regionvlp.evaluation.metrics.retrieval_metrics`; with ``intervals``: for each recall, the lowest and
        highest value in 95 % of resamplings of the files that are asked for, each with all its captions; and where
        tokens are stored ``same_top10``: the share of queries (percent) whose first ten clips are the same ten as when
        every clip is compared token by token and not the first hundred alone.
    """
    ids, column = gallery(index)
    target = np.array([ids[video_id] for video_id, _ in captions], np.int64)
    sentences = [caption for _, caption in captions]
    scores = index.rank_all(sentences, RERANKED if rerank else 0)
    similarity = np.full((len(captions), len(ids)), -np.inf, np.float32)
    np.maximum.at(similarity.T, column[index.live], scores[:, index.live].T)
    metrics: dict[str, Any] = {**retrieval_metrics(similarity, target)}
    metrics["intervals"] = recall_intervals(text_to_video_ranks(similarity, target), target, seed)
    if rerank and any(record.tokens for record in index.manifest.encoders):
        metrics["same_top10"] = same_top(scores, index.rank_all(sentences, len(index)), 10)
    return metrics


def same_top(scores: NDArray[np.float32], others: NDArray[np.float32], count: int) -> float:
    """The share of rows (percent) whose ``count`` best are the same in two arrays [Q, N], in any order."""
    tops = [np.sort(np.argsort(-values, axis=1, kind="stable")[:, :count], axis=1) for values in (scores, others)]
    return 100 * float((tops[0] == tops[1]).all(1).mean())


def gallery(index: Index) -> tuple[dict[str, int], NDArray[np.int64]]:
    """The files of an index by id, numbered; and the number of each clip's file, [N]."""
    names = index.clips.column("video_id").to_pylist()
    live = [name for name, counts in zip(names, index.live, strict=True) if counts]
    ids = {name: number for number, name in enumerate(dict.fromkeys(live))}
    return ids, np.array([ids.get(name, -1) for name in names], np.int64)


def recall_intervals(
    rank0: NDArray[np.float64], groups: NDArray[np.integer], seed: int = 0
) -> Mapping[str, tuple[float, float]]:
    """For each cutoff, the percentile interval of the recall over resampled groups, in percent.

    Args:
        rank0: [Q] ranks from 0. groups: [Q], what is drawn together: captions of one file stand or fall together.
    """
    rng = np.random.default_rng(seed)
    distinct, inverse = np.unique(groups, return_inverse=True)
    counts = np.bincount(inverse).astype(np.float64)
    drawn = rng.integers(0, len(distinct), (RESAMPLES, len(distinct)))
    sizes = counts[drawn].sum(1)
    tail = (100 - LEVEL) / 2
    found = {}
    for k in CUTOFFS:
        hits = np.bincount(inverse, rank0 == 0 if k == 1 else rank0 < k)
        low, high = np.percentile(100 * hits[drawn].sum(1) / sizes, [tail, 100 - tail])
        found[f"R{k}"] = (float(low), float(high))
    return found
