"""A training run small enough for tests, and the command that runs it in processes that can be killed.

``python tiny_run.py RUN JSON``: the JSON holds ``train`` and ``optim`` settings, and optionally ``task`` arguments.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from regionvlp.config import resumable_keys
from regionvlp.data.draws import Draws
from regionvlp.errors import RegionVLPError, UnreadableItemsError
from regionvlp.systems.base import Trainable
from regionvlp.training.distributed import World, close_world, one_complaint, open_world
from regionvlp.training.loaders import Loader
from regionvlp.training.logbook import Logbook
from regionvlp.training.run_folder import open_run
from regionvlp.training.settings import OptimSettings, TrainSettings
from regionvlp.training.trainer import Trainer

MAY_DIFFER = {f"train.{key}" for key in resumable_keys(TrainSettings)}


class TinyTask(Trainable):
    """Two losses over a small network with dropout; at one step it may send a signal, or give a NaN."""

    inputs = ("x", "y", "name")

    def __init__(
        self, dropout: float = 0.2, signal_at: int = 0, number: int = 0, group: bool = False, nan_at: int = 0
    ) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 1))
        self.unused = nn.Linear(2, 2).requires_grad_(False)  # as what a public layout holds and a form does not use
        self.calls = 0
        self._signal_at, self._number, self._group, self._nan_at = signal_at, number, group, nan_at

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        assert len(batch["name"]) == len(batch["x"])
        self.calls += self.training
        if self.training and self.calls == self._signal_at:
            (os.killpg if self._group else os.kill)(os.getpgid(0) if self._group else os.getpid(), self._number)
        error = self.body(batch["x"]).squeeze(1) - batch["y"]
        size = self.body[0].weight.square().mean()
        if self.training and self.calls == self._nan_at:
            size = size * torch.nan
        return {"fit_loss": error.square().mean(), "size_loss": 0.1 * size, "error": error.abs().mean()}


class TinyData:
    """Samples with noise of their own, so that any that is out of step shows; some may be unreadable."""

    def __init__(self, size: int = 22, seed: int = 0, bad: tuple[int, ...] = ()) -> None:
        self.x = torch.randn(size, 4, generator=torch.Generator().manual_seed(seed))
        self.bad = bad

    def __len__(self) -> int:
        return len(self.x)

    def read(self, samples: Sequence[int], epoch: int) -> dict[str, Any]:
        bad = {at: f"clip{sample} is damaged" for at, sample in enumerate(samples) if sample in self.bad}
        if bad:
            raise UnreadableItemsError(bad)
        x = self.x[list(samples)]
        noise = torch.from_numpy(Draws((epoch,), samples).uniform(0)).float()
        return {"x": x + 0.1 * noise, "y": x.sum(1), "name": [f"clip{sample}" for sample in samples]}


def tiny_settings(train: Mapping[str, Any] | None = None) -> TrainSettings:
    """Of a run of twenty steps."""
    values = {"epochs": 4, "batch_size": 4, "workers": 0, "device": "cpu", "log_every": 1, "eval_every": "never"}
    return TrainSettings.model_validate({**values, "save_every": "never", **(train or {})})


def tiny_config(train: Mapping[str, Any] | None = None, sizes: tuple[int, ...] = (22,)) -> str:
    """What stands in the run folder."""
    return yaml.safe_dump({"train": tiny_settings(train).model_dump(), "sizes": list(sizes)})


def tiny_trainer(
    run: Path,
    train: Mapping[str, Any] | None = None,
    optim: Mapping[str, Any] | None = None,
    *,
    task: nn.Module | None = None,
    sizes: tuple[int, ...] = (22,),
    world: World | None = None,
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    resume: bool = True,
) -> Trainer:
    """A trainer on tiny data in the folder ``run``, resumed from its newest checkpoint."""
    train_settings = tiny_settings(train)
    optim_settings = OptimSettings.model_validate({"lr": 0.01, "schedule": "constant", **(optim or {})})
    world = world or World()
    candidates: tuple[Path, ...] = ()
    if resume:
        text = tiny_config(train, sizes)
        # Only what is written differs between processes, so each may look for itself; the main one writes.
        candidates = open_run(run, text, may_differ=MAY_DIFFER).candidates if world.is_main else ()
        candidates = world.from_main(candidates)
    loaders = [
        Loader(TinyData(size, seed=number), train_settings, world, name=f"set{number}", number=number)
        for number, size in enumerate(sizes)
    ]
    logbook = Logbook(run, tensorboard=False) if resume and world.is_main else None
    task = task or TinyTask()
    trainer = Trainer(
        task, loaders, train_settings, optim_settings, run, world=world, logbook=logbook, evaluate=evaluate
    )
    trainer.resume(candidates)
    return trainer


def main(run: Path, settings: dict[str, Any]) -> int:
    torch.set_num_threads(1)
    world = open_world("cpu")
    task = TinyTask(**settings.get("task", {}))
    sizes = tuple(settings.get("sizes", (22,)))
    trainer = tiny_trainer(run, settings.get("train"), settings.get("optim"), task=task, world=world, sizes=sizes)
    try:
        with one_complaint(world):
            trainer.fit()
    except KeyboardInterrupt:
        return 130
    except RegionVLPError as error:
        sys.stderr.write(f"error: {error.message}\n" if error.message else "")
        return error.exit_code
    finally:
        close_world(world)
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.exit(main(Path(sys.argv[1]), json.loads(sys.argv[2])))
