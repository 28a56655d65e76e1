"""The small parts: random states, devices, interrupts, the step timer, imports that stay away."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_run import tiny_trainer

from regionvlp.devices import autocast_dtype, pick_device
from regionvlp.errors import ConfigError
from regionvlp.training import interrupts, timer
from regionvlp.training.distributed import World, open_world
from regionvlp.training.randomness import mix, random_state, restore_random_state, seed_everything, seeded, undisturbed
from regionvlp.training.scalars import StepScalars

CPU = torch.device("cpu")
REPOSITORY = Path(__file__).resolve().parents[2]


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.randn()), float(torch.randn(()))


def test_a_random_state_comes_back_through_a_file(tmp_path: Path) -> None:
    seed_everything(1, 2)
    draw()  # leaves half a pair of normal numbers in NumPy's generator
    torch.save(random_state(CPU), tmp_path / "state.pt")
    expected = [draw() for _ in range(3)]
    restore_random_state(torch.load(tmp_path / "state.pt", weights_only=True), CPU)
    assert [draw() for _ in range(3)] == expected


def test_seeds_are_told_apart() -> None:
    assert len({mix(*seeds) for seeds in ((0, 1), (1, 0), (1,), (1, 1), (0, 0, 1))}) == 5
    seed_everything(1, 0)
    first = draw()
    seed_everything(0, 1)
    assert draw() != first
    seed_everything(1, 0)
    assert draw() == first


def test_borrowed_generators_are_given_back() -> None:
    seed_everything(0)
    expected = draw()
    seed_everything(0)
    with seeded(3, 4):
        inside = draw()
    with contextlib.suppress(ValueError), undisturbed(CPU):
        draw()
        raise ValueError
    assert draw() == expected
    with seeded(3, 4):
        assert draw() == inside


def test_alone_without_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    world = open_world("cpu")
    assert (world.rank, world.size, world.device, world.is_main) == (0, 1, CPU, True)
    world.barrier()
    assert world.mean([1.0, 2.0]) == [1.0, 2.0]
    assert world.gather("x") == ["x"]
    assert world.from_main(3) == 3
    assert world.any(True, False) == [True, False]


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == CPU
    with pytest.raises(ConfigError, match="no device 'cuda' on this machine"):
        pick_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("auto") == torch.device("cuda", 0)
    assert pick_device("cuda:1") == torch.device("cuda", 1)
    assert pick_device("auto", local_rank=1) == torch.device("cuda", 1)
    assert pick_device("cpu", local_rank=1) == CPU
    with pytest.raises(ConfigError, match="no GPU number 2"):
        pick_device("auto", local_rank=2)


def test_precision_follows_the_device() -> None:
    assert autocast_dtype("auto", CPU) is None
    assert autocast_dtype("float32", CPU) is None
    assert autocast_dtype("bf16", CPU) is torch.bfloat16


def test_a_second_ctrl_c_interrupts_at_once_but_an_echo_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(interrupts.time, "monotonic", lambda: now[0])
    with interrupts.Interrupts() as asked:
        assert not asked.stop
        os.kill(os.getpid(), signal.SIGINT)
        assert asked.stop
        now[0] += 0.5
        os.kill(os.getpid(), signal.SIGINT)
        now[0] += 5.0
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_the_timer_tells_waiting_from_computing(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(timer.time, "perf_counter", lambda: now[0])
    clock = timer.StepTimer()
    for _ in range(2):
        with clock.measure("data"):
            now[0] += 3.0
        now[0] += 100.0  # an evaluation: nobody's time
        with clock.measure("compute"):
            now[0] += 1.0
        clock.count(16)
    assert clock.lap() == {"time/data_s": 3.0, "time/compute_s": 1.0, "time/pairs_per_s": 4.0}
    assert clock.summary() == "8 s in steps, 75% of it waiting for data; a larger train.workers may help"
    with clock.measure("compute"):
        now[0] += 92.0
    clock.count(16)
    assert clock.lap()["time/data_s"] == 0.0
    assert clock.summary() == "100 s in steps, 6% of it waiting for data"


def test_scalars_are_averaged_over_the_steps_that_have_them() -> None:
    scalars = StepScalars(World())
    scalars.add(1, {"a/loss": torch.tensor(1.0), "error": torch.tensor(float("inf"))})
    scalars.add(2, {"b/loss": torch.tensor(5.0)})
    state = scalars.state_dict()
    scalars.add(3, {"a/loss": torch.tensor(2.0)})
    assert scalars.take() == {"a/loss": 1.5, "error": float("inf"), "b/loss": 5.0}
    assert scalars.take() == {}
    scalars.load_state_dict(state)
    assert scalars.take() == {"a/loss": 1.0, "error": float("inf"), "b/loss": 5.0}


@pytest.mark.parametrize("compiles", [True, False])
def test_the_task_is_compiled_in_place_where_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiles: bool
) -> None:
    compiled: list[torch.nn.Module] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compiled.append(module))
    trainer = tiny_trainer(tmp_path, {"compile": compiles})
    assert compiled == ([trainer.system] if compiles else [])


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("settings", {"torch", "numpy"}),
        ("trainer", {"tensorboard", "transformers", "regionvlp.models", "regionvlp.losses", "regionvlp.data"}),
    ],
)
def test_imports_that_stay_away(module: str, absent: set[str]) -> None:
    code = f"import sys, regionvlp.training.{module}; sys.exit(','.join({absent!r} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
