"""Runs killed at random moments end with the weights, the log and the checkpoints of one that nobody disturbed."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml
from kills import PHASES, Kill, kills, traces
from small_world import CLIPS, small_config, write_captions, write_shards

from regionvlp.config import merge


def two_sources(folder: Path) -> Path:
    """Two sources in turn, two stages, dropout, an evaluation every epoch and a checkpoint every two steps."""
    config = small_config(folder)
    write_shards(folder / "more", clips=24, seed=1)
    texts = [f"the other thing {i} stands still" for i in range(24)]
    first = config["data"]["sources"][0]
    second = {"captions": str(write_captions(folder / "more.csv", texts)), "shards": str(folder / "more")}
    assert CLIPS == 16
    train = {"epochs": 2, "max_steps": None, "save_every": "2 steps", "eval_every": "1 epoch", "log_every": 1}
    changes = {
        "data": {"sources": [first, second]},
        "model": {"text": {"dropout": 0.1}},
        "train": {**train, "keep": 2},
        "eval": {"source": first},
        "stages": [{"frames": 1}, {"frames": 2, "optim": {"lr": 5e-4}}],
    }
    path = folder / "two.yaml"
    path.write_text(yaml.safe_dump(merge(config, changes)))
    return path


def check(found: list[Kill]) -> None:
    faults = [kill for kill in found if kill.faults]
    assert not faults, f"{len(faults)} of {len(found)} runs ended otherwise: {faults}"


pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")


def test_signals_change_nothing_of_a_run(tmp_path: Path) -> None:
    """Shown with ``-s``: exit codes, the step resumed from, first and last loss, the weights."""
    whole, *others = traces(two_sources(tmp_path), tmp_path / "runs")
    for trace in (whole, *others):
        first, last = trace.losses
        codes = " then ".join(map(str, trace.codes))
        sys.stderr.write(
            f"{trace.signal or 'none':8} exit {codes:10} resumed from {trace.resumed:2} "
            f"losses {first:.6f} .. {last:.6f} weights {trace.weights[:12]}\n"
        )
        assert (trace.losses, trace.weights) == (whole.losses, whole.weights)
    assert [trace.codes for trace in (whole, *others)] == [(0,), (130, 0), (0,), (-9, 0)]


def test_a_few_killed_runs_end_like_an_undisturbed_one(tmp_path: Path) -> None:
    check(list(kills(two_sources(tmp_path), tmp_path / "runs", number=3, seed=1)))


@pytest.mark.slow
def test_two_hundred_killed_runs_end_like_an_undisturbed_one(tmp_path: Path) -> None:
    found = list(kills(two_sources(tmp_path), tmp_path / "runs", number=200))
    check(found)
    phases = Counter(kill.phase for kill in found)
    assert all(phases[phase] for phase in PHASES), f"some moments were never met: {phases}"
    sys.stderr.write(f"\nkilled: {dict(phases)}; resumed from {len({kill.step for kill in found})} different steps\n")
