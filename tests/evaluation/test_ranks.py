"""The table of ranks: against sorting everything, whatever is equal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regionvlp.data.captions import Caption
from regionvlp.errors import InputError
from regionvlp.evaluation.metrics import retrieval_metrics
from regionvlp.evaluation.ranks import TOP, Ranked, ranked, read_ranks, write_ranks
from regionvlp.evaluation.retrieval import Retrieval


def run_of(similarity: np.ndarray, target: np.ndarray) -> Retrieval:
    ids = [f"v{number}" for number in range(similarity.shape[1])]
    captions = [Caption(ids[column], f"caption {row}", str(row), "", "") for row, column in enumerate(target)]
    return Retrieval(similarity, {}, target, captions, ids)


def sorted_whole(run: Retrieval, row: int) -> Ranked:
    """The slow way: every video in its place."""
    scores, own = run.similarity[row].tolist(), int(run.target[row])
    order = sorted(range(len(scores)), key=lambda column: (-scores[column], column))
    places = [place for place, column in enumerate(order, 1) if scores[column] == scores[own]]
    first = order[:TOP]
    return Ranked(
        f"caption {row}", f"v{own}", sum(places) / len(places), scores[own],
        tuple(f"v{column}" for column in first), tuple(scores[column] for column in first),
    )  # fmt: skip


@pytest.mark.parametrize(("videos", "values"), [(1, 2), (4, 3), (10, 1), (37, 4), (60, 10_000)])
def test_rows_equal_a_whole_sort(tmp_path: Path, videos: int, values: int) -> None:
    rng = np.random.default_rng(videos)
    similarity = (rng.integers(0, values, (25, videos)) / 8).astype(np.float32)
    run = run_of(similarity, rng.integers(0, videos, 25))
    rows = list(ranked(run))
    assert rows == [sorted_whole(run, row) for row in range(25)]
    write_ranks(tmp_path / "ranks.parquet", run)
    assert read_ranks(tmp_path / "ranks.parquet") == rows
    # The metrics are those of the table.
    found = retrieval_metrics(similarity, run.target)["t2v"]
    assert found["MeanR"] == pytest.approx(np.mean([row.rank for row in rows]))
    assert found["R5"] == pytest.approx(100 * np.mean([row.rank - 1 < 5 for row in rows]))


def test_what_is_no_such_table_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no ranks"):
        read_ranks(tmp_path / "ranks.parquet")
    (tmp_path / "ranks.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(InputError, match="cannot read"):
        read_ranks(tmp_path / "ranks.parquet")
    pq.write_table(pa.table({"query": ["a"]}), tmp_path / "ranks.parquet")
    with pytest.raises(InputError, match="cannot read"):
        read_ranks(tmp_path / "ranks.parquet")
