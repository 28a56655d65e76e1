"""Every parameter that asks for a gradient gets one, in every form a model can have: several processes wait for each.

What the public layout holds and a form does not use is frozen (:class:`regionvlp.models.attention.Block`), so that the
names of a state dict are the same in all forms.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from regionvlp.losses import REGION_WORD_PRESETS
from regionvlp.losses.settings import LossSettings
from regionvlp.models.settings import DualEncoderSettings
from regionvlp.systems.base import System
from regionvlp.systems.registry import build_system

FRAMES, REGIONS, WIDTH = 2, 3, 8
FORMS = list(product((6, 7), ("all", "frame"), (False, True), (False, True), (1, FRAMES)))
LOSSES: dict[str, dict[str, Any]] = {
    "global": {"use_local": False},
    "filip": {"use_global": False, "local": "filip"},
    "taco": {"use_global": False, "local": "taco"},
    "taco, idf": {"local": "taco", "word_weight": "idf"},
    **{f"local {name}": {"use_global": False, "region_word": form} for name, form in REGION_WORD_PRESETS.items()},
    **{f"both {name}": {"region_word": form} for name, form in REGION_WORD_PRESETS.items()},
}


def build(form: tuple[Any, ...], losses: dict[str, Any]) -> System:
    loc_dim, attention, time_attention, final_norm, frames = form
    video = {"feature_width": 6, "width": WIDTH, "depth": 2, "heads": 2, "regions": REGIONS, "joint_width": WIDTH}
    video |= {"loc_dim": loc_dim, "attention": attention, "time_attention": time_attention, "final_norm": final_norm}
    text = {"width": WIDTH, "depth": 1, "heads": 2, "mlp_width": 16, "max_length": 8, "joint_width": WIDTH}
    model = DualEncoderSettings.model_validate({"video": video | {"frames": frames}, "text": text})
    return build_system("demovlp", model, LossSettings.model_validate(losses), vocab_size=20)


def batch(form: tuple[Any, ...], regions: bool, words: bool) -> dict[str, Tensor]:
    """Two pairs; without ``regions`` no clip has any, without ``words`` no caption has one but SEP."""
    loc_dim, frames = form[0], form[-1]
    attended = torch.ones(2, 6, dtype=torch.bool)
    attended[:, 2:] = words
    return {
        "features": torch.randn(2, frames, REGIONS, 6),
        "location": torch.rand(2, frames, REGIONS, loc_dim),
        "region_mask": torch.full((2, frames, REGIONS), regions),
        "input_ids": torch.randint(5, 20, (2, 6)),
        "attention_mask": attended,
        "word_weight": torch.ones(2, 5) * words,
    }


def without_gradient(system: System, given: dict[str, Tensor]) -> list[str]:
    scalars = system({key: given[key] for key in system.inputs})
    torch.stack([value for name, value in scalars.items() if name.endswith("_loss")]).sum().backward()
    return [name for name, value in system.named_parameters() if value.requires_grad and value.grad is None]


@pytest.mark.parametrize("losses", LOSSES)
def test_every_form_uses_every_parameter(losses: str) -> None:
    for form in FORMS:
        system = build(form, LOSSES[losses])
        assert without_gradient(system, batch(form, regions=True, words=True)) == [], form


@pytest.mark.parametrize("losses", LOSSES)
@pytest.mark.parametrize(("regions", "words"), [(False, True), (True, False), (False, False)])
def test_a_batch_without_regions_or_words_uses_them_too(losses: str, regions: bool, words: bool) -> None:
    form = (7, "all", True, True, FRAMES)
    assert without_gradient(build(form, LOSSES[losses]), batch(form, regions, words)) == []


def test_what_a_form_does_not_use_is_frozen_and_keeps_its_name() -> None:
    systems = [build(form, LOSSES["global"]) for form in ((7, "all", True, True, 1), (7, "all", False, False, 1))]
    names = [set(system.state_dict()) for system in systems]
    assert {name for name in names[0] - names[1] if "timeattn" not in name} == set()
    frozen = {name for name, value in systems[1].named_parameters() if not value.requires_grad}
    assert frozen == {name for name in names[1] if "norm3" in name or ".video.norm." in name}
