"""Checkpoints of the public DemoVLP code as checkpoint folders of this project.

In: a file as its trainer wrote it (spec section 6): one process or several, any number of frames and regions, with or
without a question-answering head. Out: a folder that ``load_checkpoint`` opens, whose configuration is the ``public``
form of everything, and that gives the public numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from regionvlp.checkpoints.public.reading import TOKENIZERS, PublicState, tokenizer_of
from regionvlp.config import dump_yaml, validate
from regionvlp.data.settings import RegionDataSettings
from regionvlp.errors import InputError, WeightsError
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
from regionvlp.weights.kinds import DEMOVLP
from regionvlp.weights.modules import save_weights

ANSWER_HEAD = "answer_head.safetensors"
TEXT_LENGTH = 100  # what the public code pads every caption to; its scores depend on it

# How the public state dict names its parts, and how the task does. A projection's ReLU is its number 0.
_OURS = {"object_model.": "model.video.", "text_model.": "model.text.model.", "txt_proj.1.": "model.text.projection."}
_HEAD = "head."


@dataclass(frozen=True)
class PublicCheckpoint:
    """What a public file holds.

    Attributes:
        state: the file.
        weights: the task's parameters under our names, float32.
        model: the sizes that their shapes show, in the public form.
        head: the question-answering head's parameters without their prefix; empty for a retrieval checkpoint.
    """

    state: PublicState
    weights: dict[str, Tensor]
    model: DualEncoderSettings
    head: dict[str, Tensor]


def read_public_demovlp(path: Path, *, heads: int | None = None) -> PublicCheckpoint:
    """Reads a file of the public DemoVLP trainer, in zip or older form, or its bare state dict (also safetensors).

    Args:
        path: the file; nothing in it is executed.
        heads: attention heads of both encoders, for other sizes than heads of 64, which all published models have.

    Raises:
        InputError: there is no such file. WeightsError: it is damaged, of another architecture (named where it is a
            known one), or holds numbers that are not finite.
    """
    found = PublicState.read(path, DEMOVLP, _OURS)
    head = {name.removeprefix(_HEAD): value for name, value in found.weights.items() if name.startswith(_HEAD)}
    weights = {name: value for name, value in found.weights.items() if not name.startswith(_HEAD)}
    return PublicCheckpoint(found, weights, _sizes(found, heads), head)


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
    words = tokenizer_of(tokenizer, found.model.text.vocab_size or 0)
    config = _public_config(source, model)
    task = build_system(config.task, config.model, config.loss, vocab_size=words.vocab_size, pretrained=False)
    found.state.check(weights, task.state_dict())
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
        "epoch": found.state.epoch,
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


def _sizes(found: PublicState, heads: int | None) -> DualEncoderSettings:
    """The sizes that the shapes show; what a missing tensor would have shown is complained about by name."""
    video = "model.video."
    width = found.shape(f"{video}cls_token", 3)[2]
    values = {
        "video": {
            "feature_width": found.shape(f"{video}object_embedding.weight", 2)[1],
            "loc_dim": found.shape(f"{video}pos_embedding.weight", 2)[1],
            "width": width,
            "depth": found.layers(f"{video}blocks."),
            "heads": found.heads(width, heads),
            "mlp_ratio": found.shape(f"{video}blocks.0.mlp.fc1.weight", 2)[0] / width,
            "frames": found.shape(f"{video}temporal_embed", 3)[1],
            "regions": found.shape(f"{video}custom_pos_embed", 3)[1] - 1,
            "attention": "frame",
            "time_attention": any(".timeattn." in name for name in found.weights),
            "final_norm": False,
            "joint_width": found.shape(f"{video}proj.weight", 2)[0],
        },
        "text": found.text_sizes(heads),
    }
    return validate(DualEncoderSettings, values, str(found.path))


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


def _head_sizes(tensors: Mapping[str, Tensor]) -> AnswerHeadSettings:
    hidden, width = tensors["v_att.v_proj.main.0.weight_v"].shape
    return AnswerHeadSettings(answers=len(tensors["classifier.main.3.weight"]), width=width, hidden=hidden)


def _answer_head(source: Path, found: PublicCheckpoint) -> AnswerHead:
    try:
        head = AnswerHead(_head_sizes(found.head))
    except (KeyError, ValueError):
        raise WeightsError(f"{source} holds a head that answers no questions", "only such heads are known") from None
    own = head.state_dict()
    found.state.check(*({_HEAD + name: value for name, value in state.items()} for state in (found.head, own)))
    joint = found.model.video.joint_width
    if head.settings.width != joint:
        message = f"{source} holds a head for tokens of width {head.settings.width}, and a model that gives {joint}"
        raise WeightsError(message, "give a whole checkpoint of the public DemoVLP, unchanged")
    head.load_state_dict(found.head)
    return head
