"""What other projects' training scripts saved, read without running any of it.

In: a ``torch.save`` file, in today's zip form or the older one. Out: its containers, numbers, texts and tensors.

Such files pickle the trainer's own objects beside the tensors (DemoVLP, Frozen and MILES: a ``ConfigParser`` with
paths and an argparse namespace), so reading tensors alone refuses them, and a plain load wants the trainer's modules
and would run whatever the file asks for. Here nothing but the few functions that make tensors is ever called. Every
other name stands for an :class:`Inert` object that notes what it was given and does nothing.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from regionvlp.errors import WeightsError
from regionvlp.weights.array_pickle import Admitted, table_in
from regionvlp.weights.kinds import check_weights_file, unreadable

_ZIP = b"PK\x03\x04"
_MAGIC = torch.serialization.MAGIC_NUMBER.to_bytes(10, "little")  # what the older form begins with
_TENSOR_MAKERS = (
    "_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter", "_rebuild_parameter_with_state"
)  # fmt: skip


class Inert:
    """Stands for an object of a class that is not ours to create; does nothing, whatever a pickle does to it.

    Attributes:
        state: what it was given when made, usually its attributes by name; None if nothing.
    """

    state: Any = None

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __call__(self, *_: Any, **__: Any) -> Inert:
        return self

    def __setitem__(self, _: Any, __: Any) -> None: ...

    def append(self, _: Any) -> None: ...

    def extend(self, _: Any) -> None: ...


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return Admitted(OrderedDict)
        if module == "torch._utils" and name in _TENSOR_MAKERS:
            return Admitted(getattr(torch._utils, name))
        if module == "torch" and isinstance(value := getattr(torch, name, None), torch.dtype):
            return value
        # A class of its own each time, so that nothing a pickle does to it is seen elsewhere.
        return type("Inert", (Inert,), {})


# torch.load asks a module for these two names.
_PICKLE: Any = SimpleNamespace(
    __name__="regionvlp.weights.torch_files",
    Unpickler=_Reader,
    load=lambda file, **options: _Reader(file, **options).load(),
)


def read_torch_file(path: Path) -> Any:
    """The content of a ``.pth``, ``.pt``, ``.bin``, ``.tar`` or ``.safetensors`` file, on the CPU.

    Returns:
        What the file holds; tensors of a zip-form file may be views of the file on the disk.

    Raises:
        InputError: there is no such file. WeightsError: it is damaged, or no such file at all.
    """
    check_weights_file(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        is_zip = _is_zip(path)
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=_PICKLE, mmap=is_zip)
    except WeightsError:
        raise
    except Exception as error:  # a damaged pickle can make the reader raise anything
        raise unreadable(path, error) from None


def state_dict_of(content: Any) -> dict[str, Tensor]:
    """The tensors by name: those under ``state_dict`` or ``model``, else those of the content itself; may be empty.

    The prefix ``module.`` of parallel training is taken off where every name has it.
    """
    tensors = {str(name): value for name, value in (table_in(content) or {}).items() if isinstance(value, Tensor)}
    if tensors and all(name.startswith("module.") for name in tensors):
        return {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def _is_zip(path: Path) -> bool:
    """Whether the file has today's form, and not the older one.

    Raises:
        WeightsError: a TorchScript program, which torch would load by another way than its pickle, or a pickle that
            ``torch.save`` did not write.
    """
    with path.open("rb") as file:
        start = file.read(64)
    if not start.startswith(_ZIP):
        if _MAGIC not in start:
            hint = "a detector's is converted with 'regionvlp weights convert FILE --out DIR'"
            raise WeightsError(f"{path} is a pickle that torch.save did not write", hint)
        return False
    with zipfile.ZipFile(path) as archive:
        if any(name.rpartition("/")[2] == "constants.pkl" for name in archive.namelist()):
            raise WeightsError(f"{path} is a TorchScript program", "give a state dict")
    return True
