"""The region encoder: who sees whom, what padding can do, sizes and starting values."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from regionvlp.errors import InputError
from regionvlp.models import RegionEncoder, RegionEncoderSettings
from regionvlp.models.attention import Attention, Reach

PUBLIC: dict[str, Any] = {"loc_dim": 6, "attention": "frame", "final_norm": False}
SMALL: dict[str, Any] = {"feature_width": 12, "width": 16, "depth": 2, "heads": 4, "regions": 4, "joint_width": 8}


def small(**changes: Any) -> RegionEncoder:
    torch.manual_seed(0)
    return RegionEncoder(RegionEncoderSettings(**{**SMALL, "frames": 3, **changes})).double()


def clips(batch: int = 2, frames: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(batch, frames, 4, 12, generator=generator, dtype=torch.float64)
    location = torch.rand(batch, frames, 4, 7, generator=generator, dtype=torch.float64)
    mask = torch.ones(batch, frames, 4, dtype=torch.bool)
    mask[0, -1, 2:] = False
    return features, location, mask


def dense_attention(layer: Attention, x_BTD: Tensor, mask_BFR: Tensor) -> Tensor:
    """One query at a time, over the keys that it may see."""
    batch, frames, regions = mask_BFR.shape
    query, key, value = (part.unflatten(-1, (layer.heads, -1)) for part in layer.qkv(x_BTD).chunk(3, dim=-1))
    place = [(None, None)] + [(f, r) for f in range(frames) for r in range(regions)]
    out = torch.zeros_like(query)
    for b in range(batch):
        for i, (frame, slot) in enumerate(place):
            seen = [0]
            for j, (f, r) in enumerate(place[1:], start=1):
                near = i == 0 or {"all": True, "frame": f == frame, "slot": r == slot}[layer.reach]
                if near and mask_BFR[b, f, r]:
                    seen.append(j)
            logits = torch.einsum("hd,shd->hs", query[b, i], key[b, seen]) / query.shape[-1] ** 0.5
            out[b, i] = torch.einsum("hs,shd->hd", logits.softmax(1), value[b, seen])
    return layer.proj(out.flatten(2))


@pytest.mark.parametrize("reach", ["all", "frame", "slot"])
def test_attention_is_one_softmax_over_the_keys_in_reach(reach: Reach) -> None:
    torch.manual_seed(0)
    layer = Attention(16, 4, reach).double()
    x = torch.randn(2, 1 + 3 * 4, 16, dtype=torch.float64)
    mask = clips()[2]
    mask[1, 2] = False  # a frame without regions
    torch.testing.assert_close(layer(x, 3, mask), dense_attention(layer, x, mask), rtol=0, atol=1e-12)


@pytest.mark.parametrize("changes", [{}, {"attention": "frame"}, {"time_attention": True}])
def test_padding_reaches_nothing_else(changes: dict[str, Any]) -> None:
    model = small(**changes)
    features, location, mask = clips()
    before = model(features, location, mask)
    other = features.clone()
    other[~mask] = 100.0
    after = model(other, location, mask)
    assert torch.equal(before.pooled, after.pooled)
    assert torch.equal(before.tokens[before.mask], after.tokens[after.mask])
    assert torch.equal(before.mask, mask.flatten(1))


@pytest.mark.parametrize("attention", ["all", "frame"])
def test_a_clip_without_regions_is_encoded_from_cls(attention: str) -> None:
    model = small(attention=attention, time_attention=True)
    features, location, mask = clips()
    mask[0] = False
    encoded = model(features.requires_grad_(), location, mask)
    assert encoded.pooled.isfinite().all()
    assert encoded.tokens.isfinite().all()
    encoded.pooled[0].sum().backward()
    assert torch.equal(features.grad, torch.zeros_like(features))


def test_the_order_of_regions_in_a_frame_means_nothing() -> None:
    model = small()
    features, location, mask = clips()
    order = [2, 0, 3, 1]
    straight = model(features, location, mask)
    shuffled = model(features[:, :, order], location[:, :, order], mask[:, :, order])
    torch.testing.assert_close(shuffled.pooled, straight.pooled, rtol=0, atol=1e-12)
    tokens = straight.tokens.unflatten(1, (3, 4))[:, :, order].flatten(1, 2)
    torch.testing.assert_close(shuffled.tokens, tokens, rtol=0, atol=1e-12)


def test_frames_meet_in_cls_only_under_frame_attention() -> None:
    features, location, mask = clips(batch=1)
    for attention, reaches in (("frame", False), ("all", True)):
        model = small(attention=attention, depth=1)
        x = features.clone().requires_grad_()
        model(x, location, mask).tokens[0, 0].sum().backward()
        assert bool((x.grad[0, 1] != 0).any()) is reaches


def test_fewer_frames_use_the_first_rows_of_the_temporal_embedding() -> None:
    model = small()
    torch.nn.init.normal_(model.temporal_embed)
    features, location, mask = clips(frames=1)
    before = model(features, location, mask).pooled
    with torch.no_grad():
        model.temporal_embed[:, 1:] += 1
    assert torch.equal(before, model(features, location, mask).pooled)


@pytest.mark.parametrize("regions", [1, 3, 9])
def test_any_number_of_regions_is_read(regions: int) -> None:
    """Only CLS has a row of its own in the position embedding, so the table's other rows say nothing."""
    model = small()
    features, location, mask = clips()
    index = torch.arange(regions) % 4
    found = model(features[:, :, index], location[:, :, index], mask[:, :, index])
    with torch.no_grad():
        model.custom_pos_embed[:, 1:] += 1
    assert found.tokens.shape == (2, 3 * regions, 8)
    assert torch.equal(found.pooled, model(features[:, :, index], location[:, :, index], mask[:, :, index]).pooled)


def test_half_precision_features_are_read() -> None:
    model = small().float()
    features, location, mask = clips()
    encoded = model(features.half(), location.float(), mask)
    assert encoded.tokens.dtype is torch.float32


def test_a_batch_of_other_sizes_is_refused() -> None:
    features, location, mask = clips()
    with pytest.raises(InputError, match="feature_width of the batch is 12, of the model 20"):
        small(feature_width=20)(features, location, mask)
    with pytest.raises(InputError, match="loc_dim"):
        small(loc_dim=6)(features, location, mask)
    with pytest.raises(InputError, match="3 frames given to a model built for 2"):
        small(frames=2)(features, location, mask)
    with pytest.raises(InputError, match="boolean"):
        small()(features, location, mask.float())
    with pytest.raises(InputError, match="shapes"):
        small()(features, location, mask[:1])


def test_width_must_be_a_multiple_of_heads() -> None:
    with pytest.raises(ValidationError, match="multiple of heads"):
        RegionEncoderSettings(width=16, heads=3)


@pytest.mark.parametrize(
    ("changes", "parameters"),
    [({"frames": 1}, 86_875_392), ({"frames": 8}, 86_880_768), ({"frames": 8, "time_attention": True}, 115_229_184)],
)
def test_parameters_are_those_of_the_public_model(changes: dict[str, Any], parameters: int) -> None:
    with torch.device("meta"):
        model = RegionEncoder(RegionEncoderSettings(**PUBLIC, **changes))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize(
    ("changes", "flops"),
    [
        ({"frames": 1}, 5_408_212_992),
        ({"frames": 8}, 42_073_608_192),
        ({"frames": 2, "time_attention": True}, 14_109_020_160),
    ],
)
def test_frame_attention_does_no_more_work_than_it_must(changes: dict[str, Any], flops: int) -> None:
    """The closed forms of the public model: 1 + R keys per region, not 1 + F * R."""
    frames = changes["frames"]
    with torch.device("meta"):
        model = RegionEncoder(RegionEncoderSettings(**PUBLIC, **changes)).eval()
        batch = torch.zeros(1, frames, 30, 2048), torch.zeros(1, frames, 30, 6), torch.ones(1, frames, 30).bool()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*batch)
    assert counter.get_total_flops() == flops


def test_what_nothing_reads_is_frozen_but_in_the_state_dict() -> None:
    model = small(final_norm=False)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    unread = {f"{norm}.{part}" for norm in ("norm", "blocks.0.norm3", "blocks.1.norm3") for part in ("weight", "bias")}
    assert frozen == unread
    encoded = model(*clips())
    (encoded.pooled.sum() + encoded.tokens.sum()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)


def test_starting_values() -> None:
    one, several = small(frames=1), small()
    assert not one.temporal_embed.any()
    assert not one.blocks[0].attn.qkv.bias.any()
    assert several.blocks[0].attn.qkv.bias.any()
    assert one.cls_token.std() < 0.05
