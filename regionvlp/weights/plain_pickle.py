"""Reads pickles that hold nothing but plain values and numpy arrays of numbers, and runs nothing of them.

A pickle is a program that may call anything it can name. Here the few names with which numpy pickles its arrays stand
for classes of this file, and every other name is refused; numpy's own code never sees a state that a stranger wrote.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

_NUMBERS = re.compile(r"[<>|=]?(?:[iuf][1248]|b1|U\d{1,4}|S\d{1,4})")
_OBJECT = re.compile(r"[|]?O8?")
_PLAIN = (str, bytes, int, float, bool, type(None))


class UnsafePickleError(ValueError):
    """A pickle that asks for something that is not a plain value."""


class _Dtype:
    """``numpy.dtype(code, align, copy)`` and the state with its byte order."""

    def __init__(self, code: str, align: object = False, copy: object = True) -> None:
        if not isinstance(code, str) or not (_NUMBERS.fullmatch(code) or _OBJECT.fullmatch(code)):
            raise UnsafePickleError(f"an array of dtype {code!r}")
        self.code = code.lstrip("<>|=")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        if order in ("<", ">"):
            self.code = order + self.code

    @property
    def is_object(self) -> bool:
        return self.code.startswith("O")


class _Array:
    """An array that is being put together; its state is (version, shape, dtype, Fortran order, contents)."""

    def __init__(self, *_: object) -> None:
        self.value: Any = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, contents = state
        if not dtype.is_object:
            self.value = _numbers(contents, dtype, shape, "F" if fortran else "C")
        elif isinstance(contents, list) and shape == ():
            (self.value,) = contents  # how np.savez wraps a dictionary
        else:
            raise UnsafePickleError("an array of objects")


def _scalar(dtype: _Dtype, contents: bytes) -> Any:
    return _numbers(contents, dtype, (), "C")[()]


def _from_buffer(contents: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str) -> NDArray[Any]:
    return _numbers(contents, dtype, shape, order)


def _encode(text: str, encoding: str) -> bytes:
    """How Python 2 and protocol 2 write bytes."""
    if encoding != "latin1":
        raise UnsafePickleError(f"text in {encoding!r}")
    return text.encode("latin1")


def _numbers(contents: Any, dtype: _Dtype, shape: tuple[int, ...], order: str) -> NDArray[Any]:
    if dtype.is_object:
        raise UnsafePickleError("an array of objects")
    if isinstance(contents, str):  # as Python 2 wrote it
        contents = contents.encode("latin1")
    return np.frombuffer(contents, np.dtype(dtype.code)).reshape(shape, order="F" if order == "F" else "C").copy()


_KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise UnsafePickleError(f"it asks for {module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        raise UnsafePickleError("it refers to something outside")


def load_plain(file: IO[bytes]) -> Any:
    """Reads one pickle made of dictionaries, lists, tuples, text, bytes, numbers, and numpy arrays and scalars.

    Raises:
        UnsafePickleError: it asks for anything else. Further ones, of every kind that the unpickler knows, where it is
            damaged.
    """
    return _resolved(_Unpickler(file, encoding="latin1").load())


def _resolved(value: Any) -> Any:
    """The same with every array in its place."""
    if isinstance(value, _Array):
        return _resolved(value.value)
    if isinstance(value, dict):
        return {_resolved(key): _resolved(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_resolved(item) for item in value]
    if isinstance(value, (*_PLAIN, np.ndarray, np.generic)):
        return value
    raise UnsafePickleError(f"it holds a {type(value).__name__}")
