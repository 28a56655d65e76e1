"""Models in transformers' layout: CLIP and SigLIP (SigLIP 2 of fixed size among them).

In: a folder. Out: a :class:`~regionvlp.models.hub.base.JointModel`. What the two want of a sentence differs: CLIP masks
what is padded; SigLIP learnt with lower-cased sentences, always padded to its whole context and never masked.
"""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import Tensor

from regionvlp.errors import InputError, WeightsError, first_line
from regionvlp.models.hub.base import JointModel
from regionvlp.models.hub.files import CONFIG, ModelFiles, read_json
from regionvlp.models.hub.framing import Framing
from regionvlp.models.hub.tokens import AttentionPool, ValuePath, multihead_pool

KINDS = {"clip": "CLIPModel", "siglip": "SiglipModel"}  # model_type -> class
# What a tower may leave out: buffers that are computed.
_COMPUTED = ("position_ids",)


class TransformersModel(JointModel):
    """See the top of this file.

    Raises:
        InputError: the files describe a model of another kind, or lack a part. WeightsError: they cannot be read.
    """

    def __init__(self, files: ModelFiles, device: torch.device) -> None:
        super().__init__()
        kind = read_json(files.folder / CONFIG).get("model_type")
        if kind not in KINDS:
            also = "; of SigLIP 2, those of a fixed size are" if kind == "siglip2" else ""
            raise InputError(
                f"{files.folder} holds a model of the kind '{kind}', which is not read here{also}",
                "name a CLIP or SigLIP, such as hub:google/siglip2-base-patch16-224",
            )
        self._padded, self.device = kind == "siglip", device
        self._model, self._tokenizer, self._processor = _loaded(files, KINDS[kind])
        self._model.to(device)
        config = self._model.config
        self.longest = int(config.text_config.max_position_embeddings)
        self.width = int(config.vision_config.hidden_size if self._padded else config.projection_dim)
        self.framing = _framing(self._processor, config.vision_config.image_size, files)
        side = config.vision_config.image_size // config.vision_config.patch_size
        self.path = _attention_pool(self._model, side) if self._padded else _value_path(self._model, side)

    def tokens_of(self, text: str) -> int:
        return len(self._tokenizer(self._written(text)).input_ids)

    def _written(self, text: str) -> str:
        return text.lower() if self._padded else text

    def _prepared(self, picture: Image.Image) -> Tensor:
        prepared: Tensor = self._processor(images=picture, return_tensors="pt")["pixel_values"][0]
        return prepared

    def _pictures(self, pixels: Tensor) -> Tensor:
        return _pooled(self._model.get_image_features(pixel_values=pixels))

    def _sentences(self, texts: list[str]) -> Tensor:
        tokens = self._tokenizer(
            [self._written(text) for text in texts],
            padding="max_length" if self._padded else True,
            max_length=self.longest,
            truncation=True,
            return_tensors="pt",
            return_attention_mask=True,
        )
        mask = {} if self._padded else {"attention_mask": tokens["attention_mask"].to(self.device)}
        return _pooled(self._model.get_text_features(input_ids=tokens["input_ids"].to(self.device), **mask))


def _pooled(output: Any) -> Tensor:
    """Of transformers 5 an output with parts, of transformers 4 the vectors themselves."""
    found: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return found


def _loaded(files: ModelFiles, kind: str) -> tuple[Any, Any, Any]:
    import transformers
    from transformers.utils import logging as messages

    messages.disable_progress_bar()  # type: ignore[no-untyped-call]
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    before = messages.get_verbosity()
    messages.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(files.tokenizer, padding_side="right", **local)
        processor = transformers.AutoImageProcessor.from_pretrained(files.folder, **local)  # type: ignore[no-untyped-call]
        model, report = getattr(transformers, kind).from_pretrained(
            files.folder, output_loading_info=True, dtype=torch.float32, **local
        )
    # The library raises whatever its parts raise: OSError, ValueError, KeyError, SafetensorError, RuntimeError ...
    except Exception as error:
        raise WeightsError(f"{files.folder} cannot be read as a model: {first_line(error)}", "get it anew") from None
    finally:
        messages.set_verbosity(before)
    unset = sorted(name for name in report["missing_keys"] if not name.endswith(_COMPUTED))
    if unset:
        raise WeightsError(f"the weights in {files.folder} lack {unset[0]}", "get the model anew")
    return model.eval(), tokenizer, processor


def _framing(processor: Any, side: int, files: ModelFiles) -> Framing:
    """How the processor makes a square of a frame.

    Raises:
        WeightsError: what it makes is not what the model reads.
    """
    size = dict(processor.size)
    crop = dict(processor.crop_size) if getattr(processor, "do_center_crop", False) else None
    if crop is not None and "shortest_edge" in size:
        made, framing = crop, Framing(side, side, "shortest", int(size["shortest_edge"]))
    else:
        made, framing = size, Framing(side, side, "squash")
    if (made.get("height"), made.get("width")) != (side, side):
        raise WeightsError(
            f"{files.folder} is of two sizes: its pictures are made {_size(made)}, its model reads {side} x {side}",
            "get the model anew: its files do not belong together",
        )
    return framing


def _size(made: dict[str, Any]) -> str:
    return " x ".join(str(made[key]) for key in ("height", "width") if key in made) or str(made)


def _value_path(model: Any, side: int) -> ValuePath:
    tower = model.vision_model
    last = tower.encoder.layers[-1]
    return ValuePath(
        tap=last, grid=(side, side), norm=last.layer_norm1, value=last.self_attn.v_proj,
        output=last.self_attn.out_proj, after=lambda tokens: model.visual_projection(tower.post_layernorm(tokens)),
    )  # fmt: skip


def _attention_pool(model: Any, side: int) -> AttentionPool:
    head = model.vision_model.head

    def after(summed: Tensor) -> Tensor:
        found: Tensor = summed + head.mlp(head.layernorm(summed))
        return found

    with torch.no_grad():
        return multihead_pool(head, head.attention, head.probe[0, 0], (side, side), after)
