"""Runs in processes of their own: killed at any moment, signalled as a group, and split over two ranks."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from one_against_two import DTYPES, Case, cases, differences, some_cases
from safetensors.torch import load_file
from tiny_run import TinyTask, tiny_config, tiny_trainer

from regionvlp.training import saving as checkpoint
from regionvlp.training.interrupts import SAVE
from regionvlp.training.logbook import read_log

SCRIPT = Path(__file__).with_name("tiny_run.py")


def start(run: Path, settings: dict[str, Any], **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(run), json.dumps(settings)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that a signal to its group does not reach the tests
    )


def finish(*processes: subprocess.Popen[str]) -> list[int]:
    for process in processes:
        _, complaint = process.communicate(timeout=300)
        if process.returncode not in (0, 130, -signal.SIGKILL):
            pytest.fail(complaint)
    return [process.returncode for process in processes]


def ranks(run: Path, *settings: dict[str, Any]) -> list[subprocess.Popen[str]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [start(run, settings[rank], RANK=str(rank), LOCAL_RANK=str(rank), **shared) for rank in range(2)]


def final_weights(run: Path) -> dict[str, torch.Tensor]:
    newest = checkpoint.latest(run)
    assert newest is not None
    assert checkpoint.step_of(newest) == 20
    return load_file(newest / "model.safetensors")


def losses(run: Path) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in read_log(run)]


def test_a_killed_run_and_a_signalled_group_end_like_an_undisturbed_one(tmp_path: Path) -> None:
    train = {"save_every": "3 steps", "keep": 1}
    killed = {"signal_at": 8, "number": signal.SIGKILL}
    group = {"signal_at": 5, "number": signal.SIGTERM, "group": True}
    stopped = [
        start(tmp_path / "killed", {"train": train, "task": killed}),
        start(tmp_path / "group", {"train": {**train, "workers": 2}, "task": group}),
    ]
    assert finish(*stopped) == [-signal.SIGKILL, 130]
    for name, step in (("killed", 6), ("group", 5)):
        assert [checkpoint.step_of(path) for path in checkpoint.checkpoints(tmp_path / name)] == [step]
    for name in ("killed", "group", "whole"):
        tiny_trainer(tmp_path / name, train).fit()

    expected = final_weights(tmp_path / "whole")
    for name in ("killed", "group"):
        found = final_weights(tmp_path / name)
        assert all(torch.equal(found[key], value) for key, value in expected.items())
        assert losses(tmp_path / name) == losses(tmp_path / "whole")


def test_two_ranks_train_like_one_and_either_resumes_the_other(tmp_path: Path) -> None:
    """Without dropout, for which every rank has its own draws, the numbers of processes only differ by rounding."""
    plain: dict[str, Any] = {"dropout": 0.0}
    train = {"accumulate": 2}
    tiny_trainer(tmp_path / "one", train, task=TinyTask(**plain)).fit()
    # The seventh step's second part; only one rank has the signal, yet both stop after the same step.
    stopped = {"train": train, "task": {**plain, "signal_at": 14, "number": signal.SIGTERM}}
    assert finish(*ranks(tmp_path / "two", {"train": train, "task": plain}, stopped)) == [130, 130]
    assert [checkpoint.step_of(path) for path in checkpoint.checkpoints(tmp_path / "two")] == [7]
    tiny_trainer(tmp_path / "two", {**train, "max_steps": 12}, task=TinyTask(**plain)).fit()
    assert finish(*ranks(tmp_path / "two", *[{"train": train, "task": plain}] * 2)) == [0, 0]

    expected, found = final_weights(tmp_path / "one"), final_weights(tmp_path / "two")
    assert all(torch.allclose(found[key], value, atol=1e-5) for key, value in expected.items())
    for (step, loss), (other_step, other) in zip(losses(tmp_path / "one"), losses(tmp_path / "two"), strict=True):
        assert step == other_step
        assert loss == pytest.approx(other, rel=1e-4)


def ended(*processes: subprocess.Popen[str]) -> list[tuple[int, str]]:
    """Exit code and the last line on standard error of each."""
    said = [process.communicate(timeout=300)[1].strip().splitlines()[-1:] for process in processes]
    return [(process.returncode, " ".join(lines)) for process, lines in zip(processes, said, strict=True)]


def test_a_warning_to_one_process_saves_once_for_all(tmp_path: Path) -> None:
    assert SAVE is not None
    warned = {"train": {"keep": 9}, "task": {"signal_at": 7, "number": SAVE}}
    assert finish(*ranks(tmp_path, {"train": {"keep": 9}}, warned)) == [0, 0]
    assert [checkpoint.step_of(path) for path in checkpoint.checkpoints(tmp_path)] == [20, 7]


def test_a_checkpoint_that_cannot_be_written_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(tiny_config(train := {"save_every": "3 steps"}))
    (tmp_path / "checkpoints").write_text("in the way")
    main, other = ended(*ranks(tmp_path, *[{"train": train}] * 2))
    assert main[0] == other[0] == 2
    assert main[1].startswith("error: cannot write the checkpoint ")
    assert "error" not in other[1]


def test_a_process_that_dies_is_not_explained_by_the_others(tmp_path: Path) -> None:
    killed = {"task": {"signal_at": 5, "number": signal.SIGKILL}}
    main, other = ended(*ranks(tmp_path, {}, killed))
    assert other[0] == -signal.SIGKILL
    assert main == (2, "process 0 stops, for another process of the run is gone")


def check_alike(found: dict[Case, tuple[float, float]]) -> None:
    bounds = {"float32": (1e-6, 1e-4), "float64": (1e-6, 1e-12)}  # losses are added up in float32
    assert bounds.keys() == DTYPES.keys()
    for case, (loss, gradients) in found.items():
        assert loss <= bounds[case.dtype][0], case
        assert gradients <= bounds[case.dtype][1], case


def test_every_loss_is_the_same_on_one_process_and_on_two(tmp_path: Path) -> None:
    """Captions of uneven lengths, clips without regions, duplicates with the other process, a batch in two parts."""
    check_alike(differences(tmp_path, list(some_cases())))


@pytest.mark.slow
def test_every_loss_is_the_same_wherever_its_negatives_come_from(tmp_path: Path) -> None:
    check_alike(differences(tmp_path, list(cases())))


@pytest.mark.slow
def test_four_processes_share_groups(tmp_path: Path) -> None:
    """Each holds three pairs: a group of six is two processes', and groups of four lie across all of them."""
    check_alike(differences(tmp_path, [case for case in cases() if case.parts == 1], world=4))
