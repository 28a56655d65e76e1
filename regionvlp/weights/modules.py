"""A module's weights as one safetensors file, and the complaint when they do not fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from regionvlp.errors import WeightsError

WEIGHTS = "model.safetensors"
SHOWN = 3  # names listed in a complaint


class DamagedCheckpointError(WeightsError):
    """A file of a checkpoint that cannot be read: cut short, overwritten, or not there."""


def save_weights(module: nn.Module, folder: Path) -> None:
    """Writes the parameters and persistent buffers of ``module`` to ``folder/model.safetensors``."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in own_tensors(module).items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def load_weights(module: nn.Module, folder: Path) -> None:
    """Copies ``folder/model.safetensors`` into ``module``, which keeps its devices and dtypes.

    Raises:
        DamagedCheckpointError: the file is missing or cut short. WeightsError: it belongs to another architecture.
            ``module`` is untouched in both cases.
    """
    path = folder / WEIGHTS
    own = own_tensors(module)
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (a file is no mapping)
            check_shapes(path, shapes, shapes_of(own))
            with torch.no_grad():
                for name, tensor in own.items():
                    tensor.copy_(file.get_tensor(name))
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from None


def read_module_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors that :func:`save_weights` wrote, by name, on the CPU.

    Raises:
        DamagedCheckpointError: the file is missing or cut short.
    """
    path = folder / WEIGHTS
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from None


def fill(module: nn.Module, state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Copies tensors by name into ``module``.

    Raises:
        WeightsError: they do not fit; ``path`` says where they came from. ``module`` is then untouched.
    """
    own = own_tensors(module)
    check_shapes(path, shapes_of(state), shapes_of(own))
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(state[name])


def own_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Returns parameters and persistent buffers by name; what is tied appears once, under its first name."""
    seen: set[int] = set()
    tensors = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            tensors[name] = tensor
    return tensors


def shapes_of(tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def check_shapes(
    source: object,
    found: Mapping[str, tuple[int, ...]],
    wanted: Mapping[str, tuple[int, ...]],
    *,
    verdict: str = "is of another architecture",
    hint: str = "build the model from the config.yaml beside the weights, or choose weights of this architecture",
    others: bool = False,
) -> None:
    """Compares the tensors of a file with those that are wanted.

    Args:
        source: what to call the file.
        found, wanted: shapes by name.
        verdict: what to say of the file where they differ. hint: what to do then.
        others: whether the file may hold more.

    Raises:
        WeightsError: naming the first that are missing, unexpected, or of another shape.
    """
    missing = [name for name in wanted if name not in found]
    unexpected = [] if others else [name for name in found if name not in wanted]
    reshaped = [
        f"{name} {list(found[name])} instead of {list(shape)}"
        for name, shape in wanted.items()
        if name in found and found[name] != shape
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped))
    complaints = [f"{len(names)} {kind} ({_some(names)})" for kind, names in kinds if names]
    if complaints:
        raise WeightsError(f"{source} {verdict}: tensors {'; '.join(complaints)}", hint)


def _damaged(path: Path, error: Exception) -> DamagedCheckpointError:
    reason = str(error).strip() or type(error).__name__
    return DamagedCheckpointError(f"cannot read {path}: {reason}", "use another checkpoint")


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
