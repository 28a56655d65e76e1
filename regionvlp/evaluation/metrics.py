"""Retrieval metrics from a similarity matrix, both directions, in numpy.

Shape letters: Q queries (texts), V videos of the gallery.

Ranks are counted from 0 here: ``rank0`` = how many are more similar than the right one + half of those that are just
as similar (the right one not among them), the mean over all orders in which the tied could stand. Reported are

    R@1 = share of rank0 == 0     R@k = share of rank0 < k, k = 5, 10, 50     (percent)
    MedR, MeanR = median and mean of rank0 + 1                               (ranks, and percent of the gallery)

so that a right answer that shares the first place with another one is no hit at 1.

Video-to-text, a video has one or more right texts: the best-ranked of them counts, among all Q texts
(``best_caption``, the rule of Frozen in Time and DemoVLP); or the videos are ranked by their most similar text, and the
own video's place counts (``group_max``, the rule of CLIP-based work on MSVD). The two give different numbers.
"""

from __future__ import annotations

import math
from typing import Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from regionvlp.errors import InputError

CUTOFFS = (1, 5, 10, 50)
GEOMETRIC_MEAN = "geometric_mean_R1-R5-R10"
_ROWS = 4096  # of the matrix, compared at a time

Ties = Literal["average", "public"]
# Which value of a metric is the better one.
SENSE: dict[str, Literal["highest", "lowest"]] = {
    **dict.fromkeys(("R1", "R5", "R10", "R50"), "highest"), **dict.fromkeys(("MedR", "MeanR"), "lowest")
}  # fmt: skip
# What a run writes of an evaluation; "best" is judged by the first unless it says otherwise.
LOGGED = tuple(f"{direction}/{name}" for direction in ("t2v", "v2t") for name in ("R1", "R5", "R10", "MedR", "MeanR"))
VideoToText = Literal["best_caption", "group_max"]
Ranks = NDArray[np.float64]


class RetrievalMetrics(TypedDict):
    """Plain numbers, ready for JSON.

    ``t2v`` and ``v2t`` hold ``R1 R5 R10 R50`` (percent), ``MedR MeanR`` (ranks), ``MedR_percent MeanR_percent`` (of
    what is ranked), the geometric mean of the first three, and ``ties`` (queries whose right answer is as similar as
    another). ``chance`` and ``chance_v2t`` hold ``R1 R5 R10 R50`` of a random order.
    """

    queries: int
    gallery: int
    t2v: dict[str, float]
    v2t: dict[str, float]
    chance: dict[str, float]
    chance_v2t: dict[str, float]


def retrieval_metrics(
    similarity: NDArray[np.floating],
    target: NDArray[np.integer],
    *,
    ties: Ties = "average",
    v2t: VideoToText = "best_caption",
) -> RetrievalMetrics:
    """Measures a retrieval run.

    Args:
        similarity: [Q, V], higher is more similar.
        target: [Q], the right video of each text. Videos that are no text's are ranked as others are, and are no
            queries of the other direction.
        ties: ``average`` as above; ``public`` lets the right video win all ties text-to-video, as the public
            evaluation does (it averages them video-to-text).
        v2t: which rule counts video-to-text.

    Raises:
        InputError: the similarities hold NaN, or there are none.
    """
    q, v = similarity.shape
    assert target.shape == (q,), f"target has shape {target.shape}, expected ({q},)"
    if q == 0 or v == 0:
        raise InputError("there is nothing to rank: no texts or no videos", "check the annotations")
    assert ((target >= 0) & (target < v)).all(), "target holds a video outside the gallery"
    bad = int(np.isnan(similarity).any(1).sum())
    if bad:
        raise InputError(f"the similarities of {bad} of {q} texts hold NaN", "the model has diverged; take another")
    t2v_rank0, t2v_ties = _text_to_video(similarity, target, ties)
    asked, captions = np.unique(target, return_counts=True)
    if v2t == "best_caption":
        v2t_rank0, v2t_ties = _best_caption(similarity, target)
        candidates, right = q, captions
    else:
        v2t_rank0, v2t_ties = _text_to_video(_group_max(similarity, target).T, np.arange(len(asked)), "average")
        candidates, right = len(asked), np.ones(len(asked), np.int64)
    return {
        "queries": q,
        "gallery": v,
        "t2v": _summary(t2v_rank0, t2v_ties, v),
        "v2t": _summary(v2t_rank0, v2t_ties, candidates),
        "chance": _chance(v, np.ones(1, np.int64)),
        "chance_v2t": _chance(candidates, right),
    }


def text_to_video_ranks(similarity: NDArray[np.floating], target: NDArray[np.integer], ties: Ties = "average") -> Ranks:
    """[Q] rank0 of each text's video: which queries went well and which did not. Arguments as above."""
    return _text_to_video(similarity, target, ties)[0]


def video_to_text_ranks(similarity: NDArray[np.floating], target: NDArray[np.integer]) -> Ranks:
    """[videos that have texts, ascending] rank0 of the best of each video's texts, ties averaged."""
    return _best_caption(similarity, target)[0]


def _text_to_video(
    similarity: NDArray[np.floating], target: NDArray[np.integer], ties: Ties
) -> tuple[Ranks, NDArray[np.bool_]]:
    """[Q] rank0, and whether another video ties with the right one."""
    own = similarity[np.arange(len(target)), target]
    counts = [
        ((block > o[:, None]).sum(1), (block == o[:, None]).sum(1) - 1)
        for block, o in zip(_blocks(similarity), _blocks(own), strict=True)
    ]
    greater, equal = (np.concatenate(parts).astype(np.float64) for parts in zip(*counts, strict=True))
    return greater if ties == "public" else greater + equal / 2, equal > 0


def _best_caption(similarity: NDArray[np.floating], target: NDArray[np.integer]) -> tuple[Ranks, NDArray[np.bool_]]:
    """Per video that has texts, ascending: the rank0 of its best one, and whether another text ties with that one."""
    # Of a video's own texts the most similar one has the lowest rank, whatever the ties.
    best = np.full(similarity.shape[1], -np.inf, similarity.dtype)
    np.maximum.at(best, target, similarity[np.arange(len(target)), target])
    greater, equal = np.zeros((2, len(best)))
    for block in _blocks(similarity):
        greater += (block > best).sum(0)
        equal += (block == best).sum(0)
    equal -= 1
    asked = np.unique(target)
    return (greater + equal / 2)[asked], (equal > 0)[asked]


def _group_max(similarity: NDArray[np.floating], target: NDArray[np.integer]) -> NDArray[np.floating]:
    """[A, A] of the videos that have texts: how similar the best text of one (row) is to another (column)."""
    order = np.argsort(target, kind="stable")
    asked, starts = np.unique(target[order], return_index=True)
    return np.maximum.reduceat(similarity[order][:, asked], starts, axis=0)


def _blocks(values: NDArray[np.floating]) -> list[NDArray[np.floating]]:
    return [values[start : start + _ROWS] for start in range(0, len(values), _ROWS)]


def _summary(rank0: Ranks, tied: NDArray[np.bool_], candidates: int) -> dict[str, float]:
    recall = {f"R{k}": 100 * float(np.mean(rank0 == 0 if k == 1 else rank0 < k)) for k in CUTOFFS}
    median, mean = float(np.median(rank0)) + 1, float(np.mean(rank0)) + 1
    return {
        **recall,
        "MedR": median,
        "MeanR": mean,
        "MedR_percent": 100 * median / candidates,
        "MeanR_percent": 100 * mean / candidates,
        GEOMETRIC_MEAN: math.prod(recall[f"R{k}"] for k in (1, 5, 10)) ** (1 / 3),
        "ties": int(tied.sum()),
    }


def _chance(candidates: int, right: NDArray[np.integer]) -> dict[str, float]:
    """Expected recall of a random order, for queries with ``right`` right answers each among the candidates."""
    chance = {}
    for k in CUTOFFS:
        # The chance that no right answer is among k drawn without putting back.
        miss = np.ones(len(right))
        for drawn in range(min(k, candidates)):
            miss *= np.maximum(candidates - drawn - right, 0) / (candidates - drawn)
        chance[f"R{k}"] = 100 * float(np.mean(1 - miss))
    return chance
