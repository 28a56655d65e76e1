"""Pages of runs and shards: what they say is what the files say, whatever is missing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from regionvlp.pipelines.cli import run
from regionvlp.report.plots import COLOURS, MOST_POINTS, Curve, Histogram, Plot, bars, drawn, thinned
from regionvlp.report.run import plots_of, why_best

RUN = Path(__file__).resolve().parents[1] / "fixtures" / "v0_1_0" / "run"
SHARDS = RUN.parent / "shards-hdf5"
MOST_BYTES = 5_000_000


def report(folder: Path, out: Path, *arguments: str) -> str:
    assert run(["report", str(folder), "--out", str(out), *arguments]) == 0
    html = out.read_text(encoding="utf-8")
    assert len(html) < MOST_BYTES
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert "<script" not in html
    return html


def test_a_run_is_drawn(tmp_path: Path) -> None:
    html = report(RUN, tmp_path / "r.html")
    assert "step-00000010 is the best checkpoint: its t2v/R1 of 25 is the highest of 2 evaluations" in html
    for name in ("losses", "seconds of a step", "recall, %: t2v", "lr", "regionvlp pretrain --config", "max_steps"):
        assert name in html
    assert html.count('class="best"') == 1


def test_a_run_without_evaluations_or_anything_else_is_drawn(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    lines = [{"step": k, "loss": None if k == 1 else 1 / k, "<b>": 1} for k in range(1, 4)]
    (tmp_path / "run" / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    html = report(tmp_path / "run", tmp_path / "r.html")
    assert "never evaluated" in html
    assert "1 values of the log" in html
    assert "<b>" not in html


@pytest.mark.parametrize(
    ("best", "values", "words"),
    [
        ({}, [], "never evaluated"),
        ({}, [None, None], "2 times, and no evaluation was finite"),
        ({"checkpoint": "step-2", "metric": "R1", "value": 5}, [3, 5, 5], "the highest of 3 evaluations (2 are equal"),
        ({"checkpoint": "step-2", "metric": "R1", "value": 3}, [5, 3], "the lowest of 2 evaluations."),
        ({"checkpoint": "step-2", "metric": "R1", "value": 3}, [3], "the only one that was measured"),
    ],
)
def test_why_the_best_is_the_best(best: dict[str, object], values: list[float | None], words: str) -> None:
    assert words in why_best(best, [{"step": k, "eval/R1": value} for k, value in enumerate(values)])


def test_no_plot_needs_more_colours_than_there_are() -> None:
    lines = [json.loads(line) for line in (RUN / "log.jsonl").read_text().splitlines()]
    plots = plots_of(lines)
    assert max(len(plot.curves) for plot in plots) <= len(COLOURS)
    assert len({plot.title for plot in plots}) == len(plots)


def test_shards_are_drawn_with_and_without_videos(tmp_path: Path, make_clip: Callable[..., Path]) -> None:
    report(SHARDS, tmp_path / "old.html")
    make_clip(tmp_path / "v" / "a.mp4", 1)
    (tmp_path / "v" / "broken.mp4").write_bytes(b"\x00" * 99)
    arguments = ["--videos", str(tmp_path / "v"), "--detector", "own_detectors:Halves", "--frames", "2"]
    assert run(["extract", *arguments, "--out", str(tmp_path / "s")]) == 0
    html = report(tmp_path / "s", tmp_path / "s.html")
    for words in ("1 videos are done, and 1 failed", "<h2>Failures</h2>", "left half", "score of a region"):
        assert words in html
    assert "data:image" not in html
    assert "data:image/jpeg" in report(tmp_path / "s", tmp_path / "s.html", "--videos", str(tmp_path / "v"))
    # All of them failed: the page says so.
    for shard in (tmp_path / "s").glob("shard-*"):
        shard.unlink()
    assert "0 videos are done" in report(tmp_path / "s", tmp_path / "s.html")


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(RUN, tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "best.json").write_text("{")
    (tmp_path / "none").mkdir()
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "log.jsonl").touch()
    for arguments, words in (
        ((tmp_path / "nowhere",), "there is no folder"),
        ((tmp_path / "none",), "neither the log of a run nor shards"),
        ((tmp_path / "begun",), "no step in its log yet"),
        ((tmp_path / "run",), "cannot read"),
        ((RUN, "--videos", "x"), "--videos is for shards"),
        ((RUN, "--out", tmp_path), "cannot write"),
    ):
        assert run(["report", *map(str, arguments)]) == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1


def test_thinning_keeps_the_mean_and_the_last() -> None:
    points = [(float(k), float(k % 7)) for k in range(12_345)]
    kept = thinned(points)
    assert len(kept) == MOST_POINTS
    assert kept[-1] == points[-1]
    assert np.mean([y for _, y in kept]) == pytest.approx(3.0, abs=0.05)
    assert thinned(points[:MOST_POINTS]) == points[:MOST_POINTS]
    assert drawn(Plot("none", [Curve("none", [])]))["curves"] == []


@pytest.mark.parametrize("values", [[], [3.0], [1.0, 1.0], [0, 1, 2, 2, 39], list(range(100))])
@pytest.mark.parametrize("whole", [True, False])
def test_histograms_count_everything_once(values: list[float], whole: bool) -> None:
    one = bars(Histogram.of("x", values, whole=whole))
    assert one["total"] == len(values)
    assert len(one["bars"]) <= 41
    if whole and values == [0, 1, 2, 2, 39]:
        assert [bar["height"] for bar in one["bars"][:4]] == [80.0, 80.0, 160.0, 0.0]
