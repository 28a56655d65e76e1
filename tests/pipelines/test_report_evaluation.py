"""Pages of evaluations: what they say is what the tables say, with and without the model and its videos."""

from __future__ import annotations

import html
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from regionvlp.checkpoints.folder import load_checkpoint
from regionvlp.evaluation.ranks import Ranked, read_ranks
from regionvlp.pipelines.cli import run
from regionvlp.report.compare import pairs_of
from regionvlp.report.evaluation import chosen, recall_plot

Edit = Callable[..., Path]
MOST_BYTES = 5_000_000


def drawn(out: Path, *arguments: object) -> str:
    assert run(["report", *map(str, arguments), "--out", str(out)]) == 0
    page = out.read_text(encoding="utf-8")
    assert len(page) < MOST_BYTES
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "<script" not in page
    return html.unescape(page)


@pytest.fixture
def evaluated(recipe: Edit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an evaluation of a model that has barely learnt."""
    monkeypatch.chdir(tmp_path)
    assert run(["pretrain", "--config", str(recipe())]) == 0
    assert run(["eval", "csv"]) == 0
    return load_checkpoint(tmp_path / "runs/tiny").path / "eval/test"


def test_an_evaluation_is_drawn(
    evaluated: Path, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, metrics = read_ranks(evaluated / "ranks.parquet"), json.loads((evaluated / "metrics.json").read_text())
    assert len(rows) == metrics["queries"] == 8
    assert sum(row.rank == 1 for row in rows) == round(8 * metrics["t2v"]["R1"] / 100)
    out = tmp_path / "e.html"
    plain = drawn(out, evaluated)
    assert f"{sum(row.rank == 1 for row in rows)} of 8 queries find their video first among 8" in plain
    assert "data:image" not in plain
    for row in rows:
        assert f"<td>{row.query}</td><td>{row.video_id}</td>" in plain
    # Some word's strongest region is marked in some frame, and is inside it.
    boxes = re.findall(r'<rect class="w\d+ first" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"', plain)
    assert boxes
    width, height = map(int, re.findall(r'class="heat" viewBox="0 0 (\d+) (\d+)"', plain)[0])
    assert all(float(x) + float(w) <= width + 1 and float(y) + float(h) <= height + 1 for x, y, w, h in boxes)
    assert "data:image/jpeg" in drawn(out, evaluated, "--videos", world / "videos")

    # Moved away from its model it says what it cannot show.
    alone = shutil.copytree(evaluated, tmp_path / "x" / "alone")
    (alone / "metrics.json").write_text(json.dumps({**metrics, "checkpoint": str(tmp_path / "gone")}))
    said = drawn(out, alone)
    assert "not shown: there is no checkpoint at" in said
    assert 'class="w0 first"' not in said

    (alone / "ranks.parquet").unlink()
    capsys.readouterr()
    assert run(["report", str(alone)]) == 2
    assert "run 'regionvlp eval' again" in capsys.readouterr().err


def test_two_are_compared(evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import pyarrow.parquet as pq

    other = shutil.copytree(evaluated, tmp_path / "other")
    table = pq.read_table(other / "ranks.parquet").to_pydict()
    before = list(table["rank"])
    table["rank"] = [1.0, *(rank + 1 for rank in before[1:])]
    table["query"][-1] = "<b>of its own"
    pq.write_table(type(pq.read_table(other / "ranks.parquet")).from_pydict(table), other / "ranks.parquet")
    page = drawn(tmp_path / "c.html", "--compare", evaluated, other)
    better = int(before[0] > 1)
    assert f"A ranks the right video better for 6 of 7 queries, B for {better}; {1 - better} are equal" in page
    assert "7 that both have; 2 that only one has are left out" in page
    assert "A finds what B does not" in page
    assert "<b>of its own" not in page

    metrics = json.loads((other / "metrics.json").read_text())
    (other / "metrics.json").write_text(json.dumps({**metrics, "gallery": 9}))
    for arguments, words in (
        (("--compare", evaluated, other), "their ranks cannot be compared"),
        (("--compare", evaluated, tmp_path / "no"), "there is no folder"),
        (("--compare", evaluated, evaluated, "--videos", "x"), "is for one evaluation"),
        ((evaluated, "--compare", evaluated, other), "name one FOLDER, or two"),
        ((), "name one FOLDER, or two"),
        ((tmp_path,), "nor an evaluation"),
    ):
        capsys.readouterr()
        assert run(["report", *map(str, arguments)]) == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1


def row(query: str, rank: float, *scores: float) -> Ranked:
    return Ranked(query, "v", rank, scores[0], tuple("vwxyz"[: len(scores)]), scores)


def test_the_best_are_the_clearest_and_the_worst_the_farthest() -> None:
    rows = [row("a", 1, 0.9, 0.8), row("b", 1, 0.9, 0.1), row("c", 5, 0.9, 0.8), row("d", 1.5, 0.9, 0.9)]
    best, worst = chosen(rows, 2)
    assert [one.query for one in best] == ["b", "a"]
    assert [one.query for one in worst] == ["c", "d"]


def test_queries_that_are_twice_are_paired_once_each() -> None:
    twice, once = [row("a", 1, 0.5), row("a", 2, 0.5)], [row("a", 3, 0.5), row("b", 1, 0.5)]
    assert [(one.rank, other.rank) for one, other in pairs_of(twice, once)] == [(1, 3)]
    assert [(one.rank, other.rank) for one, other in pairs_of(twice, twice)] == [(1, 1), (2, 2)]


def test_the_curve_counts_as_the_metrics_do() -> None:
    rows = [row("a", 1, 0.5), row("b", 1.5, 0.5), row("c", 5, 0.5), row("d", 5.5, 0.5)]
    points = dict(recall_plot({"m": rows}, 10).curves[0].points)
    for k, share in points.items():
        inside = [one.rank - 1 == 0 if k == 1 else one.rank - 1 < k for one in rows]
        assert share == 100 * sum(inside) / len(rows), k
    assert points[1.0] == 25
    assert points[10.0] == 100
