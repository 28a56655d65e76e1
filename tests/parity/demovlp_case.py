"""A golden case of the folder ``demovlp``: arrays, their config, and comparing within the README's tolerances."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from torch import Tensor

from regionvlp.models import Encoded

from .discovery import Case
from .table import record

EXACT = 1e-9  # float64, values and gradients alike


class DemovlpCase:
    """The arrays of one file as tensors; ``config`` as a dictionary."""

    def __init__(self, case: Case) -> None:
        with np.load(case.path(".npz"), allow_pickle=False) as file:
            self.config: dict[str, Any] = json.loads(str(file["config"]))
            self.arrays = {name: torch.from_numpy(file[name]) for name in file.files if name != "config"}

    def __getitem__(self, name: str) -> Tensor:
        return self.arrays[name]

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def section(self, prefix: str) -> dict[str, Tensor]:
        """The arrays whose name starts with ``prefix``, under what follows it."""
        return {name.removeprefix(prefix): x for name, x in self.arrays.items() if name.startswith(prefix)}

    def mask(self, *names: str) -> Tensor:
        """The first mask of these names as bool, True = real; the loss files' numbers are additive, 0 = real."""
        mask = self[next(name for name in names if name in self)]
        return mask if mask.dtype is torch.bool else mask == 0


def tokens_only(tokens: Tensor, mask: Tensor) -> Encoded:
    """An :class:`Encoded` for the losses that read nothing but tokens."""
    return Encoded(tokens.new_zeros(len(tokens), tokens.shape[2]), tokens, mask)


def close(found: Tensor, golden: Tensor, within: float = EXACT) -> None:
    """Fails unless every entry lies within an absolute distance of the golden one."""
    found, golden = found.detach(), golden.to(found.dtype)
    if found.shape == golden.shape and golden.numel():
        record(float((found - golden).abs().max()), within)
    torch.testing.assert_close(found, golden, rtol=0, atol=within)


def within_relative(golden: Tensor) -> float:
    """The README's tolerance of a loss in float32."""
    return 1e-4 * float(golden.abs())


def gradients_close(found: Tensor | None, golden: Tensor, within: float | None) -> None:
    """Compares a gradient (None counts as zero); ``within`` None: 1e-3 of the largest golden entry, for float32."""
    found = torch.zeros_like(golden) if found is None else found
    close(found, golden, 1e-3 * float(golden.abs().max()) + 1e-12 if within is None else within)
