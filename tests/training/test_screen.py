"""What a run shows on the terminal, at 60 columns and in a pipe."""

from __future__ import annotations

import io
import itertools
import logging
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console

from regionvlp import progress
from regionvlp.progress import ProgressBar
from regionvlp.training.best import Best
from regionvlp.training.screen import Screen, readable


def test_metrics_have_the_names_of_the_field() -> None:
    assert [readable(name) for name in ("t2v/R1", "v2t/R10", "t2v/MedR", "error")] == [
        "R@1",
        "v2t R@10",
        "MedR",
        "error",
    ]


def show(screen: Screen) -> None:
    screen.begin(1200, 250_000, Best(1100, "t2v/R1", 43.06))
    screen.logged({"lr": 1e-5, "webvid/loss": 2.3456, "cc3m/loss": 3.1, "webvid/global_loss": 1.0})
    screen.evaluated(1200, {"t2v/R1": 41.24, "t2v/R5": 70.0}, "t2v/R1", Best(1100, "t2v/R1", 43.06))
    screen.advance(128)


def test_a_pipe_gets_one_plain_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "PLAIN_LINE_EVERY", 0.0)
    with Screen(speaks=True) as screen:
        show(screen)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("train: 1201/250000 steps, ")
    assert line.endswith(" left; loss 2.346 / 3.1, R@1 41.2, best 43.1 at 1100, lr 1e-05")


def test_sixty_columns_hold_the_bar_and_its_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    seconds = itertools.count(0, 1)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: float(next(seconds))))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(
        progress, "Console", lambda stderr: Console(file=terminal, width=60, force_terminal=True, color_system=None)
    )
    with Screen(speaks=True) as screen:
        show(screen)
        assert screen._bar is not None
        plain = Console(file=io.StringIO(), width=60, record=True)
        for part in screen._bar._bar.get_renderables():
            plain.print(part)
        bar, figures = plain.export_text().splitlines()
    assert "1201/250000" in bar
    assert " 128.0 pairs/s " in bar
    assert figures.rstrip() == "  loss 2.346 / 3.1, R@1 41.2, best 43.1 at 1100, lr 1e-05"


def test_one_process_of_a_run_speaks(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with Screen(speaks=False) as screen:
        show(screen)
        screen.ended(1201, Best(1100, "t2v/R1", 43.06), None, "1 s in steps")
    assert capsys.readouterr().err == ""
    assert caplog.text == ""


def test_the_rate_is_of_what_was_done_since_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with ProgressBar("train", "steps", "pairs") as bar:
        bar.begin(100, done=60)
        now[0] = 10.0
        bar.advance(20, 200.0)
        assert bar._line(now[0]) == "train: 80/100 steps, 20.0 pairs/s, about 0m10s left"
