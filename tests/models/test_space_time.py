"""The space-time transformer: who sees whom, frames that are not there, places in time, starts, sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor

from regionvlp.errors import InputError, WeightsError
from regionvlp.models.attention import Block
from regionvlp.models.inflation import resize_positions
from regionvlp.models.pretrained import load_vit
from regionvlp.models.settings import SpaceTimeSettings
from regionvlp.models.space_time import SpaceTimeEncoder

SMALL: dict[str, Any] = {
    "image_size": (16, 24), "patch_size": 8, "width": 16, "depth": 2, "heads": 4, "frames": 3, "joint_width": 8,
    "time_init": "random",
}  # fmt: skip
FORMS = ["frozen", "timesformer", "joint"]


def small(**changes: Any) -> SpaceTimeEncoder:
    torch.manual_seed(0)
    model = SpaceTimeEncoder(SpaceTimeSettings(**{**SMALL, **changes})).double()
    torch.nn.init.normal_(model.temporal_embed)
    return model


def clips(frames: int = 3, batch: int = 2, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, frames, 3, 16, 24, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("form", FORMS)
def test_a_clip_and_its_patches(form: str) -> None:
    encoded = small(attention=form)(clips())
    assert (encoded.pooled.shape, encoded.tokens.shape) == ((2, 8), (2, 3 * 6, 8))
    assert encoded.mask.all()


@pytest.mark.parametrize("form", FORMS)
def test_frames_that_are_not_there_change_nothing(form: str) -> None:
    """A clip padded to more frames is encoded as without them: what stands there is not read."""
    model, video = small(attention=form), clips(3)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    if form == "timesformer":  # which spreads its rows in time over the frames of a batch
        model.temporal_embed.data[:] = model.temporal_embed[:, :1]
    padded = model(torch.where(mask[:, :, None, None, None], video, 9.0), mask)
    alone, whole = model(video[:1, :2]), model(video[1:])
    torch.testing.assert_close(padded.pooled[:1], alone.pooled, rtol=0, atol=1e-12)
    torch.testing.assert_close(padded.tokens[:1, :12], alone.tokens, rtol=0, atol=1e-12)
    torch.testing.assert_close(padded.pooled[1:], whole.pooled, rtol=0, atol=1e-12)
    assert padded.mask.tolist() == [[True] * 12 + [False] * 6, [True] * 18]


@pytest.mark.parametrize("form", FORMS)
def test_order_is_known_from_the_temporal_embedding_alone(form: str) -> None:
    model, video, order = small(attention=form), clips(), [2, 0, 1]
    assert not torch.allclose(model(video).pooled, model(video[:, order]).pooled)
    torch.nn.init.zeros_(model.temporal_embed)
    torch.testing.assert_close(model(video).pooled, model(video[:, order]).pooled, rtol=0, atol=1e-12)


def test_pixels_are_normalised_on_the_way() -> None:
    model = small(mean=(0.5, 0.25, 0.0), std=(0.5, 0.5, 2.0)).float()
    pixels = torch.randint(0, 256, (2, 3, 3, 16, 24), dtype=torch.uint8)
    scaled = (pixels / 255 - torch.tensor([0.5, 0.25, 0.0]).view(3, 1, 1)) / torch.tensor([0.5, 0.5, 2]).view(3, 1, 1)
    torch.testing.assert_close(model(pixels).pooled, model(scaled).pooled, rtol=0, atol=1e-6)


def test_patches_are_the_convolution_of_the_public_weights() -> None:
    model, video = small(image_size=(19, 26)), torch.randn(2, 3, 3, 19, 26, dtype=torch.float64)
    convolved = model.patch_embed.proj(video.flatten(0, 1)).flatten(2).transpose(1, 2).unflatten(0, (2, 3))
    torch.testing.assert_close(model.patches(video), convolved, rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", ["frozen", "timesformer"])
def test_starts_without_effect(form: str) -> None:
    """At the start a clip of one frame is an image to the same ViT, and time learns from the first step on."""
    video, features = clips(), {}
    for start in ("zero_proj", "zeros"):
        model = small(attention=form, time_init=start)
        torch.nn.init.zeros_(model.temporal_embed)
        joint = small(attention="joint")
        joint.load_state_dict({k: v for k, v in model.state_dict().items() if k in joint.state_dict()})
        torch.nn.init.zeros_(joint.temporal_embed)
        torch.testing.assert_close(model(video[:, :1]).pooled, joint(video[:, :1]).pooled, rtol=0, atol=1e-12)
        features[start] = model(video).pooled
        features[start].square().sum().backward()
        block = model.blocks[0]
        taught = block.timeattn.proj.weight if form == "frozen" else block.temporal_fc.weight
        dead = form == "frozen" and start == "zeros"
        assert bool(taught.grad.norm() < 1e-10) is dead
    torch.testing.assert_close(features["zero_proj"], features["zeros"], rtol=0, atol=1e-12)


def test_the_map_of_cls_sums_to_less_than_one() -> None:
    found = small().cls_map(clips())
    assert found.shape == (2, 3, 2, 3)
    assert bool((found > 0).all())
    assert bool((found.sum((1, 2, 3)) < 1).all())
    with pytest.raises(InputError, match="no one map"):
        small(attention="timesformer").cls_map(clips())


def test_what_does_not_fit() -> None:
    with pytest.raises(InputError, match="4 frames given to a model built for 3"):
        small()(clips(4))
    assert small(attention="timesformer")(clips(4)).pooled.shape == (2, 8)
    with pytest.raises(InputError, match=r"pixels of shape \[2, 3, 3, 16, 16\], expected \[B, F, 3, 16, 24\]"):
        small()(clips()[..., :16])
    with pytest.raises(InputError, match="frame_mask has dtype"):
        small()(clips(), torch.ones(2, 3))
    for wrong in ({"width": 18}, {"image_size": 7}, {"std": (0, 1, 1)}):
        with pytest.raises(ValidationError):
            small(**wrong)


def vit_of(model: SpaceTimeEncoder) -> dict[str, Tensor]:
    """A timm ViT that fits a model."""
    foreign = {"norm3", "timeattn", "temporal_embed"}
    state = {k: torch.randn_like(v.float()) for k, v in model.state_dict().items() if not foreign & set(k.split("."))}
    state = {name: tensor for name, tensor in state.items() if not name.startswith("proj.")}
    return state | {"head.weight": torch.randn(5, 16), "head.bias": torch.randn(5)}


def test_a_vit_by_name(tmp_path: Path) -> None:
    model = small(time_init="zero_proj")
    vit = vit_of(model)
    save_file(vit, tmp_path / "vit.safetensors")
    loaded = load_vit(model, str(tmp_path / "vit.safetensors"))
    assert loaded.ignored == ["head.bias", "head.weight"]
    state = model.state_dict()
    for name, tensor in vit.items():
        assert name in loaded.ignored or torch.equal(state[name], tensor.double())
    block = model.blocks[1]
    assert isinstance(block, Block)
    assert block.timeattn is not None
    assert torch.equal(block.timeattn.qkv.weight, block.attn.qkv.weight)
    assert torch.equal(block.norm3.weight, block.norm1.weight)
    assert not block.timeattn.proj.weight.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda vit: vit.pop("pos_embed"), r"missing \(pos_embed\)"),
        (lambda vit: vit.update({"blocks.2.norm1.weight": torch.zeros(16)}), "1 tensors that have no place here"),
        (lambda vit: vit.update({"pos_embed": torch.zeros(1, 17, 16)}), "pos_embed"),
        (lambda vit: vit.update({"blocks.0.ls1.gamma": torch.zeros(16)}), r"blocks\.0\.ls1\.gamma"),
    ],
)
def test_another_vit_is_refused(change: Any, message: str, tmp_path: Path) -> None:
    model = small()
    vit, before = vit_of(model), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    change(vit)
    save_file(vit, tmp_path / "vit.safetensors")
    with pytest.raises(WeightsError, match=message):
        load_vit(model, str(tmp_path / "vit.safetensors"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_timesformer_brings_its_attention_over_time(tmp_path: Path) -> None:
    source, model = small(attention="timesformer"), small(attention="timesformer", time_init="zeros")
    names = {"temporal_embed": "time_embed", "timeattn": "temporal_attn", "norm3": "temporal_norm1"}
    public = {
        ".".join(["model", *(names.get(part, part) for part in name.split("."))]): tensor
        for name, tensor in source.state_dict().items()
        if not name.startswith("proj.")
    }
    save_file(public, tmp_path / "timesformer.safetensors")
    assert load_vit(model, str(tmp_path / "timesformer.safetensors")).ignored == []
    model.proj.load_state_dict(source.proj.state_dict())
    assert torch.equal(model(clips()).pooled, source(clips()).pooled)


def test_positions_for_another_size() -> None:
    rows = torch.randn(1, 1 + 16, 4)
    assert resize_positions(rows, (4, 4)) is rows
    plane = torch.arange(4.0).view(1, 4, 1) + torch.zeros(4, 1, 4)  # each row of patches rises from left to right
    smooth = torch.cat([rows[:, :1], plane.flatten(0, 1)[None]], dim=1)
    larger = resize_positions(smooth, (8, 8))
    assert torch.equal(larger[:, 0], rows[:, 0])
    across = larger[0, 1:].unflatten(0, (8, 8))[3, 2:6, 0]
    torch.testing.assert_close(across, torch.tensor([0.75, 1.25, 1.75, 2.25]), atol=0.1, rtol=0)
    assert resize_positions(rows[:, :7], (2, 3)).shape == (1, 7, 4)
    with pytest.raises(WeightsError, match="6 positions of patches are no square grid, nor one of 3 x 3"):
        resize_positions(rows[:, :7], (3, 3))
