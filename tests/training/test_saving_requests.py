"""When a run saves and stops: on signals, by minutes, in an evaluation, when patience ends; and what then goes on."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_run import TinyTask, tiny_trainer
from torch import nn

from regionvlp.errors import ConfigError
from regionvlp.training import saving as checkpoint
from regionvlp.training import trainer as trainer_module
from regionvlp.training.config import run_config
from regionvlp.training.interrupts import SAVE, Interrupts, nothing_to_save
from regionvlp.training.logbook import read_log
from regionvlp.training.memory import OutOfMemoryError, naming_workers
from regionvlp.training.sense import check_settings

SETS = {"sizes": (22, 13)}  # two sources in turn
TRAIN = {"log_every": 3, "keep": 9}


def result(run: Path) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """Weights and log of the newest checkpoint, without what depends on the clock."""
    newest = checkpoint.latest(run)
    assert newest is not None
    task = TinyTask()
    trainer_module.load_weights(task, newest)
    log = [{key: value for key, value in line.items() if not key.startswith("time/")} for line in read_log(run)]
    return {name: tensor.clone() for name, tensor in task.state_dict().items()}, log


def assert_same(run: Path, other: Path) -> None:
    (weights, log), (others, other_log) = result(run), result(other)
    assert all(torch.equal(weights[name], others[name]) for name in others)
    assert log == other_log


def steps(run: Path) -> list[int]:
    return [checkpoint.step_of(path) for path in checkpoint.checkpoints(run)]


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A run that nobody disturbed."""
    tiny_trainer(tmp_path / "whole", TRAIN, **SETS).fit()
    return tmp_path / "whole"


def test_a_warning_saves_and_goes_on(tmp_path: Path, whole: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="regionvlp")
    assert SAVE is not None
    run = tmp_path / "run"
    outcome = tiny_trainer(run, TRAIN, task=TinyTask(signal_at=5, number=SAVE), **SETS).fit()
    assert outcome.step == outcome.total_steps
    assert "step 5 is saved: asked to save (SIGUSR1)" in caplog.text
    assert steps(run) == [outcome.step, 5]
    assert_same(run, whole)

    # The same from that checkpoint, as after a time limit.
    for step in steps(run):
        if step != 5:
            checkpoint.path_of(run, step).rename(tmp_path / "gone")
    resumed = tiny_trainer(run, TRAIN, **SETS)
    assert resumed.step == 5
    resumed.fit()
    assert_same(run, whole)


def test_checkpoints_come_by_minutes(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at the clock after every step, 20 s later each time: a minute is over at the third."""
    seconds = itertools.count(0, 20)
    monkeypatch.setattr(trainer_module, "time", SimpleNamespace(monotonic=lambda: float(next(seconds))))
    run = tmp_path / "run"
    tiny_trainer(run, {**TRAIN, "save_minutes": 1.0, "max_steps": 8}, **SETS).fit()
    assert steps(run) == [8, 6, 3]
    monkeypatch.undo()
    for step in (8, 6):
        checkpoint.path_of(run, step).rename(tmp_path / f"gone{step}")
    tiny_trainer(run, TRAIN, **SETS).fit()
    assert_same(run, whole)


def test_no_request_is_lost_or_heeded_twice() -> None:
    assert SAVE is not None
    with Interrupts() as interrupts:
        assert not interrupts.take_save()
        os.kill(os.getpid(), SAVE)
        os.kill(os.getpid(), SAVE)
        assert interrupts.take_save()
        assert not interrupts.take_save()
        assert not interrupts.stop


def test_a_warning_before_the_first_step_ends_nothing() -> None:
    assert SAVE is not None
    before = signal.getsignal(SAVE)
    with nothing_to_save():
        os.kill(os.getpid(), SAVE)
        with Interrupts() as interrupts:
            os.kill(os.getpid(), SAVE)
            assert interrupts.take_save()
        os.kill(os.getpid(), SAVE)
    assert signal.getsignal(SAVE) == before


@pytest.mark.parametrize("before", [False, True], ids=["while it runs", "before it begins"])
def test_an_evaluation_is_broken_off_and_done_anew(tmp_path: Path, before: bool) -> None:
    def measure(task: nn.Module) -> dict[str, float]:
        return {"R1": 1.0}

    def long(task: nn.Module) -> dict[str, float]:
        assert not before, "the evaluation was begun"
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
        raise AssertionError("the evaluation went on")

    train = {**TRAIN, "eval_every": "4 steps"}
    tiny_trainer(tmp_path / "whole", train, evaluate=measure).fit()
    task = TinyTask(signal_at=4, number=signal.SIGTERM) if before else None
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        tiny_trainer(run, train, task=task, evaluate=long).fit()
    assert steps(run) == [4]
    tiny_trainer(run, train, evaluate=measure).fit()
    assert_same(run, tmp_path / "whole")
    assert checkpoint.best(run) == checkpoint.path_of(run, 4)


def test_a_request_after_the_last_step_stops_nothing(tmp_path: Path) -> None:
    outcome = tiny_trainer(tmp_path, {"max_steps": 3}, task=TinyTask(signal_at=3, number=signal.SIGTERM)).fit()
    assert outcome.step == 3
    assert steps(tmp_path) == [3]


SCORES = {2: 1.0, 4: 3.0, 6: 3.0, 8: 2.0, 10: float("nan"), 12: 5.0, 14: 4.0}


def scores(trainer: list[Any]) -> Any:
    return lambda task: {"R1": SCORES.get(trainer[0].step, 0.0)}


def start(run: Path, patience: int | None, **more: Any) -> Any:
    """A trainer whose evaluations find what :data:`SCORES` says."""
    cell: list[Any] = []
    train = {**TRAIN, "eval_every": "2 steps", "patience": patience}
    cell.append(tiny_trainer(run, train, evaluate=scores(cell), **more))
    return cell[0]


def test_patience_ends_a_run_and_more_of_it_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="regionvlp")
    run = tmp_path / "run"
    outcome = start(run, patience=2).fit()
    assert (outcome.step, outcome.stopped_early, outcome.best.step) == (8, True, 4)
    assert "stopped early: 2 evaluations without a better one (train.patience)" in caplog.text
    assert steps(run)[0] == 8
    since = [line["eval/since_best"] for line in read_log(run) if "eval/since_best" in line]
    assert since == [0, 0, 1, 2]

    again = start(run, patience=2)
    assert again.fit() == outcome  # nothing left to do
    assert again.system.calls == 0

    more = start(run, patience=3).fit()  # an evaluation that is no number is none that is better
    assert (more.step, more.stopped_early) == (10, True)
    longer = start(run, patience=None).fit()
    assert (longer.step, longer.stopped_early, longer.best.step) == (20, False, 12)


def test_patience_is_counted_across_an_interruption(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        start(run, patience=2, task=TinyTask(signal_at=7, number=signal.SIGTERM)).fit()
    assert start(run, patience=2).fit().step == 8


def test_patience_without_evaluations_is_refused() -> None:
    config = run_config({"train": {"patience": 3}, "data": {"sources": [{"captions": "c.csv", "shards": "s"}]}})
    with pytest.raises(ConfigError, match=r"train\.patience 3: without evaluations"):
        check_settings(config)


class Greedy(TinyTask):
    """Asks for more memory than there is."""

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        if self.training and self.calls == 2:
            torch.empty(2**50)
        return super().forward(batch)


def test_out_of_memory_names_the_settings(tmp_path: Path) -> None:
    with pytest.raises(OutOfMemoryError) as caught:
        tiny_trainer(tmp_path, {"accumulate": 2, "save_every": "1 step"}, task=Greedy()).fit()
    assert caught.value.message == (
        "out of memory on this machine in a step of train.batch_size 4 in 2 parts "
        "(4503599627370496 bytes more were asked for)"
    )
    assert "train.batch_size" in caught.value.hint
    assert "train.accumulate" in caught.value.hint
    assert caught.value.exit_code == 2
    assert steps(tmp_path)[0] == 1


def test_out_of_memory_on_a_device_and_in_an_evaluation(tmp_path: Path) -> None:
    def evaluate(task: nn.Module) -> dict[str, float]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 4")

    with pytest.raises(OutOfMemoryError, match=r"in an evaluation \(2\.50 GiB more were asked for\)") as caught:
        tiny_trainer(tmp_path, {"eval_every": "3 steps"}, evaluate=evaluate).fit()
    assert caught.value.hint == "lower eval.batch_size"
    assert steps(tmp_path) == [3]


def test_a_killed_loader_process_is_told_from_our_own_mistakes() -> None:
    with pytest.raises(OutOfMemoryError, match="killed by signal: Killed") as caught, naming_workers():
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
    assert "train.workers" in caught.value.hint
    with pytest.raises(RuntimeError, match="ours"), naming_workers():
        raise RuntimeError("ours")
