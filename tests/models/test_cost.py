"""Closed forms of what the encoders and the detector cost, against torch's counter and the published figures."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from regionvlp.extract.detector.config import FAMILIES
from regionvlp.extract.detector.cost import counted_frame, frame_cost, known_config
from regionvlp.models import RegionEncoder, RegionEncoderSettings, TextEncoder, TextEncoderSettings
from regionvlp.models.cost import (
    alignment_macs,
    counted_flops,
    parameters,
    space_time_macs,
    text_macs,
    video_macs,
)
from regionvlp.models.settings import SpaceTimeSettings
from regionvlp.models.space_time import SpaceTimeEncoder

PUBLIC: dict[str, Any] = {"loc_dim": 6, "attention": "frame", "final_norm": False}


@pytest.mark.parametrize(
    ("changes", "frames", "flops"),
    [
        (PUBLIC, 1, 5_408_212_992),
        (PUBLIC, 2, 10_646_126_592),
        (PUBLIC, 8, 42_073_608_192),
        (PUBLIC, 16, 83_976_916_992),
        ({**PUBLIC, "loc_dim": 7}, 1, 5_408_212_992 + 46_080),
        ({**PUBLIC, "time_attention": True}, 2, 14_109_020_160),
        ({"attention": "all"}, 3, None),
        ({"attention": "all", "time_attention": True, "depth": 2, "mlp_ratio": 2.5}, 3, None),
    ],
)
def test_the_video_encoder(changes: dict[str, Any], frames: int, flops: int | None) -> None:
    settings = RegionEncoderSettings(**changes, frames=frames)
    formula = 2 * video_macs(settings, frames, 30)
    assert flops in (None, formula)
    with torch.device("meta"):
        model = RegionEncoder(settings).eval()
        batch = torch.zeros(1, frames, 30, 2048), torch.zeros(1, frames, 30, settings.loc_dim)
        mask = torch.ones(1, frames, 30, dtype=torch.bool)
    assert counted_flops(lambda: model(*batch, mask)) == formula


def test_the_papers_figure_leaves_attention_products_out() -> None:
    settings = RegionEncoderSettings(**PUBLIC, frames=8)
    assert 2 * video_macs(settings, 8, 30, attention_products=False) == 41_790_455_808


@pytest.mark.parametrize("attention", ["frozen", "timesformer", "joint"])
@pytest.mark.parametrize("frames", [1, 3])
def test_the_space_time_transformer(attention: str, frames: int) -> None:
    settings = SpaceTimeSettings.model_validate(
        {"attention": attention, "frames": frames, "image_size": (32, 48), "width": 48, "heads": 4, "depth": 2}
    )
    with torch.device("meta"):
        model = SpaceTimeEncoder(settings).eval()
        video = torch.zeros(1, frames, 3, 32, 48)
    formula = sum(space_time_macs(settings, frames).values())
    assert counted_flops(lambda: model.encode(model.place(model.patches(video)), frames)) == 2 * formula


@pytest.mark.parametrize(("tokens", "flops"), [(32, 2_749_366_272), (100, 8_717_107_200)])
def test_the_text_encoder(tokens: int, flops: int) -> None:
    settings = TextEncoderSettings(vocab_size=30522)
    assert 2 * text_macs(settings, tokens) == flops
    with torch.device("meta"):
        model = TextEncoder(settings).eval()
        ids = torch.zeros(1, tokens, dtype=torch.long)
    assert counted_flops(lambda: model.projection(model.model(input_ids=ids).last_hidden_state)) == flops
    assert parameters(model) == 66_362_880 + 196_864


def test_alignment_as_the_public_code_writes_it_out() -> None:
    regions, words = torch.randn(30, 16), torch.randn(9, 16)

    def attended(queries: Tensor, contexts: Tensor) -> Tensor:
        return (queries @ contexts.T).softmax(1) @ contexts

    def both() -> None:
        attended(regions, words)
        attended(words, regions)

    assert counted_flops(both) == 2 * alignment_macs(30, 9, 16)


@pytest.mark.parametrize("size", [(600, 800), (562, 1000), (117, 333)])
@pytest.mark.parametrize("name", [*FAMILIES, "toy"])
def test_the_detector(name: str, size: tuple[int, int]) -> None:
    config = FAMILIES[name] if name in FAMILIES else known_config(name)
    assert frame_cost(config, *size) == counted_frame(config, *size)[0]


def test_the_detector_at_full_size() -> None:
    """The figures of Visual Genome's Faster R-CNN: in units of 1e9 multiply-adds, and of 1e6 parameters."""
    cost = frame_cost(known_config("vg-caffe"), 600, 800)
    assert [round(part / 1e9) for part in (cost.backbone, cost.proposals, cost.res5)] == [66, 9, 879]
    assert counted_frame(known_config("vg-hub"), 600, 800)[1] / 1e6 == pytest.approx(65.4, abs=0.1)
