"""Weights that others trained: taken by name, and refused in one line where they do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertModel

from regionvlp.errors import InputError, WeightsError
from regionvlp.models import RegionEncoder, RegionEncoderSettings, TextEncoder, TextEncoderSettings
from regionvlp.models.pretrained import load_text_weights, load_vit

VIDEO: dict[str, Any] = {"feature_width": 12, "width": 16, "depth": 2, "heads": 4, "regions": 4, "joint_width": 8}
TEXT: dict[str, Any] = {"vocab_size": 30, "width": 16, "depth": 1, "heads": 4, "mlp_width": 32, "max_length": 10}


def video_encoder(**changes: Any) -> RegionEncoder:
    return RegionEncoder(RegionEncoderSettings(**{**VIDEO, **changes}))


def text_encoder(**changes: Any) -> TextEncoder:
    return TextEncoder(TextEncoderSettings(**{**TEXT, **changes}))


def vit(width: int = 16, depth: int = 3) -> dict[str, torch.Tensor]:
    """Random tensors under the names of a timm ViT."""
    shapes: dict[str, tuple[int, ...]] = {"cls_token": (1, 1, width), "pos_embed": (1, 5, width)}
    shapes |= {"patch_embed.proj.weight": (width, 3, 4, 4), "head.weight": (10, width), "head.bias": (10,)}
    linears = {"attn.qkv": (3 * width, width), "attn.proj": (width, width)}
    linears |= {"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
    for block in range(depth):
        for name, (rows, columns) in linears.items():
            shapes |= {f"blocks.{block}.{name}.weight": (rows, columns), f"blocks.{block}.{name}.bias": (rows,)}
    norms = [f"blocks.{block}.{norm}" for block in range(depth) for norm in ("norm1", "norm2")] + ["norm"]
    shapes |= {f"{norm}.{part}": (width,) for norm in norms for part in ("weight", "bias")}
    return {name: torch.randn(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_vit_fills_the_blocks(tmp_path: Path, suffix: str) -> None:
    tensors = vit()
    file = tmp_path / f"vit{suffix}"
    torch.save(tensors, file) if suffix == ".pth" else save_file(tensors, file)
    encoder = video_encoder(time_attention=True)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    loaded = load_vit(encoder, str(file))
    assert len(loaded.taken) == 2 * 12 + 3
    assert {"pos_embed", "patch_embed.proj.weight", "head.bias", "blocks.2.norm1.bias"} <= set(loaded.ignored)
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, tensors[name] if name in loaded.taken else before[name])
    left = set(before) - set(loaded.taken)
    assert {name.split(".")[-2] for name in left if "blocks" in name} == {"norm3", "qkv", "proj"}


def test_files_that_are_no_such_vit(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    for tensors, message in [
        (vit(depth=1), r"not a timm ViT of these sizes: tensors \d+ missing \(blocks.1.norm1.weight, "),
        (vit(width=8), r"of another shape \(cls_token \[1, 1, 8\] instead of \[1, 1, 16\], "),
        ({"embeddings.weight": torch.zeros(3)}, r"missing \(cls_token, "),
        ({"state_dict": {}, "epoch": 3}, "holds no tensors under names, not a state dict"),
    ]:
        torch.save(tensors, file)
        with pytest.raises(WeightsError, match=message):
            load_vit(video_encoder(), str(file))
    torch.save(vit(), file)
    whole = file.read_bytes()
    for broken, message in (
        (whole[: len(whole) // 2], "cannot read weights"),
        (b"", "is empty"),
        (b"<html>not found</html>", "is no checkpoint file"),
    ):
        file.write_bytes(broken)
        with pytest.raises(WeightsError, match=message):
            load_vit(video_encoder(), str(file))
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(b"\x10\0\0\0\0\0\0\0{")
    with pytest.raises(WeightsError, match="cannot read weights"):
        load_vit(video_encoder(), str(cut))


@pytest.mark.parametrize("source", ["/nowhere/vit.pth", "vit.safetensors", "vit", "a/b/c"])
def test_a_vit_that_is_not_there(source: str) -> None:
    with pytest.raises(InputError, match="no ViT weights at"):
        load_vit(video_encoder(), source)


def test_distilbert_from_a_folder(tmp_path: Path) -> None:
    source, encoder = text_encoder(), text_encoder()
    source.model.save_pretrained(tmp_path / "bert")
    projection = encoder.projection.weight.clone()
    load_text_weights(encoder, str(tmp_path / "bert"))
    for name, tensor in encoder.model.state_dict().items():
        assert torch.equal(tensor, source.model.state_dict()[name])
    assert torch.equal(encoder.projection.weight, projection)


def test_folders_that_hold_no_such_distilbert(tmp_path: Path) -> None:
    bert = BertConfig(vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=4, intermediate_size=32)
    BertModel(bert).save_pretrained(tmp_path / "bert")
    with pytest.raises(WeightsError, match="is a bert, not a DistilBERT"):
        load_text_weights(text_encoder(), str(tmp_path / "bert"))

    text_encoder().model.save_pretrained(tmp_path / "distil")
    with pytest.raises(WeightsError, match=r"word_embeddings.weight \[30, 16\] instead of \[40, 16\]"):
        load_text_weights(text_encoder(vocab_size=40), str(tmp_path / "distil"))
    with pytest.raises(WeightsError, match=r"missing \(transformer.layer.1"):
        load_text_weights(text_encoder(depth=2), str(tmp_path / "distil"))

    weights = tmp_path / "distil" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(WeightsError, match="cannot read text weights"):
        load_text_weights(text_encoder(), str(tmp_path / "distil"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match="cannot read text weights"):
        load_text_weights(text_encoder(), str(tmp_path / "empty"))


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder"):
        load_text_weights(text_encoder(), str(tmp_path / "nowhere"))


def test_a_download_that_breaks_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise ConnectionError("peer closed connection\nlong story")

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", broken)
    monkeypatch.setattr("regionvlp.weights.hub.reach", lambda url: None)
    for load, name in ((load_text_weights, "distilbert-base-uncased"), (load_vit, "timm/vit")):
        encoder: Any = text_encoder() if load is load_text_weights else video_encoder()
        with pytest.raises(WeightsError, match=f"cannot fetch {name} from .*: peer closed connection") as caught:
            load(encoder, name)
        assert "\n" not in str(caught.value)
        assert "try again" in caught.value.hint
