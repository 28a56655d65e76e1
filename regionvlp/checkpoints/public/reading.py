"""What converting the public checkpoints has in common: parameters by our names, and the sizes that shapes show.

In: a file of a public trainer, and how its names become ours. Out: :class:`PublicState`, the tokenizer, the settings of
a text encoder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from torch import Tensor

from regionvlp.data.text.tokenizer import TextTokenizer
from regionvlp.errors import InputError, WeightsError
from regionvlp.weights.kinds import Architecture, stranger
from regionvlp.weights.modules import check_shapes, shapes_of
from regionvlp.weights.reading import read_content, tensors_in

TOKENIZERS = ("distilbert-base-uncased", "bert-base-uncased")  # the same vocabulary under two names
TEXT = "model.text.model."
_HEAD_WIDTH = 64  # of an attention head in every published size; the file does not say
_UNUSED = "text_model.embeddings.position_ids"  # a counter that some versions of transformers save


@dataclass(frozen=True)
class PublicState:
    """The parameters of a public checkpoint.

    Attributes:
        path: the file. kind: what it is one of.
        renamed: public prefix -> ours.
        weights: by our names, float32; what has no place here under its public name.
        epoch: after which it was written, where the file says.
    """

    path: Path
    kind: Architecture
    renamed: Mapping[str, str]
    weights: dict[str, Tensor]
    epoch: int | None

    @classmethod
    def read(cls, path: Path, kind: Architecture, renamed: Mapping[str, str]) -> PublicState:
        """Reads a file in zip or older form, or a bare state dict (also safetensors); nothing in it is executed.

        Raises:
            InputError: there is no such file. WeightsError: it is damaged, of another architecture (named where it is a
                known one), or holds numbers that are not finite.
        """
        content = read_content(path, foreign=True)
        state = {name: tensor for name, tensor in tensors_in(content).items() if name != _UNUSED}
        another = stranger(path, state, kind)
        if another or not kind.fits(state):
            held = f"{len(state)} tensors such as '{next(iter(state))}'" if state else "no named tensors"
            message = f"{path} is not {kind.name}: it holds {held}"
            raise another or WeightsError(message, f"give a file with '{next(iter(renamed))}*'")
        weights: dict[str, Tensor] = {}
        for name, tensor in state.items():
            value = tensor.detach().to(torch.float32).contiguous()
            if not bool(value.isfinite().all()):
                raise WeightsError(f"{path}: {name} holds values that are not numbers", "the training had diverged")
            prefix = next((prefix for prefix in renamed if name.startswith(prefix)), None)
            weights[renamed[prefix] + name.removeprefix(prefix) if prefix else name] = value
        epoch = content.get("epoch") if isinstance(content, dict) else None
        return cls(path, kind, renamed, weights, epoch if isinstance(epoch, int) else None)

    def shape(self, name: str, dimensions: int) -> tuple[int, ...]:
        """The shape of a parameter of ours.

        Raises:
            WeightsError: it is missing, or has another number of dimensions.
        """
        tensor = self.weights.get(name)
        if tensor is None or tensor.ndim != dimensions:
            found = "is missing" if tensor is None else f"has shape {list(tensor.shape)}"
            message = f"{self.path} is no whole checkpoint: {self.public_name(name)} {found}"
            raise WeightsError(message, f"get {self.kind.name} again")
        return tuple(tensor.shape)

    def layers(self, prefix: str) -> int:
        """How many numbered layers follow a prefix."""
        found = (re.match(rf"{re.escape(prefix)}(\d+)\.", name) for name in self.weights)
        return len({match[1] for match in found if match})

    def heads(self, width: int, given: int | None) -> int:
        """Attention heads of an encoder: as given, or of 64 as in every published model.

        Raises:
            InputError: neither divides the width.
        """
        if given is None and width % _HEAD_WIDTH:
            message = f"{self.path} has encoders of width {width}, as no published model: how many attention heads?"
            raise InputError(message, "say it with --heads")
        heads = given or width // _HEAD_WIDTH
        if width % heads:
            message = f"{self.path} has encoders of width {width}, which {heads} attention heads do not divide"
            raise InputError(message, "give --heads a number that divides it")
        return heads

    def text_sizes(self, heads: int | None) -> dict[str, Any]:
        """The settings of the DistilBERT and its projection."""
        vocab_size, width = self.shape(f"{TEXT}embeddings.word_embeddings.weight", 2)
        return {
            "vocab_size": vocab_size,
            "width": width,
            "depth": self.layers(f"{TEXT}transformer.layer."),
            "heads": self.heads(width, heads),
            "mlp_width": self.shape(f"{TEXT}transformer.layer.0.ffn.lin1.weight", 2)[0],
            "max_length": self.shape(f"{TEXT}embeddings.position_embeddings.weight", 2)[0],
            "joint_width": self.shape("model.text.projection.weight", 2)[0],
        }

    def check(self, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
        """Makes sure that parameters are those of a model, complaining in the public names.

        Raises:
            WeightsError: naming the first that differ.
        """
        public = ({self.public_name(name): value for name, value in state.items()} for state in (found, wanted))
        hint = f"give {self.kind.name}, whole and unchanged"
        check_shapes(self.path, *map(shapes_of, public), hint=hint)

    def public_name(self, ours: str) -> str:
        """What the file calls a parameter of ours."""
        public, prefix = next(((public, own) for public, own in self.renamed.items() if ours.startswith(own)), ("", ""))
        return public + ours.removeprefix(prefix)


def tokenizer_of(name: str | None, vocab_size: int) -> TextTokenizer:
    """The tokenizer whose entries are the rows of a text encoder's table.

    Args:
        name: a folder or Hugging Face name; by default BERT's uncased one, from the hub or its cache.
        vocab_size: how many rows there are.

    Raises:
        InputError: there is none, or it has another number of entries.
    """
    cached = (try_to_load_from_cache(known, "tokenizer.json") for known in TOKENIZERS)
    try:
        found = TextTokenizer.load(name or next((path for path in cached if isinstance(path, str)), TOKENIZERS[0]))
    except InputError as error:
        hint = "pass --tokenizer a folder with tokenizer.json or vocab.txt of bert-base-uncased"
        raise InputError(error.message, hint) from None
    if found.vocab_size != vocab_size:
        message = f"the tokenizer has {found.vocab_size:,} entries, the checkpoint {vocab_size:,}"
        raise InputError(message, "pass --tokenizer the one it was trained with (bert-base-uncased)")
    return found
