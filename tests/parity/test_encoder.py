"""The region encoder against golden numbers of the public code: outputs, hidden states, gradients."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch
from torch import Tensor

from regionvlp.models import Encoded, RegionEncoder, RegionEncoderSettings

from .demovlp_case import EXACT, DemovlpCase, close, gradients_close
from .discovery import Case, cases


def public_encoder(config: dict[str, object]) -> RegionEncoder:
    """A region encoder in the public form, of the sizes of a case."""
    settings = {
        "feature_width": config["feat_dim"],
        "loc_dim": config["pos_dim"],
        "width": config["embed_dim"],
        "depth": config["depth"],
        "heads": config["heads"],
        "frames": config.get("model_frames", config["frames"]),
        "regions": config["regions"],
        "attention": "frame",
        "time_attention": config.get("time_module") == "timeattn",
        "final_norm": False,
        "joint_width": config["out_dim"],
    }
    return RegionEncoder(RegionEncoderSettings.model_validate(settings))


def encode(model: RegionEncoder, regions: Tensor, mask: Tensor) -> tuple[Tensor, Encoded]:
    """The output with CLS in front, as the public code returns it, and as ours does."""
    features, location = regions.split([model.settings.feature_width, model.settings.loc_dim], dim=-1)
    encoded = model(features, location, mask > 0)
    return torch.cat([encoded.pooled[:, None], encoded.tokens], dim=1), encoded


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("case", cases("demovlp", "enc_"))
def test_region_encoder(case: Case, dtype: torch.dtype) -> None:
    golden = DemovlpCase(case)
    model = public_encoder(golden.config).to(dtype)
    model.load_state_dict(golden.section("param/"))
    hidden: list[Tensor] = []
    model.proj.register_forward_pre_hook(lambda module, inputs: hidden.append(inputs[0]))
    regions = golden["input"].to(dtype).requires_grad_()
    output, encoded = encode(model, regions, golden["mask"])
    double = dtype is torch.float64
    close(output, golden["output"], EXACT if double else 1e-4 * float(golden["output"].abs().max()))
    close(hidden[0], golden["hidden"], EXACT if double else 1e-4 * float(golden["hidden"].abs().max()))
    assert torch.equal(encoded.mask, golden["output_mask"][:, 1:] == 0)

    (output * golden["probe"].to(dtype)).sum().backward()
    within = EXACT if double else None
    gradients_close(regions.grad, golden["grad_input"], within)
    parameters = dict(model.named_parameters())
    for name, grad in golden.section("grad/").items():
        gradients_close(parameters[name].grad, grad, within)
    untouched = {name for name, parameter in parameters.items() if parameter.grad is None}
    assert untouched == set(golden.config["params_without_grad"])


@pytest.mark.parametrize("case", cases("demovlp", "enc_full", slow=lambda case: True))
def test_region_encoder_at_full_size(case: Case) -> None:
    golden = DemovlpCase(case)
    model = public_encoder(golden.config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(recipe(name, tuple(parameter.shape)))
        check_recipe(model, golden)
        output, encoded = encode(model, golden["input"], golden["mask"])
    close(output, golden["output"], 1e-4 * float(golden["output"].abs().max()))
    assert torch.equal(encoded.mask, golden["output_mask"][:, 1:] == 0)


def recipe(name: str, shape: tuple[int, ...]) -> Tensor:
    """The README's random parameter of this name and shape."""
    z = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()))).standard_normal(shape)
    last = name.rsplit(".", 1)[-1]
    if last in {"cls_token", "custom_pos_embed", "temporal_embed"}:
        z = 0.5 * z
    elif len(shape) >= 2:
        z = z / np.sqrt(shape[-1])
    elif last == "weight":
        z = 1 + 0.1 * z
    else:
        z = 0.1 * z
    return torch.from_numpy(z.astype(np.float32))


def check_recipe(model: RegionEncoder, golden: DemovlpCase) -> None:
    """The few parameter values that a case stores, so that a wrong recipe is not taken for a wrong model."""
    close(model.cls_token.flatten()[: len(golden["check_cls"])], golden["check_cls"], 1e-6)
    rows, columns = golden["check_qkv"].shape
    corners = [
        weight[:rows, :columns] for name, weight in model.named_parameters() if name.endswith(".attn.qkv.weight")
    ]
    # The README does not say of which block the corner is.
    assert min(float((corner - golden["check_qkv"]).abs().max()) for corner in corners) < 1e-6
