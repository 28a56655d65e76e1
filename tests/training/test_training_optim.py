"""Settings, parameter groups, and learning rates against the public trainer's."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from regionvlp.config import load_config
from regionvlp.errors import ConfigError
from regionvlp.training.optim import build_optimizer, lr_at
from regionvlp.training.settings import OptimSettings, TrainSettings, is_due, split_batch

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("REGIONVLP_FIXTURES", REPOSITORY.parent / "shared" / "fixtures"))


def rates(settings: OptimSettings, steps_per_epoch: int, epochs: int) -> list[float]:
    total = steps_per_epoch * epochs
    return [lr_at(step, settings, steps_per_epoch, total) for step in range(total)]


def test_public_rates_are_those_of_the_public_trainer() -> None:
    """The table of the specification, section 5.1, written out."""
    pretraining = OptimSettings(schedule="public")
    expected = [1e-5, *[2e-4] * 29, *[2e-5] * 10, *[2e-6] * 10]
    assert rates(pretraining, 3, 50)[::3] == pytest.approx(expected)
    assert rates(pretraining, 3, 50)[2::3] == pytest.approx(expected)
    finetuning = OptimSettings(schedule="public", milestones=(2, 4, 8))
    expected = [1e-5, 2e-4, 2e-5, 2e-5, *[2e-6] * 4, 2e-7, 2e-7]
    assert rates(finetuning, 1, 10) == pytest.approx(expected)


def test_public_rates_match_the_golden_files() -> None:
    files = sorted((SHARED / "demovlp").glob("public_lr_schedule*.json"))
    if not files:
        pytest.skip("no golden learning rates here")
    for case in (case for file in files for case in json.loads(file.read_text())):
        settings = OptimSettings(
            schedule="public",
            lr=case["first_epoch_lr"],
            lr_after_first_epoch=case["learning_rate1"],
            milestones=tuple(case["schedule"]),
        )
        expected = case["lr_used_in_epoch"]
        assert rates(settings, 2, len(expected))[::2] == pytest.approx(expected, rel=1e-12)


def test_paper_rates_decay_by_ten_after_30_and_40_epochs() -> None:
    expected = [*[1e-5] * 30, *[1e-6] * 10, *[1e-7] * 10]
    assert rates(OptimSettings(schedule="paper"), 1, 50) == pytest.approx(expected)


def test_cosine_ends_at_zero_and_warms_up_linearly() -> None:
    cosine = rates(OptimSettings(schedule="cosine", lr=1.0, warmup_steps=4), 14, 1)
    assert cosine[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert cosine[4] == 1.0
    assert cosine[9] == pytest.approx(0.5)
    assert all(later < earlier for earlier, later in pairwise(cosine[4:]))
    assert lr_at(14, OptimSettings(schedule="cosine", lr=1.0), 14, 14) == pytest.approx(0.0)


def test_warm_up_lies_on_top_of_any_schedule() -> None:
    public = OptimSettings(schedule="public", lr=1.0, lr_after_first_epoch=10.0, warmup_steps=4)
    assert rates(public, 2, 3) == pytest.approx([0.25, 0.5, 7.5, 10.0, 10.0, 10.0])
    constant = OptimSettings(schedule="constant", lr=1.0, warmup_steps=2)
    assert rates(constant, 1, 4) == pytest.approx([0.5, 1.0, 1.0, 1.0])


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(3, 3), nn.LayerNorm(3)
        self.words = nn.Embedding(5, 3)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 3))
        self.pos_embed = nn.Parameter(torch.zeros(1, 4, 3))
        self.frozen = nn.Linear(3, 3).requires_grad_(False)


def decay_by_name(module: nn.Module, **settings: Any) -> dict[str, float]:
    optimizer = build_optimizer(module, OptimSettings(**settings))
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return {names[id(p)]: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}


def test_biases_norms_and_embeddings_do_not_decay() -> None:
    decay = decay_by_name(Small(), weight_decay=0.1)
    assert {name for name, value in decay.items() if value} == {"linear.weight"}
    assert len(decay) == 7
    assert set(decay_by_name(Small(), weight_decay=0.1, decay_everything=True).values()) == {0.1}


def test_the_optimizer_has_the_settings_and_only_what_trains() -> None:
    optimizer = build_optimizer(Small(), OptimSettings(lr=3e-4, betas=(0.8, 0.9), eps=1e-5))
    assert [optimizer.defaults[name] for name in ("lr", "betas", "eps")] == [3e-4, (0.8, 0.9), 1e-5]
    with pytest.raises(ConfigError, match="no parameter requires a gradient"):
        build_optimizer(Small().requires_grad_(False), OptimSettings())


def test_defaults_are_the_public_optimizer() -> None:
    settings = OptimSettings()
    assert (settings.betas, settings.eps, settings.weight_decay, settings.clip_norm) == ((0.9, 0.999), 1e-6, 0.0, None)


@pytest.mark.parametrize(
    ("model", "values", "words"),
    [
        (OptimSettings, {"lr": 0}, "lr = 0"),
        (OptimSettings, {"betas": [0.9, 1.0]}, "betas.1"),
        (OptimSettings, {"milestones": [40, 30]}, "milestones must ascend"),
        (OptimSettings, {"schedule": "linear"}, "'constant', 'cosine', 'paper' or 'public'"),
        (OptimSettings, {"weight_decy": 1}, "did you mean 'weight_decay'"),
        (TrainSettings, {"batch_size": 0}, "batch_size = 0"),
        (TrainSettings, {"eval_every": "often"}, "eval_every = 'often'"),
        (TrainSettings, {"save_every": "0 steps"}, "save_every"),
        (TrainSettings, {"device": "tpu"}, "device = 'tpu'"),
    ],
)
def test_a_value_out_of_range_is_one_line(model: type[OptimSettings], values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(model, values)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_batch_divides_among_processes_and_parts() -> None:
    assert split_batch(48, 4, 3) == 4
    with pytest.raises(ConfigError, match="48 does not divide among 5 processes x 2 parts"):
        split_batch(48, 5, 2)


def test_intervals() -> None:
    assert [step for step in range(1, 13) if is_due("2 epochs", step, 3)] == [6, 12]
    assert [step for step in range(1, 13) if is_due("1 epoch", step, 5)] == [5, 10]
    assert [step for step in range(1, 13) if is_due("5 steps", step, 3)] == [5, 10]
    assert not any(is_due("never", step, 1) for step in range(1, 13))
