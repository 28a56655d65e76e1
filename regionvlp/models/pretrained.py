"""Weights that others trained, to start from: a timm ViT for the region encoder, DistilBERT for the text encoder.

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
from regionvlp.models.text_encoder import TextEncoder
from regionvlp.weights.hub import hub_files
from regionvlp.weights.modules import check_shapes, shapes_of
from regionvlp.weights.reading import read_tensors

log = logging.getLogger(__name__)

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_WEIGHT_SUFFIXES = {".pth", ".pt", ".bin", ".safetensors"}


class Loaded(NamedTuple):
    """Which parameters of a file were taken, and which had no place here."""

    taken: list[str]
    ignored: list[str]


def load_vit(encoder: RegionEncoder, source: str) -> Loaded:
    """Starts the blocks of a region encoder from a ViT with timm's parameter names.

    Taken: ``cls_token``, ``norm.*`` and of every block ``norm1 attn norm2 mlp`` (147 tensors of ViT-B/16). Ignored:
    what regions have no use for (patch and position embeddings, the classifier), and blocks beyond the depth.
    Everything else keeps its random start: input layers, temporal embedding, attention over time, projection.

    Args:
        encoder: changed in place.
        source: a ``.pth`` or ``.safetensors`` file, or a Hugging Face name.

    Raises:
        InputError: there is no such file. WeightsError: unreadable, or not a ViT of the encoder's sizes.
    """
    tensors = read_tensors(_vit_file(source))
    own = encoder.state_dict()
    wanted = [
        name
        for name in own
        if name == "cls_token"
        or name.startswith("norm.")
        or (name.startswith("blocks.") and not {"norm3", "timeattn"} & set(name.split(".")))
    ]
    _check(source, {name: own[name] for name in wanted}, tensors, "a timm ViT")
    encoder.load_state_dict({name: tensors[name] for name in wanted}, strict=False)
    loaded = Loaded(wanted, sorted(set(tensors) - set(wanted)))
    log.info("%s: took %d tensors, ignored %d", source, len(loaded.taken), len(loaded.ignored))
    return loaded


def load_distilbert(encoder: TextEncoder, source: str) -> None:
    """Starts a text encoder from DistilBERT; the projection keeps its random start.

    Args:
        encoder: changed in place.
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
    try:
        kind = AutoConfig.from_pretrained(source).model_type
        found = _read_distilbert(source) if kind == "distilbert" else {}
    except Exception as error:  # a hub client, a JSON reader and two tensor readers, each with errors of its own
        hint = "check the name and the network and try again, or give a local folder"
        raise WeightsError(f"cannot read text weights {source}: {first_line(error)}", hint) from None
    if kind != "distilbert":
        raise WeightsError(f"{source} is a {kind}, not a DistilBERT", "give model.text.pretrained a DistilBERT")
    _check(source, encoder.model.state_dict(), found, "a DistilBERT")
    encoder.model.load_state_dict(found)


def _read_distilbert(source: str) -> dict[str, Tensor]:
    from transformers import DistilBertModel

    loaded: Any = DistilBertModel.from_pretrained(source, output_loading_info=True)
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
