"""The space-time transformer against golden numbers of the public Frozen and TimeSformer: every stage, gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from regionvlp.data.clips.frame_choice import FrameChoice, window_starts
from regionvlp.models.attention import Block
from regionvlp.models.inflation import inflate_frames
from regionvlp.models.pretrained import load_vit, timesformer_name
from regionvlp.models.settings import SpaceTimeSettings
from regionvlp.models.space_time import SpaceTimeEncoder

from .demovlp_case import close, gradients_close
from .discovery import Case, cases
from .end_to_end_case import EXACT, EndToEndCase, encoder_settings


def encoder(golden: EndToEndCase, **settings: Any) -> SpaceTimeEncoder:
    """The encoder of a case, float64, with the parameters that its file lists by their public names."""
    model = SpaceTimeEncoder(SpaceTimeSettings.model_validate(encoder_settings(golden.meta["cfg"], **settings)))
    state = {timesformer_name(name): tensor for name, tensor in golden.state().items()}
    found = model.load_state_dict(state, strict=False)
    assert (found.missing_keys, found.unexpected_keys) == (["proj.weight", "proj.bias"], [])
    return model.double()


def clips(golden: EndToEndCase, frames: int) -> Tensor:
    """The input of a case with so many frames."""
    name = golden.meta["input_name"].replace("<F>", str(frames))
    height, width = np.broadcast_to(golden.meta["cfg"]["img_size"], 2).tolist()
    return golden.given(name, (golden.meta.get("batch", 2), frames, 3, height, width))


def feature(model: SpaceTimeEncoder, video: Tensor) -> Tensor:
    """CLS of a clip before the projection."""
    return model.encode(model.place(model.patches(video)), video.shape[1])[:, 0]


def check_stages(model: SpaceTimeEncoder, golden: EndToEndCase, video: Tensor) -> None:
    """Everything that the file holds of a forward pass."""
    frames, prefix = video.shape[1], f"F{video.shape[1]}/"
    x = model.place(model.patches(video))
    golden.agree(x, f"{prefix}tokens_in")
    for number, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        assert block.timeattn is not None
        golden.agree(block.timeattn(block.norm3(x), frames), f"{prefix}block{number}_time_attn_out")
        seen = block.norm1(block.seen(x, frames))
        golden.agree(block.attn(seen, frames), f"{prefix}block{number}_space_attn_out")
        x = block(x, frames)
        golden.agree(x, f"{prefix}block{number}_out")
    golden.agree(model.norm(x), f"{prefix}tokens_normed")
    golden.agree(model.norm(x)[:, 0], f"{prefix}feature")


@pytest.mark.parametrize("case", cases("end_to_end", "stformer_"))
def test_frozen_stages(case: Case) -> None:
    golden = EndToEndCase(case)
    model = encoder(golden)
    for frames in golden.meta["frames"]:
        check_stages(model, golden, clips(golden, frames))
        shown = torch.ones(golden.meta["batch"], frames, dtype=torch.bool)
        video = clips(golden, frames)
        masked = model.encode(model.place(model.patches(video)), frames, shown)  # the kernels that take a mask
        close(masked[:, 0], golden[f"F{frames}/feature"])


@pytest.mark.parametrize("case", cases("end_to_end", "stformer_"))
def test_frozen_in_float32(case: Case) -> None:
    golden = EndToEndCase(case)
    model = encoder(golden).float()
    for frames in golden.meta["frames"]:
        close(feature(model, clips(golden, frames).float()), golden[f"F{frames}/feature"], 2e-5)


@pytest.mark.parametrize("case", cases("end_to_end", "stformer_"))
def test_frozen_gradients(case: Case) -> None:
    golden = EndToEndCase(case)
    grads = golden.section("grad/")
    if not grads:
        return
    model = encoder(golden)
    video = clips(golden, grads["input"].shape[1]).requires_grad_()
    found = feature(model, video)
    loss = (found * golden.given(golden.meta["probe_name"], found.shape)).sum()
    close(loss, grads.pop("loss"))
    loss.backward()
    parameters = {name: x for name, x in model.named_parameters() if not name.startswith("proj.")}
    for name, grad in grads.items():
        own = video.grad if name == "input" else parameters[name].grad
        gradients_close(own, grad, 1e-8 * float(grad.abs().max()))
    norms = golden.texts["grad/norms_json"]
    assert set(norms) == set(parameters)
    for name, norm in norms.items():
        close(parameters[name].grad.norm(), torch.tensor(norm, dtype=torch.float64), 1e-8 * norm)


@pytest.mark.parametrize("case", cases("end_to_end", "timesformer_"))
def test_timesformer(case: Case) -> None:
    golden = EndToEndCase(case)
    model = encoder(golden, attention="timesformer")
    for frames in golden.meta["frames"]:
        video = clips(golden, frames)
        x = model.place(model.patches(video))
        golden.agree(patch_major(x, frames), f"F{frames}/tokens_in")
        for number, block in enumerate(model.blocks):
            x = block(x, frames)
            golden.agree(patch_major(x, frames), f"F{frames}/block{number}_out")
        golden.agree(model.norm(x)[:, 0], f"F{frames}/feature")
        shown = torch.ones(len(video), frames, dtype=torch.bool)
        masked = model.encode(model.place(model.patches(video)), frames, shown)
        close(masked[:, 0], golden[f"F{frames}/feature"])
    fresh = SpaceTimeEncoder(model.settings).state_dict()
    for name, (low, high) in golden.meta.get("fresh_temporal_fc_min_max", {}).items():
        values = fresh[timesformer_name(name)]
        assert (float(values.min()), float(values.max())) == (low, high)


def patch_major(tokens: Tensor, frames: int) -> Tensor:
    """Tokens in TimeSformer's order: one place after another, time fastest."""
    places = tokens[:, 1:].unflatten(1, (frames, -1)).transpose(1, 2).flatten(1, 2)
    return torch.cat([tokens[:, :1], places], dim=1)


@pytest.mark.parametrize("case", cases("end_to_end", "stformer_zero_init"))
def test_zeros_as_the_public_code_starts(case: Case, tmp_path: Path) -> None:
    golden = EndToEndCase(case)
    vit = golden.state("vit_params", golden.meta["vit_param_prefix"])
    save_file(vit, tmp_path / "vit.safetensors")
    settings = encoder_settings(golden.meta["cfg"], time_init="zeros")
    model = SpaceTimeEncoder(SpaceTimeSettings.model_validate(settings)).double()
    loaded = load_vit(model, str(tmp_path / "vit.safetensors"))
    assert loaded.ignored == sorted(golden.meta["unexpected_keys"])
    own = {name for name in model.state_dict() if not name.startswith("proj.")}
    assert sorted(own - set(loaded.taken)) == sorted(golden.meta["missing_keys"])
    for name, fresh in golden.meta["fresh_values"].items():
        tensor = model.state_dict()[name]
        assert (list(tensor.shape), float(tensor.min()), float(tensor.max())) == (
            fresh["shape"], fresh["min"], fresh["max"],
        )  # fmt: skip
    for frames in golden.meta["frames"]:
        close(feature(model, clips(golden, frames)), golden[f"feature_F{frames}"])
        if frames == 1:
            close(feature(model, clips(golden, frames)), golden["image_vit_feature"])
    found = feature(model, clips(golden, max(golden.meta["frames"])))
    (found * golden.given(golden.meta["probe_name"], found.shape)).sum().backward()
    check_saddle(model, golden)


def check_saddle(model: SpaceTimeEncoder, golden: EndToEndCase) -> None:
    """Of the first block's attention over time, nothing but the output's bias has a gradient."""
    block = model.blocks[0]
    assert isinstance(block, Block)
    assert block.timeattn is not None
    grad_q, grad_k, grad_v = block.timeattn.qkv.weight.grad.chunk(3)
    assert float(grad_q.norm()) == float(golden["grad_time_q_rows_norm"])
    assert float(grad_k.norm()) == float(golden["grad_time_k_rows_norm"])
    assert float(grad_v.abs().max()) < 1e-10
    close(block.timeattn.proj.weight.grad.norm(), golden["grad_time_proj_weight_norm"], 1e-10)
    bias = golden["grad_time_proj_bias"]
    gradients_close(block.timeattn.proj.bias.grad, bias, 1e-8 * float(bias.abs().max()))


@pytest.mark.parametrize("case", cases("end_to_end", "cls_attention"))
def test_cls_attention(case: Case) -> None:
    golden = EndToEndCase(case)
    model, frames = encoder(golden), golden.meta["frames"]
    video = clips(golden, frames)
    x = model.place(model.patches(video))
    for block in model.blocks[:-1]:
        x = block(x, frames)
    last = model.blocks[-1]
    assert isinstance(last, Block)
    assert last.timeattn is not None
    close(last.timeattn.cls_weights(last.norm3(x)), golden["last_time_cls_attention"])
    close(last.attn.cls_weights(last.norm1(last.seen(x, frames))), golden["last_space_cls_attention"])
    close(model.cls_map(video), golden["map_mean_over_heads"])
    close(feature(model, video), golden["feature"])


@pytest.mark.parametrize("case", cases("end_to_end", "temporal_inflation"))
def test_inflation_of_frozen(case: Case) -> None:
    golden = EndToEndCase(case)
    for row in golden.meta["cases"]:
        found = inflate_frames(golden[f"{row['index']}/in"], row["frames_out"], row["mode"])
        close(found, golden[f"{row['index']}/out"], 1e-6)


@pytest.mark.parametrize("case", cases("end_to_end", "stride_average"))
def test_mean_over_windows(case: Case) -> None:
    golden = EndToEndCase(case)
    meta, model = golden.meta, encoder(golden)
    starts = window_starts(meta["vlen"], meta["num_frames"], meta["stride"])
    assert starts == golden["starts"].tolist()
    slots, shown = FrameChoice(meta["num_frames"]).slots([meta["vlen"]] * len(starts), starts=starts)
    assert shown.all()
    assert np.array_equal(slots, golden["frame_indices"].numpy())
    side = meta["cfg"]["img_size"]
    video = golden.given(meta["input_name"], (meta["vlen"], 3, side, side))
    found = feature(model, video[torch.from_numpy(slots)])
    close(found, golden["clip_features"], EXACT)
    close(found.mean(0), golden["mean_feature"], EXACT)
