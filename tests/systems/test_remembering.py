"""What a system remembers from step to step are buffers: checkpoints and resuming carry them unknowing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from regionvlp.data.draws import Draws
from regionvlp.systems.base import Trainable
from regionvlp.training.distributed import World
from regionvlp.training.loaders import Loader
from regionvlp.training.run_folder import open_run
from regionvlp.training.settings import OptimSettings, TrainSettings
from regionvlp.training.trainer import Trainer


class Momentum(Trainable):
    """A line, a slow copy of it, and a queue of what it last gave: the loss reads all three."""

    inputs = ("x",)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.line = nn.Linear(3, 2)
        self.register_buffer("slow", self.line.weight.detach().clone())
        self.register_buffer("queue", torch.zeros(6, 2))
        self.register_buffer("snapshot", self.line.weight.detach().clone())
        self.called: list[tuple[str, int]] = []

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = self.line(batch["x"])
        self._latest = found.detach()
        pull = (batch["x"] @ (self.slow - self.snapshot).T - found).square().mean()
        return {"pull_loss": pull, "queue_loss": (found[:, None] - self.queue).square().mean()}

    def after_step(self, step: int) -> None:
        self.called.append(("step", step))
        self.slow.lerp_(self.line.weight.detach(), 0.1)
        self.queue.copy_(torch.cat([self.queue, self._latest])[-6:])

    def after_epoch(self, epoch: int) -> None:
        self.called.append(("epoch", epoch))
        self.snapshot.copy_(self.line.weight.detach())


class Points:
    def __len__(self) -> int:
        return 12

    def read(self, samples: list[int], epoch: int) -> dict[str, Tensor]:
        return {"x": torch.from_numpy(Draws((epoch,), samples).uniform(0, 3)).float()}


def trainer(run: Path, steps: int, form: Momentum) -> Trainer:
    train = TrainSettings(
        batch_size=4, workers=0, device="cpu", epochs=5, max_steps=steps, eval_every="never", save_every="never"
    )
    candidates = open_run(run, "{}").candidates
    made = Trainer(form, [Loader(Points(), train, World())], train, OptimSettings(lr=0.05, schedule="constant"), run)
    made.resume(candidates)
    return made


def test_a_run_that_was_cut_remembers(tmp_path: Path) -> None:
    whole, first, second = Momentum(), Momentum(), Momentum()
    trainer(tmp_path / "whole", 11, whole).fit()
    trainer(tmp_path / "cut", 4, first).fit()  # in the middle of an epoch
    trainer(tmp_path / "cut", 11, second).fit()
    for (name, one), (_, other) in zip(whole.state_dict().items(), second.state_dict().items(), strict=True):
        assert torch.equal(one, other), name
    assert not torch.equal(whole.snapshot, whole.slow)
    assert whole.called == [
        entry for step in range(1, 12) for entry in [("step", step), *([("epoch", step // 3)] if step % 3 == 0 else [])]
    ]
    assert first.called + second.called == whole.called
