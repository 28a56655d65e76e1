"""Models in open_clip's layout: ``open_clip_config.json`` and weights, through open_clip (Ilharco et al., 2021).

In: a folder. Out: a :class:`~regionvlp.models.hub.base.JointModel`. Weights are read by our own reader and must fit
name by name and shape by shape: open_clip itself would stretch positions of another size without a word.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from regionvlp.errors import InputError, WeightsError, first_line
from regionvlp.models.hub.base import JointModel
from regionvlp.models.hub.files import OPEN_CLIP_CONFIG, ModelFiles, read_json
from regionvlp.models.hub.framing import Framing
from regionvlp.models.hub.tokens import AttentionPool, TokenPath, ValuePath
from regionvlp.weights.modules import check_shapes, fill, shapes_of
from regionvlp.weights.reading import read_tensors


class OpenClipModel(JointModel):
    """See the top of this file.

    Raises:
        InputError: the files describe a model of another kind, or lack a part. WeightsError: they cannot be read.
    """

    def __init__(self, files: ModelFiles, device: torch.device) -> None:
        super().__init__()
        from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict

        config = read_json(files.folder / OPEN_CLIP_CONFIG)
        given = config.get("model_cfg")
        if not isinstance(given, dict) or not isinstance(given.get("text_cfg"), dict):
            raise InputError(f"{files.folder / OPEN_CLIP_CONFIG} describes no model", "get the model anew")
        self._model, self.device = _built(given, files.folder), device
        _filled(self._model, files.weights)
        self._model.to(device).eval()
        visual = self._model.visual
        side = visual.image_size if isinstance(visual.image_size, tuple) else (visual.image_size,) * 2
        wanted = merge_preprocess_dict(PreprocessCfg(), config.get("preprocess_cfg") or {})
        preprocess = PreprocessCfg(**{**wanted, "size": side})
        self._transform = image_transform_v2(preprocess, is_train=False)
        self.framing = Framing(side[0], side[1], preprocess.resize_mode, min(side))  # type: ignore[arg-type]
        self._tokenizer = _tokenizer(given["text_cfg"], files)
        self.longest = int(self._model.context_length)
        self.path = _token_path(visual)
        self.width = int(given["embed_dim"])

    def tokens_of(self, text: str) -> int:
        tokenizer = self._tokenizer
        if hasattr(tokenizer, "tokenizer"):  # a tokenizer of transformers
            return len(tokenizer.tokenizer(tokenizer.clean_fn(text)).input_ids)
        return len(tokenizer.encode(text)) + 2

    def _prepared(self, picture: Image.Image) -> Tensor:
        prepared: Tensor = self._transform(picture)
        return prepared

    def _pictures(self, pixels: Tensor) -> Tensor:
        found: Tensor = self._model.encode_image(pixels)
        return found

    def _sentences(self, texts: list[str]) -> Tensor:
        found: Tensor = self._model.encode_text(self._tokenizer(texts).to(self.device))
        return found


def _built(given: dict[str, Any], folder: Path) -> Any:
    """The model that a configuration describes, with random weights."""
    import open_clip

    config = dict(given)
    custom = config.pop("custom_text", False)
    text, vision = config["text_cfg"], config.get("vision_cfg")
    other = "multimodal_cfg" in config or "hf_model_name" in text
    # A name with a colon is one of another repository.
    if other or not isinstance(vision, dict) or ":" in str(vision.get("timm_model_name", "")):
        raise InputError(
            f"{folder} holds a model of another kind than CLIP, SigLIP or PE-Core",
            "name one of these, such as hub:timm/PE-Core-S-16-384",
        )
    config["vision_cfg"] = {**vision, "timm_model_pretrained": False}
    kind = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    known = inspect.signature(kind).parameters
    try:
        return kind(**{key: value for key, value in config.items() if key in known})
    except Exception as error:  # whatever open_clip's parts raise of values that are none
        raise WeightsError(
            f"open_clip cannot make the model that {folder / OPEN_CLIP_CONFIG} describes: {first_line(error)}",
            "pip install --upgrade open_clip_torch timm, or get the model anew",
        ) from None


def _filled(model: nn.Module, weights: Path) -> None:
    state = {name: tensor for name, tensor in read_tensors(weights).items() if not name.endswith("position_ids")}
    wanted = model.state_dict()
    for name, tensor in state.items():  # a scale may be a number or a list of one
        if name in wanted and tensor.numel() == wanted[name].numel() == 1:
            state[name] = tensor.reshape(wanted[name].shape)
    check_shapes(
        weights, shapes_of(state), shapes_of(wanted), hint="get the model anew: configuration and weights do not match"
    )
    fill(model, state, weights)


def _tokenizer(config: dict[str, Any], files: ModelFiles) -> Any:
    import open_clip

    length = int(config.get("context_length", 77))
    options = dict(config.get("tokenizer_kwargs") or {})
    try:
        if not config.get("hf_tokenizer_name"):
            return open_clip.SimpleTokenizer(context_length=length, **options)
        return open_clip.HFTokenizer(
            str(files.tokenizer), context_length=length, tokenizer_mode=config.get("tokenizer_mode"),
            local_files_only=True, trust_remote_code=False, **options,
        )  # fmt: skip
    except Exception as error:
        reason = first_line(error)
        raise WeightsError(f"the tokenizer in {files.tokenizer} cannot be read: {reason}", "get it anew") from None


def _token_path(visual: Any) -> TokenPath | None:
    """How the tower's patches come into the joint space; None for towers that are not known here."""
    from open_clip.transformer import VisionTransformer

    if isinstance(visual, VisionTransformer):
        last = visual.transformer.resblocks[-1]
        plain = isinstance(getattr(last, "attn", None), nn.MultiheadAttention)
        if visual.attn_pool is not None or visual.pool_type != "tok" or not plain:
            return None
        return _value_path(visual, last)
    trunk = getattr(visual, "trunk", None)
    pool = getattr(trunk, "attn_pool", None)
    if pool is None or getattr(pool, "latent_len", 0) != 1 or getattr(pool, "pos_embed", None) is not None:
        return None
    return _timm_pool(visual, trunk, pool)


def _value_path(visual: Any, last: Any) -> ValuePath:
    weight = last.attn.in_proj_weight.chunk(3)[2]
    bias = last.attn.in_proj_bias.chunk(3)[2]

    def after(tokens: Tensor) -> Tensor:
        normed: Tensor = visual.ln_post(tokens)
        return normed if visual.proj is None else normed @ visual.proj.to(normed.dtype)

    return ValuePath(
        tap=last, grid=tuple(visual.grid_size), norm=last.ln_1,
        value=lambda states: functional.linear(states, weight, bias), output=last.attn.out_proj, after=after,
    )  # fmt: skip


def _timm_pool(visual: Any, trunk: Any, pool: Any) -> AttentionPool:
    width = pool.num_heads * pool.head_dim
    key_w, value_w = pool.kv.weight.split(width)
    key_b, value_b = pool.kv.bias.split(width) if pool.kv.bias is not None else (None, None)
    with torch.no_grad():
        query = pool.q_norm(pool.q(pool.latent[0, 0]).unflatten(0, (pool.num_heads, pool.head_dim)))

    def after(summed: Tensor) -> Tensor:
        found = pool.proj(summed)
        if pool.mlp is not None:
            found = found + pool.mlp(pool.norm(found))
        projected: Tensor = visual.head(trunk.head(trunk.fc_norm(found)))
        return projected

    return AttentionPool(
        tap=pool, grid=tuple(trunk.patch_embed.grid_size), query=query * pool.scale,
        key=lambda states: functional.linear(states, key_w, key_b),
        value=lambda states: functional.linear(states, value_w, value_b),
        key_norm=pool.k_norm, after=after,
    )  # fmt: skip
