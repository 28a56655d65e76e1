"""Weights that others trained, to start from: a timm ViT for the video encoder, DistilBERT or BERT for the other.

In: a file, a folder, or a Hugging Face name. Out: the encoder's own parameters, filled in by name. The sizes always
come from the config; weights of other sizes are an error that names the first parameter that differs.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from regionvlp.errors import InputError, WeightsError, first_line
from regionvlp.models.region_encoder import RegionEncoder
from regionvlp.models.space_time import SpaceTimeEncoder
from regionvlp.models.text_encoder import TextEncoder
from regionvlp.weights.hub import hub_files
from regionvlp.weights.modules import check_shapes, shapes_of
from regionvlp.weights.reading import read_tensors

log = logging.getLogger(__name__)

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_WEIGHT_SUFFIXES = {".pth", ".pt", ".bin", ".safetensors"}
_OF_PIXELS = ("pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias")
_CLASSIFIER = ("head", "head_dist", "pre_logits")  # the first part of what is made of an image model's features
_TIMESFORMER = {"time_embed": "temporal_embed", "temporal_attn": "timeattn", "temporal_norm1": "norm3"}
_NAMES = {"distilbert": "DistilBERT", "bert": "BERT"}
EXAMPLES = 3  # names that an error shows


class Loaded(NamedTuple):
    """Which parameters of a file were taken, and which had no place here."""

    taken: list[str]
    ignored: list[str]


def load_vit(encoder: RegionEncoder | SpaceTimeEncoder, source: str) -> Loaded:
    """Starts a video encoder from an image ViT with timm's parameter names.

    A region encoder takes ``cls_token``, ``norm.*`` and of every block ``norm1 attn norm2 mlp`` (147 tensors of
    ViT-B/16), and has no use for the rest: patch and position embeddings, the classifier, blocks beyond its depth.
    A space-time transformer takes all of the ViT but its classifier, and starts attention over time from there; of a
    TimeSformer, in TimeSformer's form, everything. What is not taken keeps its random start: a region encoder's input
    layers, temporal embedding, projection.

    Args:
        encoder: changed in place.
        source: a ``.pth`` or ``.safetensors`` file, or a Hugging Face name.

    Raises:
        InputError: there is no such file. WeightsError: unreadable, not a ViT of the encoder's sizes, or, for a
            space-time transformer, with parameters that it has no place for.
    """
    tensors = read_tensors(_vit_file(source))
    regions = isinstance(encoder, RegionEncoder)
    if not regions:
        tensors = _named_as_here(tensors)
    own = encoder.state_dict()
    # What an image model cannot know; a TimeSformer does know the attention over time.
    foreign = {"norm3", "timeattn", "temporal_fc"} - {part for name in tensors for part in name.split(".")}
    wanted = [
        name
        for name in own
        if name == "cls_token"
        or name.startswith("norm.")
        or (name.startswith("blocks.") and not foreign & set(name.split(".")))
        or (name in _OF_PIXELS and not regions)
    ]
    if not regions and not {"norm3", "timeattn"} & foreign:
        wanted.append("temporal_embed")
    _check(source, {name: own[name] for name in wanted}, tensors, "a timm ViT")
    ignored = sorted(set(tensors) - set(wanted))
    if not regions:
        _check_ignored(source, ignored)
    encoder.load_state_dict({name: tensors[name] for name in wanted}, strict=False)
    if isinstance(encoder, SpaceTimeEncoder) and "timeattn" in foreign:
        encoder.start_time_attention()
    log.info("%s: took %d tensors, ignored %d", source, len(wanted), len(ignored))
    return Loaded(wanted, ignored)


def _named_as_here(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A TimeSformer's names for what attends over time in the space-time transformer's, with or without ``model.``."""
    if all(name.startswith("model.") for name in tensors):
        tensors = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    return {timesformer_name(name): tensor for name, tensor in tensors.items()}


def timesformer_name(name: str) -> str:
    """The name here of a parameter of the public TimeSformer."""
    parts = [_TIMESFORMER.get(part, part) for part in name.split(".")]
    return ".".join(parts)


def _check_ignored(source: str, ignored: list[str]) -> None:
    """A ViT of another kind may fit by name and shape; what it holds beside them shows it."""
    strange = [name for name in ignored if name.split(".")[0] not in _CLASSIFIER]
    if strange:
        some = ", ".join(strange[:EXAMPLES]) + (", ..." if len(strange) > EXAMPLES else "")
        message = f"{source} holds {len(strange)} tensors that have no place here ({some})"
        raise WeightsError(message, "give a plain ViT in timm's layout, of the model's depth and form")


def load_text_weights(encoder: TextEncoder, source: str) -> None:
    """Starts a text encoder from a DistilBERT or BERT; the projection keeps its random start.

    Args:
        encoder: changed in place; its settings say which of the two.
        source: a folder as ``save_pretrained`` writes it, or a Hugging Face name.

    Raises:
        InputError: there is no such folder. WeightsError: the download failed or broke off, the files cannot be
            read, or they hold another architecture or other sizes.
    """
    from transformers import AutoConfig  # takes seconds to import: see TextEncoder

    if not Path(source).is_dir() and not _HUB_NAME.fullmatch(source):
        raise InputError(f"no folder {source} with text weights", "check model.text.pretrained")
    if not Path(source).is_dir():
        hub_files(source, ["config.json"])
    wanted = encoder.settings.architecture
    try:
        kind = AutoConfig.from_pretrained(source).model_type
        found = _read_text_weights(source) if kind == wanted else {}
    except Exception as error:  # a hub client, a JSON reader and two tensor readers, each with errors of its own
        hint = "check the name and the network and try again, or give a local folder"
        raise WeightsError(f"cannot read text weights {source}: {first_line(error)}", hint) from None
    if kind != wanted:
        message = f"{source} is a {kind}, not a {_NAMES[wanted]}"
        other = kind in _NAMES
        hint = f"set model.text.architecture={kind}" if other else f"give model.text.pretrained a {_NAMES[wanted]}"
        raise WeightsError(message, hint)
    _check(source, encoder.model.state_dict(), found, f"a {_NAMES[wanted]}")
    encoder.model.load_state_dict(found)


def _read_text_weights(source: str) -> dict[str, Tensor]:
    from transformers import AutoModel

    loaded: Any = AutoModel.from_pretrained(source, output_loading_info=True)
    model, info = loaded
    # transformers fills gaps with random numbers; only what the files really held may count.
    return {name: tensor for name, tensor in model.state_dict().items() if name not in info["missing_keys"]}


def _vit_file(source: str) -> Path:
    path = Path(source).expanduser()
    if path.is_file():
        return path
    if path.suffix in _WEIGHT_SUFFIXES or "/" not in source or not _HUB_NAME.fullmatch(source):
        hint = "check model.video.pretrained: a file, or a Hugging Face name 'owner/model'"
        raise InputError(f"no ViT weights at {source}", hint)
    return hub_files(source, ["model.safetensors"])[0]


def _check(source: str, wanted: dict[str, Tensor], found: dict[str, Tensor], kind: str) -> None:
    verdict, hint = f"is not {kind} of these sizes", "give the weights that fit, or the sizes of these"
    check_shapes(source, shapes_of(found), shapes_of(wanted), verdict=verdict, hint=hint, others=True)
