"""Checkpoints of the public DemoVLP code as checkpoint folders of this project.

In: a file as its trainer wrote it (spec section 6): one process or several, any number of frames and regions, with or
without a question-answering head. Out: a folder that ``load_checkpoint`` opens, whose configuration is the ``public``
form of everything, and that gives the public numbers.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from safetensors.torch import load_file, save_file
from torch import Tensor

from regionvlp.config import dump_yaml, validate
from regionvlp.data.settings import RegionDataSettings
from regionvlp.data.text.tokenizer import TextTokenizer
from regionvlp.errors import InputError, RegionVLPError, WeightsError
from regionvlp.losses import REGION_WORD_PRESETS
from regionvlp.losses.settings import LossSettings
from regionvlp.models import DualEncoderSettings
from regionvlp.models.heads import AnswerHead
from regionvlp.models.inflation import inflate_frames
from regionvlp.models.settings import AnswerHeadSettings, Inflation
from regionvlp.store.files import sha256_of
from regionvlp.store.folders import check_new, new_folder
from regionvlp.systems.registry import build_system
from regionvlp.training.config import DemoVLPConfig, RunConfig, TokenizerSettings
from regionvlp.training.identity import save_beside_weights
from regionvlp.weights.kinds import DEMOVLP, stranger
from regionvlp.weights.modules import check_shapes, save_weights, shapes_of
from regionvlp.weights.reading import read_content, tensors_in

ANSWER_HEAD = "answer_head.safetensors"
TEXT_LENGTH = 100  # what the public code pads every caption to; its scores depend on it
TOKENIZERS = ("distilbert-base-uncased", "bert-base-uncased")  # the same vocabulary under two names
_HEAD_WIDTH = 64  # of an attention head in every published size; the file does not say

# How the public state dict names its parts, and how the task does. A projection's ReLU is its number 0.
_OURS = {"object_model.": "model.video.", "text_model.": "model.text.model.", "txt_proj.1.": "model.text.projection."}
_HEAD = "head."
_UNUSED = "text_model.embeddings.position_ids"  # a counter that some versions of transformers save


@dataclass(frozen=True)
class PublicCheckpoint:
    """What a public file holds.

    Attributes:
        weights: the task's parameters under our names, float32.
        model: the sizes that their shapes show, in the public form.
        head: the question-answering head's parameters without their prefix; empty for a retrieval checkpoint.
        epoch: after which it was written, where the file says.
    """

    weights: dict[str, Tensor]
    model: DualEncoderSettings
    head: dict[str, Tensor]
    epoch: int | None


def read_public_demovlp(path: Path, *, heads: int | None = None) -> PublicCheckpoint:
    """Reads a file of the public DemoVLP trainer, in zip or older form, or its bare state dict (also safetensors).

    Args:
        path: the file; nothing in it is executed.
        heads: attention heads of both encoders, for other sizes than heads of 64, which all published models have.

    Raises:
        InputError: there is no such file. WeightsError: it is damaged, of another architecture (named where it is a
            known one), or holds numbers that are not finite.
    """
    content = read_content(path, foreign=True)
    state = {name: tensor for name, tensor in tensors_in(content).items() if name != _UNUSED}
    if not any(name.startswith("object_model.") for name in state):
        raise _no_demovlp(path, state)
    named: dict[str, Tensor] = {}
    head: dict[str, Tensor] = {}
    for name, tensor in state.items():
        value = tensor.detach().to(torch.float32).contiguous()
        if not bool(value.isfinite().all()):
            raise WeightsError(f"{path}: {name} holds values that are not numbers", "the training had diverged")
        prefix = next((prefix for prefix in _OURS if name.startswith(prefix)), None)
        if name.startswith(_HEAD):
            head[name.removeprefix(_HEAD)] = value
        else:
            named[_OURS[prefix] + name.removeprefix(prefix) if prefix else name] = value
    epoch = content.get("epoch") if isinstance(content, dict) else None
    return PublicCheckpoint(named, _sizes(path, named, heads), head, epoch if isinstance(epoch, int) else None)


def convert_demovlp(
    source: Path,
    out: Path,
    *,
    tokenizer: str | None = None,
    frames: int | None = None,
    inflation: Inflation = "zeros",
    heads: int | None = None,
) -> dict[str, Any]:
    """Makes the checkpoint folder ``out`` from a public DemoVLP file.

    Args:
        source: the file.
        out: the folder to make.
        tokenizer: folder or Hugging Face name; by default BERT's uncased one, from the hub or its cache.
        frames: F that the model shall read, by default those it was trained for; public zero-shot evaluation gives
            models of 1 frame 8, with zero rows in the temporal embedding.
        inflation: where the rows of more frames come from, see :func:`inflate_frames`.
        heads: see :func:`read_public_demovlp`.

    Returns:
        What was found and made; JSON-able.

    Raises:
        InputError, WeightsError: the file, the tokenizer or the folder cannot be used; nothing is written then.
    """
    check_new(out)
    found = read_public_demovlp(source, heads=heads)
    video = found.model.video.model_copy(update={"frames": frames or found.model.video.frames})
    model = found.model.model_copy(update={"video": video})
    temporal = "model.video.temporal_embed"
    weights = {**found.weights, temporal: inflate_frames(found.weights[temporal], video.frames, inflation)}
    words = _tokenizer(tokenizer, found.model)
    config = _public_config(source, model)
    task = build_system(config.task, config.model, config.loss, vocab_size=words.vocab_size, pretrained=False)
    _check_shapes(source, weights, task.state_dict())
    task.load_state_dict(weights)
    head = _answer_head(source, found) if found.head else None
    with new_folder(out) as folder:
        save_weights(task, folder)
        if head is not None:
            save_file(head.state_dict(), folder / ANSWER_HEAD, metadata={"format": "pt"})
        (folder / "config.yaml").write_text(dump_yaml(config), encoding="utf-8")
        # The file does not say which detector its regions came from.
        save_beside_weights(folder, words, {})
    return {
        "checkpoint": str(out),
        "file": str(source),
        "file_sha256": sha256_of(source),
        "epoch": found.epoch,
        "parameters": sum(parameter.numel() for parameter in task.parameters()),
        "frames": {"file": found.model.video.frames, "checkpoint": video.frames},
        "regions": video.regions,
        "feature_width": video.feature_width,
        "loc_dim": video.loc_dim,
        "time_attention": video.time_attention,
        "text_length": config.data.text_length,
        "answers": head.settings.answers if head else None,
    }


def load_answer_head(folder: Path) -> AnswerHead:
    """The question-answering head that a converted checkpoint carries, in evaluation mode and the public form.

    Raises:
        InputError: the checkpoint has none.
    """
    path = folder / ANSWER_HEAD
    if not path.is_file():
        raise InputError(f"{folder} holds no question-answering head", "convert a checkpoint trained to answer")
    tensors = load_file(path)
    head = AnswerHead(_head_sizes(tensors))
    head.load_state_dict(tensors)
    return head.eval()


def _no_demovlp(path: Path, names: Collection[str]) -> RegionVLPError:
    held = f"{len(names)} tensors such as '{next(iter(names))}'" if names else "no named tensors"
    message = f"{path} is not a DemoVLP checkpoint: it holds {held}"
    return stranger(path, names, DEMOVLP) or WeightsError(message, "give a file with 'object_model.*'")


def _sizes(path: Path, weights: Mapping[str, Tensor], heads: int | None) -> DualEncoderSettings:
    """The sizes that the shapes show; what a missing tensor would have shown is complained about by name."""

    def shape(name: str, dimensions: int) -> tuple[int, ...]:
        tensor = weights.get(name)
        if tensor is None or tensor.ndim != dimensions:
            found = "is missing" if tensor is None else f"has shape {list(tensor.shape)}"
            raise WeightsError(f"{path} is no whole DemoVLP checkpoint: {_public_name(name)} {found}", "get it again")
        return tuple(tensor.shape)

    video, text = "model.video.", "model.text.model."
    width, text_width = shape(f"{video}cls_token", 3)[2], shape(f"{text}embeddings.word_embeddings.weight", 2)[1]
    values = {
        "video": {
            "feature_width": shape(f"{video}object_embedding.weight", 2)[1],
            "loc_dim": shape(f"{video}pos_embedding.weight", 2)[1],
            "width": width,
            "depth": _layers(weights, rf"{re.escape(video)}blocks\.(\d+)\."),
            "heads": _heads(path, width, heads),
            "mlp_ratio": shape(f"{video}blocks.0.mlp.fc1.weight", 2)[0] / width,
            "frames": shape(f"{video}temporal_embed", 3)[1],
            "regions": shape(f"{video}custom_pos_embed", 3)[1] - 1,
            "attention": "frame",
            "time_attention": any(".timeattn." in name for name in weights),
            "final_norm": False,
            "joint_width": shape(f"{video}proj.weight", 2)[0],
        },
        "text": {
            "vocab_size": shape(f"{text}embeddings.word_embeddings.weight", 2)[0],
            "width": text_width,
            "depth": _layers(weights, rf"{re.escape(text)}transformer\.layer\.(\d+)\."),
            "heads": _heads(path, text_width, heads),
            "mlp_width": shape(f"{text}transformer.layer.0.ffn.lin1.weight", 2)[0],
            "max_length": shape(f"{text}embeddings.position_embeddings.weight", 2)[0],
            "joint_width": shape("model.text.projection.weight", 2)[0],
        },
    }
    return validate(DualEncoderSettings, values, str(path))


def _layers(weights: Mapping[str, Tensor], pattern: str) -> int:
    return len({match[1] for name in weights if (match := re.match(pattern, name))})


def _heads(path: Path, width: int, heads: int | None) -> int:
    if heads is None and width % _HEAD_WIDTH:
        message = f"{path} has encoders of width {width}, and no published model has: how many attention heads?"
        raise InputError(message, "say it with --heads")
    heads = heads or width // _HEAD_WIDTH
    if width % heads:
        message = f"{path} has encoders of width {width}, which {heads} attention heads do not divide"
        raise InputError(message, "give --heads a number that divides it")
    return heads


def _public_name(ours: str) -> str:
    public, prefix = next(((public, own) for public, own in _OURS.items() if ours.startswith(own)), ("", ""))
    return public + ours.removeprefix(prefix)


def _check_shapes(source: Path, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    public = ({_public_name(name): value for name, value in state.items()} for state in (found, wanted))
    check_shapes(source, *map(shapes_of, public), hint="give a whole checkpoint of the public DemoVLP, unchanged")


def _public_config(source: Path, model: DualEncoderSettings) -> RunConfig:
    """The public form of everything that evaluation reads."""
    length = min(TEXT_LENGTH, model.text.max_length)
    values = {
        "clips": {
            "frames": model.video.frames,
            "regions": model.video.regions,
            "loc_dim": model.video.loc_dim,
            "padding": "edge",
        },
        "text_length": length,
        "pad_text": True,
    }
    data = validate(RegionDataSettings, values, str(source))
    loss = LossSettings(region_word=REGION_WORD_PRESETS["public"])
    return DemoVLPConfig(tokenizer=TokenizerSettings(name=TOKENIZERS[0]), data=data, model=model, loss=loss)


def _tokenizer(name: str | None, model: DualEncoderSettings) -> TextTokenizer:
    """The tokenizer whose entries are the rows of the text encoder's table."""
    cached = (try_to_load_from_cache(known, "tokenizer.json") for known in TOKENIZERS)
    try:
        found = TextTokenizer.load(name or next((path for path in cached if isinstance(path, str)), TOKENIZERS[0]))
    except InputError as error:
        hint = "pass --tokenizer a folder with tokenizer.json or vocab.txt of bert-base-uncased"
        raise InputError(error.message, hint) from None
    if found.vocab_size != model.text.vocab_size:
        message = f"the tokenizer has {found.vocab_size:,} entries, the checkpoint {model.text.vocab_size:,}"
        raise InputError(message, "pass --tokenizer the one it was trained with (bert-base-uncased)")
    return found


def _head_sizes(tensors: Mapping[str, Tensor]) -> AnswerHeadSettings:
    hidden, width = tensors["v_att.v_proj.main.0.weight_v"].shape
    return AnswerHeadSettings(answers=len(tensors["classifier.main.3.weight"]), width=width, hidden=hidden)


def _answer_head(source: Path, found: PublicCheckpoint) -> AnswerHead:
    try:
        head = AnswerHead(_head_sizes(found.head))
    except (KeyError, ValueError):
        raise WeightsError(f"{source} holds a head that answers no questions", "only such heads are known") from None
    own = head.state_dict()
    _check_shapes(source, *({_HEAD + name: value for name, value in state.items()} for state in (found.head, own)))
    joint = found.model.video.joint_width
    if head.settings.width != joint:
        message = f"{source} holds a head for tokens of width {head.settings.width}, and a model that gives {joint}"
        raise WeightsError(message, "give a whole checkpoint of the public DemoVLP, unchanged")
    head.load_state_dict(found.head)
    return head
