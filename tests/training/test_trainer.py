"""The trainer's promises: one seed one trace, resumed equals uninterrupted, nothing spoilt is stored."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import TinyData, TinyTask, tiny_trainer
from torch import nn

from regionvlp.errors import ConfigError, InputError, WeightsError
from regionvlp.training import saving as checkpoint
from regionvlp.training.distributed import World
from regionvlp.training.loaders import Loader
from regionvlp.training.logbook import read_log
from regionvlp.training.scalars import NonFiniteLossError
from regionvlp.training.settings import OptimSettings, TrainSettings
from regionvlp.training.trainer import Trainer
from regionvlp.weights.modules import WEIGHTS

# 20 steps of TinyTask with AdamW, clipping and a decay after the second epoch. A change that is not meant to alter
# the computation must not alter these numbers.
GOLDEN = [
    1.2084663,
    2.4241025,
    5.9539199,
    11.164033,
    3.1761694,
    2.7553637,
    0.76691157,
    9.3659725,
    1.9069772,
    1.4784628,
    2.5884559,
    1.6579272,
    2.5112462,
    3.1938682,
    8.3469925,
    1.9290875,
    3.7812545,
    0.81896609,
    4.6485252,
    7.7735605,
]


def trace(run: Path) -> list[dict[str, Any]]:
    """The log without what depends on the clock."""
    return [{key: v for key, v in line.items() if not key.startswith("time/")} for line in read_log(run)]


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def mean_error(task: nn.Module) -> dict[str, float]:
    """An evaluation that draws random numbers, as a careless one would."""
    assert not task.training
    assert not torch.is_grad_enabled()
    torch.rand(3)
    batch = TinyData(seed=5).read(range(8), 0)
    return {"error": float(task(batch)["error"]), "other": 1.0}


def test_twenty_steps_give_the_golden_losses(tmp_path: Path) -> None:
    optim = {"schedule": "paper", "milestones": (2,), "clip_norm": 1.0}
    tiny_trainer(tmp_path, optim=optim).fit()
    losses = [line["loss"] for line in read_log(tmp_path)]
    assert losses == pytest.approx(GOLDEN, rel=1e-5)


def test_the_same_seed_gives_the_same_trace_and_another_does_not(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        torch.rand(17)  # whatever was drawn before must not matter
        tiny_trainer(tmp_path / name, {"seed": seed, "max_steps": 6}).fit()
    first = trace(tmp_path / "a")
    assert first == trace(tmp_path / "b")
    assert [line["loss"] for line in first] != [line["loss"] for line in trace(tmp_path / "c")]


RUNS: dict[str, dict[str, Any]] = {
    "cosine": {"train": {"log_every": 3}, "optim": {"schedule": "cosine", "warmup_steps": 3, "clip_norm": 0.5}},
    "accumulate": {
        "train": {"log_every": 4, "accumulate": 2},
        "optim": {"schedule": "public", "lr_after_first_epoch": 0.02},
    },
    "three-sets": {"sizes": (22, 13, 30)},
    "workers": {"train": {"workers": 1, "max_steps": 12}},
}
STOPS = [(name, stop) for name in ("cosine", "accumulate", "three-sets") for stop in (3, 5, 8)] + [("workers", 7)]


@pytest.mark.parametrize(("name", "stop"), STOPS)
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, name: str, stop: int) -> None:
    run = {"train": {}, "optim": {}, "sizes": (22,), **RUNS[name]}
    train = {**run["train"], "eval_every": "4 steps"}
    arguments = {"optim": run["optim"], "sizes": run["sizes"], "evaluate": mean_error}
    whole = tiny_trainer(tmp_path / "whole", train, **arguments)
    whole.fit()

    calls = stop * train.get("accumulate", 1)
    stopped = TinyTask(signal_at=calls, number=signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        tiny_trainer(tmp_path / "parts", train, task=stopped, **arguments).fit()
    assert checkpoint.step_of(checkpoint.checkpoints(tmp_path / "parts")[0]) == stop
    resumed = tiny_trainer(tmp_path / "parts", train, **arguments)
    assert resumed.step == stop
    resumed.fit()

    assert resumed.step == whole.step
    assert_same(weights(resumed.system), weights(whole.system))
    assert trace(tmp_path / "parts") == trace(tmp_path / "whole")
    assert resumed.best == whole.best
    assert checkpoint.best(tmp_path / "parts").name == checkpoint.best(tmp_path / "whole").name  # type: ignore[union-attr]


def test_the_signal_handlers_are_put_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        tiny_trainer(tmp_path, task=TinyTask(signal_at=2, number=signal.SIGINT)).fit()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_evaluation_that_fails_leaves_a_checkpoint_and_is_done_again(
    tmp_path: Path, error: type[BaseException]
) -> None:
    def fails(task: nn.Module) -> dict[str, float]:
        raise error

    train = {"eval_every": "4 steps", "max_steps": 6}
    with pytest.raises(error):
        tiny_trainer(tmp_path / "a", train, evaluate=fails).fit()
    assert checkpoint.step_of(checkpoint.checkpoints(tmp_path / "a")[0]) == 4
    tiny_trainer(tmp_path / "a", train, evaluate=mean_error).fit()
    tiny_trainer(tmp_path / "b", train, evaluate=mean_error).fit()
    assert trace(tmp_path / "a") == trace(tmp_path / "b")
    state = checkpoint.load_state(checkpoint.path_of(tmp_path / "a", 4))
    assert state["evaluated"] == 4


def test_evaluating_does_not_change_the_training(tmp_path: Path) -> None:
    often = tiny_trainer(tmp_path / "a", {"eval_every": "1 step"}, evaluate=mean_error)
    never = tiny_trainer(tmp_path / "b")
    often.fit()
    never.fit()
    assert_same(weights(often.system), weights(never.system))
    assert len([line for line in read_log(tmp_path / "a") if "eval/error" in line]) == 20


def test_parts_of_a_batch_add_up_to_the_whole(tmp_path: Path) -> None:
    results = []
    for parts in (1, 2, 4):
        task = TinyTask(dropout=0.0)
        tiny_trainer(tmp_path / str(parts), {"accumulate": parts}, task=task).fit()
        assert task.calls == 20 * parts
        results.append((weights(task), read_log(tmp_path / str(parts))[-1]["loss"]))
    for other, loss in results[1:]:
        assert all(torch.allclose(other[name], value, atol=1e-6) for name, value in results[0][0].items())
        assert loss == pytest.approx(results[0][1], rel=1e-4)


def test_a_loss_that_is_not_finite_stops_the_run_and_is_not_stored(tmp_path: Path) -> None:
    train = {"log_every": 5, "save_every": "2 steps"}
    with pytest.raises(NonFiniteLossError, match=r"step 3: .*fit_loss=[0-9.]+, size_loss=nan") as caught:
        tiny_trainer(tmp_path, train, task=TinyTask(nan_at=3)).fit()
    assert caught.value.hint
    assert [path.name for path in checkpoint.checkpoints(tmp_path)] == ["step-00000002"]


def test_gradients_are_clipped_and_their_norm_is_logged(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, optim={"clip_norm": 1e-3})
    scalars = trainer.train_step(*trainer.loaders.next()[1])
    norm = torch.stack([p.grad.norm() for p in trainer.system.body.parameters()]).norm()  # type: ignore[union-attr]
    assert float(norm) == pytest.approx(1e-3, rel=1e-3)
    assert float(scalars["grad_norm"]) > 1e-3
    assert float(scalars["loss"]) == pytest.approx(float(scalars["fit_loss"] + scalars["size_loss"]))


def test_several_datasets_take_turns_in_the_log(tmp_path: Path) -> None:
    tiny_trainer(tmp_path, {"epochs": 1}, sizes=(22, 13)).fit()
    lines = read_log(tmp_path)
    names = [next(key for key in line if key.endswith("/loss")) for line in lines]
    assert names == ["set0/loss", "set1/loss"] * 5
    assert lines[-1]["epoch"] == 1.0
    assert {"time/data_s", "time/compute_s", "time/pairs_per_s", "lr"} <= lines[0].keys()


def evaluation(values: list[float]) -> Callable[[nn.Module], dict[str, float]]:
    left = iter(values)
    return lambda task: {"R1": next(left)}


@pytest.mark.parametrize(("best_is", "best"), [("highest", 12), ("lowest", 8)])
def test_the_best_checkpoint_stays(tmp_path: Path, best_is: str, best: int) -> None:
    train = {"eval_every": "4 steps", "save_every": "4 steps", "keep": 1, "best_is": best_is}
    trainer = tiny_trainer(tmp_path, train, evaluate=evaluation([float("nan"), 3.0, 9.0, 9.0, 5.0]))
    trainer.fit()
    assert [checkpoint.step_of(path) for path in checkpoint.checkpoints(tmp_path)] == [20, best]
    assert checkpoint.best(tmp_path) == checkpoint.path_of(tmp_path, best)


def test_an_unknown_best_metric_is_named(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, {"eval_every": "1 epoch", "best_metric": "eror"}, evaluate=mean_error)
    with pytest.raises(ConfigError, match="did you mean 'error'"):
        trainer.fit()


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train = {"save_every": "4 steps", "keep": 9}
    whole = tiny_trainer(tmp_path, train)
    whole.fit()
    before = trace(tmp_path)
    for step, file in ((20, WEIGHTS), (16, checkpoint.STATE)):
        path = checkpoint.path_of(tmp_path, step) / file
        path.write_bytes(path.read_bytes()[:-100])
    with caplog.at_level(logging.WARNING):
        resumed = tiny_trainer(tmp_path, train)
    assert resumed.step == 12
    assert "step-00000020" in caplog.text
    assert "step-00000016" in caplog.text
    resumed.fit()
    assert_same(weights(resumed.system), weights(whole.system))
    assert trace(tmp_path) == before
    assert (tmp_path / "checkpoints" / "step-00000020.set-aside").is_dir()


def test_only_damaged_checkpoints_are_an_error(tmp_path: Path) -> None:
    tiny_trainer(tmp_path, {"max_steps": 2}).fit()
    (checkpoint.path_of(tmp_path, 2) / WEIGHTS).write_bytes(b"")
    with pytest.raises(InputError, match="damaged"):
        tiny_trainer(tmp_path, {"max_steps": 2})


def test_resuming_with_other_data_or_another_architecture_is_an_error(tmp_path: Path) -> None:
    tiny_trainer(tmp_path, {"max_steps": 2}).fit()
    last = [checkpoint.path_of(tmp_path, 2)]
    with pytest.raises(InputError, match=r"22 of 'set0'.* then, 23 of 'set0'"):
        tiny_trainer(tmp_path / "b", {"max_steps": 2}, sizes=(23,)).resume(last)
    other = TinyTask()
    other.body[3] = nn.Linear(8, 3)
    with pytest.raises(WeightsError, match="another architecture"):
        tiny_trainer(tmp_path / "c", {"max_steps": 2}, task=other).resume(last)


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path) -> None:
    train = {"eval_every": "1 epoch"}
    tiny_trainer(tmp_path, train, evaluate=mean_error).fit()
    before = (tmp_path / "log.jsonl").read_text()
    task = TinyTask()
    tiny_trainer(tmp_path, train, task=task, evaluate=mean_error).fit()
    assert task.calls == 0
    assert (tmp_path / "log.jsonl").read_text() == before


def test_the_task_says_what_it_reads(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path)
    batch = dict(trainer.loaders.next()[1][0])
    seen: list[set[str]] = []
    trainer.system.register_forward_pre_hook(lambda _module, arguments: seen.append(set(arguments[0])))
    trainer.train_step({**batch, "boxes": torch.zeros(1)})
    assert seen == [{"x", "y", "name"}]
    del batch["y"]
    with pytest.raises(AssertionError, match=r"lacks \['y'\]"):
        trainer.train_step(batch)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_user_error_in_the_data_comes_through_whole(tmp_path: Path, workers: int) -> None:
    class Data(TinyData):
        def read(self, samples: Sequence[int], epoch: int) -> dict[str, Any]:
            raise InputError("video 7 has no features", "extract it")

    train = TrainSettings(batch_size=4, workers=workers, device="cpu")
    trainer = Trainer(TinyTask(), [Loader(Data(), train, World())], train, OptimSettings(), tmp_path)
    with pytest.raises(InputError) as caught:
        trainer.fit()
    assert str(caught.value) == "video 7 has no features (extract it)"


def test_bf16_computes_in_bfloat16_and_keeps_float32_weights(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, {"precision": "bf16"})
    seen: list[torch.dtype] = []
    trainer.system.body[0].register_forward_hook(lambda *arguments: seen.append(arguments[2].dtype))  # type: ignore[index, union-attr]
    scalars = trainer.train_step(*trainer.loaders.next()[1])
    assert seen == [torch.bfloat16]
    assert scalars["loss"].dtype == torch.float32
    assert {tensor.dtype for tensor in trainer.system.state_dict().values()} == {torch.float32}


@pytest.mark.gpu
def test_training_on_a_gpu_resumes(tmp_path: Path) -> None:
    world = World(device=torch.device("cuda", 0))
    tiny_trainer(tmp_path, {"max_steps": 3}, world=world).fit()
    resumed = tiny_trainer(tmp_path, world=world)
    assert resumed.step == 3
    resumed.fit()
    assert checkpoint.latest(tmp_path) == checkpoint.path_of(tmp_path, 20)
