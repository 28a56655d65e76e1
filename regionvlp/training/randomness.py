"""Random states: set from a seed, saved and restored, and lent out so that a draw leaves no trace.

The three generators that a model, a dataset or a library may draw from: Python's, NumPy's global one, torch's.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def seed_everything(*seeds: int) -> None:
    """Seeds all generators, those of CUDA devices included, from a sequence of non-negative numbers."""
    value = mix(*seeds)
    _seed_cpu(value)
    torch.manual_seed(value)


def mix(*seeds: int) -> int:
    """Returns one 32-bit seed from several, without the collisions that adding them would bring."""
    # The count comes first, because a SeedSequence takes (1,) and (1, 0) for the same.
    return int(np.random.SeedSequence([len(seeds), *seeds]).generate_state(1)[0])


def random_state(device: torch.device) -> dict[str, Any]:
    """Returns the generators' states as plain containers and tensors, readable with ``weights_only=True``."""
    name, keys, *rest = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": (str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Sets the generators to what :func:`random_state` returned; a CUDA state is ignored on a CPU."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Whatever the block draws, the generators stand afterwards where they stood before."""
    state = random_state(device)
    try:
        yield
    finally:
        restore_random_state(state, device)


@contextmanager
def seeded(*seeds: int) -> Iterator[None]:
    """The block draws from generators seeded with ``seeds``; CUDA's are left alone."""
    with undisturbed(torch.device("cpu")):
        _seed_cpu(mix(*seeds))
        yield


def _seed_cpu(value: int) -> None:
    random.seed(value)
    np.random.seed(value)
    torch.default_generator.manual_seed(value)
