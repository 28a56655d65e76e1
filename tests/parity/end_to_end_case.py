"""A golden case of the folder ``end_to_end``: arrays, what they were made from, and the README's recipe for values."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .demovlp_case import close
from .discovery import Case

EXACT = 1e-9
EMBEDDINGS = (
    *("cls_token", "mask_token", "pos_embed", "temporal_embed", "time_embed", "word_embeddings.weight"),
    *("position_embeddings.weight", "class_embedding", "positional_embedding", "token_embedding.weight"),
)


class EndToEndCase:
    """The arrays of one file as tensors; ``meta`` as a dictionary."""

    def __init__(self, case: Case) -> None:
        with np.load(case.path(".npz"), allow_pickle=False) as file:
            self.meta: dict[str, Any] = json.loads(str(file["meta_json"]))
            self.arrays = {name: torch.from_numpy(file[name]) for name in file.files if file[name].dtype.kind in "fiub"}
            self.texts = {name: json.loads(str(file[name])) for name in file.files if name.endswith("norms_json")}
        self.salt: str = self.meta.get("salt", "")

    def __getitem__(self, name: str) -> Tensor:
        return self.arrays[name]

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def section(self, prefix: str) -> dict[str, Tensor]:
        """The arrays whose name starts with ``prefix``, under what follows it."""
        return {name.removeprefix(prefix): x for name, x in self.arrays.items() if name.startswith(prefix)}

    def state(self, key: str = "params", prefix: str = "") -> dict[str, Tensor]:
        """The parameters of the model, which the file lists by name and shape; the recipe knows them by a prefix."""
        return {name: parameter(prefix + name, shape, self.salt) for name, shape in self.meta[key]}

    def given(self, name: str, shape: Sequence[int]) -> Tensor:
        """An input that the file names, float64 of float32 values."""
        return torch.from_numpy(unit(name, shape, self.salt).astype(np.float32)).double()

    def agree(self, found: Tensor, name: str, within: float = EXACT) -> None:
        """Compares with an array of the file, where it has it."""
        if name in self:
            close(found, self[name], within)


def unit(name: str, shape: Sequence[int], salt: str) -> np.ndarray:
    """Numbers of mean 0 and variance 1 that depend on nothing but name, shape and salt."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32((salt + name).encode())))
    return ((2 * generator.random(math.prod(shape)) - 1) * math.sqrt(3)).reshape(shape)


def parameter(name: str, shape: Sequence[int], salt: str) -> Tensor:
    """The value of a named parameter, float32."""
    value = unit(name, shape, salt)
    if name.endswith(EMBEDDINGS):
        value = 0.5 * value
    elif len(shape) >= 2:
        value = value / math.sqrt(math.prod(shape[1:]))
    else:
        value = 0.1 * value + (len(shape) == 1 and name.endswith("weight"))
    return torch.from_numpy(value.astype(np.float32))


def encoder_settings(config: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A case's ``cfg`` in the words of :class:`SpaceTimeSettings`."""
    return {
        "image_size": config["img_size"],
        "patch_size": config["patch_size"],
        "width": config["embed_dim"],
        "depth": config["depth"],
        "heads": config["num_heads"],
        "frames": config.get("num_frames", 1),
        **more,
    }
