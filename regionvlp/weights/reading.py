"""Other people's weights, read by what a file is and not by how it is called; nothing in a file is ever run.

In: ``torch.save``'s zip or its older form, safetensors, or a pickle of numpy arrays. Out: tensors by name, or all that
the file holds.

Training scripts pickle their own objects beside the tensors (DemoVLP, Frozen and MILES: a ``ConfigParser`` with paths
and an argparse namespace), so reading tensors alone refuses them, and a plain load wants the trainer's modules and
would run whatever the file asks for. Here every pickle goes through :mod:`regionvlp.weights.unpickling`, with the few
functions that make tensors added to its table.
"""

from __future__ import annotations

import math
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from regionvlp.errors import WeightsError
from regionvlp.weights.kinds import check_weights_file, is_safetensors, unreadable
from regionvlp.weights.unpickling import VALUES, Unpickler, UnsafePickleError, settled

_REPEATED = 1 << 24  # bytes
_ZIP = b"PK\x03\x04"
_PICKLE = 0x80  # of protocol 2 and later; older ones are text
_MAGIC = torch.serialization.MAGIC_NUMBER.to_bytes(10, "little")  # what torch.save's older form begins with


def read_tensors(path: Path, *, foreign: bool = False) -> dict[str, Tensor]:
    """The tensors of a weights file by name, as in the file but on the CPU and in memory of their own.

    They are looked for under ``state_dict`` or ``model`` too; the prefix ``module.`` of parallel training is taken off
    where every name has it. Numpy arrays become tensors; single numbers and texts beside them are no weights.

    Args:
        path: the file, by any name.
        foreign: whether to pass over objects of other classes, and not refuse the file for them.

    Raises:
        InputError: there is no such file. WeightsError: it is damaged, would have to run code, or holds no tensors.
    """
    content = read_content(path, foreign=foreign)
    tensors = tensors_in(content)
    if not tensors:
        held = "no tensors under names" if isinstance(content, dict) else f"a {type(content).__name__}"
        raise WeightsError(f"{path} holds {held}, not a state dict", "give a model's weights")
    # Those of a zip are views of the file, which may change.
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def read_content(path: Path, *, foreign: bool = False) -> Any:
    """All that a weights file holds, on the CPU; tensors of a zip-form file may be views of the file on the disk.

    Args:
        path: the file, by any name.
        foreign: whether objects of other classes stand in it as :class:`.unpickling.Inert`, and do not make it refused.

    Raises:
        InputError: there is no such file. WeightsError: it is damaged, would have to run code, or is no such file.
    """
    check_weights_file(path)
    unpickler = _Foreign if foreign else _Tensors
    try:
        with path.open("rb") as file:
            start = file.read(64)
            if is_safetensors(path) or not (start.startswith(_ZIP) or _is_pickle(start)):
                return load_file(path)
            if not start.startswith(_ZIP) and _MAGIC not in start:
                file.seek(0)
                # Python 2 wrote bytes as strings; latin1 gives each byte back.
                return settled(unpickler(file, encoding="latin1").load())
        return settled(_torch_load(path, unpickler, is_zip=start.startswith(_ZIP)))
    except WeightsError:
        raise
    except UnsafePickleError as error:
        raise WeightsError(
            f"{path} was refused: {error}, and reading more than plain tensors could run code",
            "give a file that holds a plain state dict, best as .safetensors",
        ) from None
    except Exception as error:  # a damaged file can make the readers raise anything
        raise unreadable(path, error) from None


def tensors_in(content: Any) -> dict[str, Tensor]:
    """The tensors and numpy arrays by name in what a file holds (see :func:`read_tensors`); may be empty."""
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors: dict[str, Tensor] = {}
    for name, value in content.items() if isinstance(content, dict) else ():
        if not isinstance(name, str | int):  # a damaged file may name a tensor by a tensor
            continue
        if isinstance(value, Tensor):
            tensors[str(name)] = value
        elif isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
            tensors[str(name)] = torch.from_numpy(value)
    if tensors and all(name.startswith("module.") for name in tensors):
        return {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def _torch_load(path: Path, unpickler: type[Unpickler], is_zip: bool) -> Any:
    """What ``torch.save`` wrote.

    Raises:
        WeightsError: a TorchScript program, which torch would load by another way than its pickle.
    """
    if is_zip:
        with zipfile.ZipFile(path) as archive:
            if any(name.rpartition("/")[2] == "constants.pkl" for name in archive.namelist()):
                raise WeightsError(f"{path} is a TorchScript program", "give a state dict")
    elif tarfile.is_tarfile(path):  # torch would unpack it
        raise WeightsError(f"{path} is a tar file", "unpack it, and give the weights in it")
    # torch asks a module for these names.
    module: Any = SimpleNamespace(
        __name__=__name__,
        Unpickler=unpickler,
        load=lambda file, **options: unpickler(file, **options).load(),
    )
    options = {"map_location": "cpu", "weights_only": False, "pickle_module": module}
    if path.suffix == ".safetensors":  # torch would go by the name
        with path.open("rb") as file:
            return torch.load(file, **options)
    return torch.load(path, mmap=is_zip, **options)


def _is_pickle(start: bytes) -> bool:
    return start[0] == _PICKLE or start[:1] in (b"(", b"}", b"]", b"c")


def _within_its_data(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``make`` of tensors that lie inside the bytes they name; torch would grow those, to any size."""

    def made(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *rest: Any) -> Tensor:
        dtype = next((value for value in rest if isinstance(value, torch.dtype)), None) or storage.dtype
        steps = zip(size, stride, strict=True)
        last = offset + sum((count - 1) * step for count, step in steps)
        there = storage._untyped_storage.nbytes()
        # A tensor may repeat its data, but not without end.
        beyond = (last + 1) * dtype.itemsize > there or math.prod(size) * dtype.itemsize > max(there, _REPEATED)
        if min((offset, *size, *stride)) < 0 or (beyond and 0 not in size):
            raise pickle.UnpicklingError(f"a tensor of shape {list(size)} is larger than its data")
        return make(storage, offset, size, stride, *rest)

    return made


class _Tensors(Unpickler):
    """Values, numpy arrays and tensors."""

    admitted: ClassVar = {
        **VALUES,
        **{("torch", name): value for name, value in vars(torch).items() if isinstance(value, torch.dtype)},
        ("torch", "Size"): torch.Size,
        **{
            ("torch._utils", name): _within_its_data(getattr(torch._utils, name))
            for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3")
        },
        **{
            ("torch._utils", name): getattr(torch._utils, name)
            for name in ("_rebuild_parameter", "_rebuild_parameter_with_state")
        },
    }


class _Foreign(_Tensors):
    """The same, past objects of any other class."""

    foreign = True
