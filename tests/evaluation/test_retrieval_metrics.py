"""Retrieval metrics against plain loops that sort, and their rules for ties, chance and NaN."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest

from regionvlp.errors import InputError
from regionvlp.evaluation import metrics
from regionvlp.evaluation.metrics import CUTOFFS, retrieval_metrics, text_to_video_ranks, video_to_text_ranks


def mean_rank(scores: list[float], right: int) -> float:
    """The mean place, from 0, of ``right`` over all ways to sort by score with ties in any order."""
    places = [i for i, score in enumerate(sorted(scores, reverse=True)) if score == scores[right]]
    return float(np.mean(places))


def slow(similarity: np.ndarray, target: np.ndarray, group_max: bool) -> tuple[list[float], list[float]]:
    t2v = [mean_rank(list(row), int(v)) for row, v in zip(similarity, target, strict=True)]
    v2t = []
    for v in sorted(set(target.tolist())):
        if group_max:
            groups = sorted(set(target.tolist()))
            scores = [max(similarity[q, v] for q in range(len(target)) if target[q] == g) for g in groups]
            v2t.append(mean_rank(scores, groups.index(v)))
        else:
            v2t.append(min(mean_rank(list(similarity[:, v]), q) for q in range(len(target)) if target[q] == v))
    return t2v, v2t


def check(found: dict[str, float], rank0: list[float], candidates: int) -> None:
    for k in CUTOFFS:
        hits = [r == 0 if k == 1 else r < k for r in rank0]
        assert found[f"R{k}"] == pytest.approx(100 * sum(hits) / len(hits))
    assert found["MeanR"] == pytest.approx(np.mean(rank0) + 1)
    assert found["MedR"] == pytest.approx(np.median(rank0) + 1)
    assert found["MedR_percent"] == pytest.approx(100 * found["MedR"] / candidates)
    assert found["MeanR_percent"] == pytest.approx(100 * found["MeanR"] / candidates)


@pytest.mark.parametrize("levels", [3, 1000])
@pytest.mark.parametrize(
    ("videos", "captions"), [(7, [1] * 7), (6, [3, 1, 0, 2, 5, 1]), (12, [4] * 12), (1, [2]), (60, [1] * 60)]
)
@pytest.mark.parametrize("rows", [5, 4096])
def test_against_loops(
    monkeypatch: pytest.MonkeyPatch, videos: int, captions: list[int], levels: int, rows: int
) -> None:
    monkeypatch.setattr(metrics, "_ROWS", rows)
    rng = np.random.default_rng(videos + levels)
    target = rng.permutation(np.repeat(np.arange(videos), captions))
    similarity = rng.integers(0, levels, (len(target), videos)).astype(np.float32)
    for group_max in (False, True):
        t2v, v2t = slow(similarity, target, group_max)
        found = retrieval_metrics(similarity, target, v2t="group_max" if group_max else "best_caption")
        check(found["t2v"], t2v, videos)
        check(found["v2t"], v2t, len(set(target)) if group_max else len(target))
    np.testing.assert_allclose(text_to_video_ranks(similarity, target), t2v)
    np.testing.assert_allclose(video_to_text_ranks(similarity, target), slow(similarity, target, False)[1])


def test_ties_are_counted_and_no_hit_at_one() -> None:
    constant = np.zeros((8, 8))
    exact = retrieval_metrics(constant, np.arange(8))
    assert (exact["t2v"]["R1"], exact["t2v"]["MeanR"], exact["t2v"]["ties"]) == (0, 4.5, 8)
    public = retrieval_metrics(constant, np.arange(8), ties="public")
    assert (public["t2v"]["R1"], public["t2v"]["MeanR"]) == (100, 1)
    assert public["v2t"] == exact["v2t"]
    pair = np.array([[1.0, 1.0], [0.0, 1.0]])
    assert retrieval_metrics(pair, np.arange(2))["t2v"]["R1"] == 50
    assert retrieval_metrics(pair, np.arange(2))["t2v"]["ties"] == 1


def test_chance_is_the_mean_over_all_orders() -> None:
    target = np.array([0, 0, 1, 2])
    found = retrieval_metrics(np.random.default_rng(0).normal(size=(4, 3)), target)
    assert found["chance"] == {"R1": pytest.approx(100 / 3), "R5": 100, "R10": 100, "R50": 100}
    first = [np.mean([target[order[0]] == v for order in permutations(range(4))]) for v in range(3)]
    assert found["chance_v2t"]["R1"] == pytest.approx(100 * np.mean(first))
    large = retrieval_metrics(np.zeros((256, 256)), np.arange(256))
    assert large["chance"]["R1"] == pytest.approx(100 / 256)
    assert large["chance_v2t"]["R10"] == pytest.approx(1000 / 256)
    many = retrieval_metrics(np.zeros((40, 10)), np.repeat(np.arange(10), 4), v2t="group_max")
    assert many["chance_v2t"]["R5"] == pytest.approx(50)


def test_low_ranks_everywhere_without_a_hit() -> None:
    similarity = np.ones((12, 12)) - np.eye(12)
    found: dict[str, Any] = retrieval_metrics(similarity, np.arange(12))["t2v"]
    assert (found["R1"], found["R10"], found["R50"], found["MedR"]) == (0, 0, 100, 12)
    assert found["MedR_percent"] == 100
    assert found[metrics.GEOMETRIC_MEAN] == 0


def test_nan_and_nothing_are_refused() -> None:
    similarity = np.zeros((3, 3))
    similarity[1, 2] = np.nan
    with pytest.raises(InputError, match="similarities of 1 of 3 texts hold NaN"):
        retrieval_metrics(similarity, np.arange(3))
    with pytest.raises(InputError, match="nothing to rank"):
        retrieval_metrics(np.zeros((0, 3)), np.zeros(0, int))
