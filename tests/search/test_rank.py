from __future__ import annotations

import numpy as np
import pytest

from regionvlp.search.rank import Gallery, Ranked, fused, mean_ranks, reranked, top


def clustered(rows: int, width: int, seed: int = 0) -> np.ndarray:
    """Vectors so near to each other that half precision alone orders many of them wrongly."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((4, width))
    vectors = centres[rng.integers(0, 4, rows)] + 0.02 * rng.standard_normal((rows, width))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def test_of_many_the_best_of_blocks_bound_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regionvlp.search.rank._BLOCK", 4)
    for seed in range(5):
        vectors = clustered(1003, 16, seed)
        query = vectors[seed].astype(np.float32)
        query /= np.linalg.norm(query)
        slow = vectors.astype(np.float32) @ query
        order = np.lexsort((np.arange(1003), -slow))
        for count in (1, 7, 50, 1003):
            assert Gallery([vectors]).best(query, count).rows.tolist() == order[:count].tolist()


@pytest.mark.parametrize("seed", range(5))
def test_the_product_is_that_of_float32(seed: int) -> None:
    vectors = clustered(5000, 64, seed)
    rng = np.random.default_rng(seed + 100)
    query = vectors[rng.integers(5000)].astype(np.float32) + 0.01 * rng.standard_normal(64).astype(np.float32)
    query /= np.linalg.norm(query)
    slow = vectors.astype(np.float32) @ query
    order = np.lexsort((np.arange(5000), -slow))[:20]
    found = Gallery([vectors[:700], vectors[700:700], vectors[700:]]).best(query, 20)
    assert found.rows.tolist() == order.tolist()
    np.testing.assert_allclose(found.scores, slow[order], rtol=0, atol=1e-6)
    half = np.argsort(-(vectors @ query.astype(np.float16)), kind="stable")[:20]
    assert half.tolist() != order.tolist(), "the case is too easy to tell"


def test_only_what_is_allowed_and_no_more_than_there_is() -> None:
    vectors = clustered(50, 8)
    allowed = np.zeros(50, np.bool_)
    allowed[[3, 30, 41]] = True
    found = Gallery([vectors]).best(vectors[0].astype(np.float32), 10, allowed)
    assert sorted(found.rows.tolist()) == [3, 30, 41]
    assert len(Gallery([vectors]).best(vectors[0].astype(np.float32), 10, np.zeros(50, np.bool_))) == 0
    assert len(Gallery([]).best(np.ones(8, np.float32), 10)) == 0


def test_equal_scores_come_in_the_order_of_rows() -> None:
    vectors = np.ones((6, 4), np.float16) / 2
    assert Gallery([vectors[:2], vectors[2:]]).best(np.full(4, 0.5, np.float32), 4).rows.tolist() == [0, 1, 2, 3]


def test_ranks_of_equal_scores_are_shared() -> None:
    ranked = Ranked(np.arange(5), np.array([9, 7, 7, 7, 1], np.float32))
    assert mean_ranks(ranked).tolist() == [1, 3, 3, 3, 5]


def test_fusion_adds_reciprocal_ranks() -> None:
    one = Ranked(np.array([4, 2, 7]), np.array([3, 2, 1], np.float32))
    two = Ranked(np.array([2, 9]), np.array([0.5, 0.1], np.float32))
    ranking, shares = fused([one, two])
    by_hand = {4: 61 / 61, 2: 61 / 62 + 61 / 61, 7: 61 / 63, 9: 61 / 62}
    assert ranking.rows.tolist() == sorted(by_hand, key=lambda row: -by_hand[row])
    np.testing.assert_allclose(ranking.scores, sorted((v / 2 for v in by_hand.values()), reverse=True), rtol=1e-6)
    assert [set(share) for share in shares] == [{4, 2, 7}, {2, 9}]
    assert shares[1][2] == pytest.approx(0.5)


def test_reranking_orders_the_first_and_keeps_the_rest_behind() -> None:
    before = top(np.arange(6), np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.1], np.float32), 6)
    after = reranked(before, np.array([-1, 5, 2], np.float32))
    assert after.rows.tolist() == [1, 2, 0, 3, 4, 5]
    assert (np.diff(after.scores) <= 0).all()
    assert after.scores[3] - after.scores[5] == pytest.approx(0.5)
