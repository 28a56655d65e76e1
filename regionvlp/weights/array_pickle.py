"""Numpy arrays out of a pickle that nobody vouches for.

In: a ``.pkl`` as airsplay handed his weights out (``{"model": {name: array}}``, also from Python 2). Out: the arrays.

A pickle is a program that names functions to call. Here no name reaches a real one: the few that arrays and builtin
containers need are answered by stand-ins, which only note sizes, type and bytes, and every other name ends the reading.
Numpy rebuilds an array itself only after all of that has been checked.
"""

from __future__ import annotations

import math
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from regionvlp.errors import WeightsError
from regionvlp.weights.kinds import unreadable

_NUMBERS = re.compile(r"[fiub][1248]|f16")


class Refused(pickle.UnpicklingError):
    """The pickle names something that arrays do not need."""


class _Kind:
    """Stands for a ``numpy.dtype``: a code such as ``f4`` and a byte order."""

    def __init__(self, code: str | bytes, *_: Any) -> None:
        self._code = code.decode("latin1") if isinstance(code, bytes) else str(code)
        self._order = "="

    def __setstate__(self, state: Any) -> None:
        self._order = str(state[1]) if str(state[1]) in ("<", ">") else "="
        if any(part is not None for part in state[2:5]):
            raise Refused("an array of records")

    def dtype(self) -> np.dtype[Any]:
        code = self._code.lstrip("<>=|")
        if not _NUMBERS.fullmatch(code):
            raise Refused(f"an array of type '{self._code}'")
        return np.dtype(code).newbyteorder(self._order)  # type: ignore[arg-type]


class _Array:
    """Stands for a ``numpy.ndarray`` or a numpy scalar until its parts are known."""

    def __init__(self) -> None:
        self.value: NDArray[Any] | None = None

    def __setstate__(self, state: Any) -> None:
        shape, kind, fortran, data = state[-4:]
        self.fill(shape, kind, "F" if fortran else "C", data)

    def fill(self, shape: Any, kind: Any, order: str, data: Any) -> None:
        if not isinstance(kind, _Kind):
            raise Refused("an array without a type")
        raw = data.encode("latin1") if isinstance(data, str) else bytes(data)
        sizes, dtype = tuple(int(size) for size in shape), kind.dtype()
        if any(size < 0 for size in sizes) or math.prod(sizes) * dtype.itemsize != len(raw):
            raise pickle.UnpicklingError(f"an array of shape {list(sizes)} holds {len(raw)} bytes")
        flat = np.frombuffer(raw, dtype)
        self.value = flat.reshape(sizes, order="F" if order == "F" else "C").astype(dtype.newbyteorder("="), order="C")


class Admitted:
    """Stands for a callable of the outside world; a pickle can call it and do nothing else with it."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setstate__(self, _: Any) -> NoReturn:
        raise Refused("a change to a function")


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _scalar(kind: Any, data: Any = b"") -> _Array:
    array = _Array()
    array.fill((), kind, "C", data)
    return array


def _frombuffer(data: Any, kind: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.fill(shape, kind, str(order), data)
    return array


def _encode(text: Any, encoding: Any = "") -> bytes:
    """How Python 3 writes bytes for Python 2."""
    if not isinstance(text, str) or encoding != "latin1":
        raise Refused("codecs.encode of something else than bytes")
    return text.encode("latin1")


def _never_called(*_: Any) -> NoReturn:
    raise Refused("a bare numpy.ndarray")


_ADMITTED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _never_called,  # named as the kind of array to rebuild
    ("numpy", "dtype"): _Kind,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): OrderedDict,
    **{
        (module, name): call
        for module in ("builtins", "__builtin__")
        for name, call in (("set", set), ("bytes", bytes))
    },
}
# Numpy 2 moved its inner modules.
for _core in ("numpy.core", "numpy._core"):
    _ADMITTED[f"{_core}.multiarray", "_reconstruct"] = _reconstruct
    _ADMITTED[f"{_core}.multiarray", "scalar"] = _scalar
    _ADMITTED[f"{_core}.numeric", "_frombuffer"] = _frombuffer


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        call = _ADMITTED.get((module, name))
        if call is None:
            raise Refused(f"{module}.{name}")
        return Admitted(call)


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The named arrays of a pickle, from its top level or from under ``model`` or ``state_dict``; nothing is executed.

    Returns:
        Name to array in native byte order; whatever is no array of numbers is left out.

    Raises:
        WeightsError: the file asks for more than arrays, is damaged, or holds no table of names.
    """
    try:
        with path.open("rb") as file:
            # Python 2 wrote bytes as strings; latin1 gives each byte back.
            content = _Reader(file, encoding="latin1").load()
    except Refused as error:
        raise WeightsError(
            f"{path} was refused: it holds {error}, and reading more than plain arrays could run code",
            "give a file that holds a plain state dict, best as .safetensors",
        ) from None
    except Exception as error:  # a damaged pickle can make the reader raise anything
        raise unreadable(path, error) from None
    state = state_dict_in(content, path)
    found = {str(name): value.value for name, value in state.items() if isinstance(value, _Array)}
    return {name: value for name, value in found.items() if value is not None}


def state_dict_in(content: Any, path: Path) -> dict[Any, Any]:
    """The state dict that a file's content is, or holds under ``model`` or ``state_dict``.

    Raises:
        WeightsError: it holds none; ``path`` is for the message.
    """
    table = table_in(content)
    if table is None:
        raise WeightsError(f"{path} holds a {type(content).__name__}, not a state dict", "give a detector's weights")
    return table


def table_in(content: Any) -> dict[Any, Any] | None:
    """The dictionary that the content of a file is, or holds under ``state_dict`` or ``model``; None if neither."""
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    return content if isinstance(content, dict) else None
