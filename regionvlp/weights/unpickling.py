"""The one door through which a stranger's pickle comes in: nothing of it is ever run.

In: a pickle that nobody vouches for. Out: its plain values and numpy arrays.

A pickle is a program that names functions to call. Here no name reaches a real one: those in a table are answered by
what the table says, numpy's by stand-ins that only note sizes, type and bytes, and every other name ends the reading,
or stands for an :class:`Inert` object where the reader wants to get past it. Numpy makes an array itself only after all
of that has been checked. Free of torch, whose tensors are a larger table in :mod:`regionvlp.weights.reading`.
"""

from __future__ import annotations

import math
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import IO, Any, ClassVar, NoReturn

import numpy as np
from numpy.typing import NDArray

_DTYPE = re.compile(r"[fiu][1248]|b1|[US]\d{1,4}")
_OBJECT = re.compile(r"O8?")
_PLAIN = (str, bytes, int, float, bool, type(None), np.ndarray, np.generic)


class UnsafePickleError(pickle.UnpicklingError):
    """A pickle that asks for more than values: its text says what, and goes on from the name of the file."""


class Admitted:
    """Stands for a callable of the outside world; a pickle can call it and do nothing else with it."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setstate__(self, _: Any) -> NoReturn:
        raise UnsafePickleError("it asks for a change to a function")


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


class _Kind:
    """Stands for a ``numpy.dtype``: a code such as ``f4`` and a byte order."""

    def __init__(self, code: str | bytes, *_: Any) -> None:
        self._code = (code.decode("latin1") if isinstance(code, bytes) else str(code)).lstrip("<>=|")
        self._order = "="

    def __setstate__(self, state: Any) -> None:
        self._order = str(state[1]) if str(state[1]) in ("<", ">") else "="
        if any(part is not None for part in state[2:5]):
            raise UnsafePickleError("it holds an array of records")

    @property
    def is_object(self) -> bool:
        return _OBJECT.fullmatch(self._code) is not None

    def dtype(self) -> np.dtype[Any]:
        if self.is_object:
            raise UnsafePickleError("it holds an array of objects")
        if not _DTYPE.fullmatch(self._code):
            raise UnsafePickleError(f"it holds an array of type '{self._code}'")
        return np.dtype(self._code).newbyteorder(self._order)  # type: ignore[arg-type]


class _Array:
    """Stands for a ``numpy.ndarray`` until its parts are known; ``value`` is then the array, or what it wraps."""

    def __init__(self) -> None:
        self.value: Any = None

    def __setstate__(self, state: Any) -> None:
        shape, kind, fortran, data = state[-4:]
        if isinstance(kind, _Kind) and kind.is_object and tuple(shape) == () and isinstance(data, list):
            (self.value,) = data  # how np.savez wraps a dictionary
        else:
            self.value = _array(data, kind, shape, "F" if fortran else "C")


def _array(data: Any, kind: Any, shape: Any, order: str) -> NDArray[Any]:
    if not isinstance(kind, _Kind):
        raise UnsafePickleError("it holds an array without a type")
    sizes, dtype = tuple(int(size) for size in shape), kind.dtype()
    raw = data.encode("latin1") if isinstance(data, str) else bytes(memoryview(data))  # Python 2 wrote text
    if any(size < 0 for size in sizes) or math.prod(sizes) * dtype.itemsize != len(raw):
        raise pickle.UnpicklingError(f"an array of shape {list(sizes)} holds {len(raw)} bytes")
    flat = np.frombuffer(raw, dtype) if len(raw) else np.empty(0, dtype)
    ordered = flat.reshape(sizes, order="F" if order == "F" else "C")
    return ordered.astype(dtype.newbyteorder("="), order="C")


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _scalar(kind: Any, data: Any = b"") -> Any:
    return _array(data, kind, (), "C")[()]


def _frombuffer(data: Any, kind: Any, shape: Any, order: Any) -> NDArray[Any]:
    return _array(data, kind, shape, str(order))


def _encode(text: Any, encoding: Any = "") -> bytes:
    """How Python 3 writes bytes for Python 2."""
    if not isinstance(text, str) or encoding != "latin1":
        raise UnsafePickleError("it asks for codecs.encode of something else than bytes")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """How Python 3 writes no bytes for Python 2; with a number, the real one would take that much memory."""
    return b""


def _never_called(*_: Any) -> NoReturn:
    raise UnsafePickleError("it asks for a bare numpy.ndarray")


VALUES: Mapping[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _never_called,  # named as the kind of array to rebuild
    ("numpy", "dtype"): _Kind,
    # Numpy 2 moved its inner modules.
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _frombuffer for core in ("core", "_core")},
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): OrderedDict,
    **{(module, "set"): set for module in ("builtins", "__builtin__")},
    **{(module, "bytes"): _no_bytes for module in ("builtins", "__builtin__")},
}


class _WholeLines:
    """A file whose last line, where it was cut off, is not taken for a shorter name."""

    def __init__(self, file: IO[bytes]) -> None:
        self.read, self._readline = file.read, file.readline
        if hasattr(file, "readinto"):
            self.readinto = file.readinto

    def readline(self) -> bytes:
        line = self._readline()
        if not line.endswith(b"\n"):
            raise EOFError("it was cut off")
        return line


# The one written in Python: the other keeps what it remembers in an array as long as the largest number in the file,
# so that one flipped bit takes gigabytes.
class Unpickler(pickle._Unpickler):
    """Reads a pickle by a table of names.

    Attributes:
        admitted: (module, name) -> a function that may be called, or a value.
        foreign: whether every other name stands for an :class:`Inert` object; it ends the reading otherwise.
    """

    admitted: ClassVar[Mapping[tuple[str, str], Any]] = VALUES
    foreign: ClassVar[bool] = False

    def __init__(self, file: IO[bytes], **options: Any) -> None:
        super().__init__(_WholeLines(file), **options)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self.admitted:
            known = self.admitted[module, name]
            return Admitted(known) if callable(known) else known
        if not self.foreign:
            raise UnsafePickleError(f"it asks for {module}.{name}")
        # A class of its own each time, so that nothing a pickle does to it is seen elsewhere.
        return type("Inert", (Inert,), {})

    def persistent_load(self, pid: Any) -> Any:
        raise UnsafePickleError("it refers to something outside")


def load_values(file: IO[bytes]) -> Any:
    """Reads one pickle made of dictionaries, lists, tuples, text, bytes, numbers, and numpy arrays and scalars.

    Raises:
        UnsafePickleError: it asks for anything else. Further ones, of every kind that the unpickler knows, where it is
            damaged.
    """
    # Python 2 wrote bytes as strings; latin1 gives each byte back.
    return settled(Unpickler(file, encoding="latin1").load(), only_values=True)


def settled(content: Any, *, only_values: bool = False) -> Any:
    """What an :class:`Unpickler` gave, with every stand-in replaced by its array.

    Args:
        content: as it came.
        only_values: whether to refuse what is no plain value; it is left as it is otherwise.

    Raises:
        UnsafePickleError: something is no plain value.
    """
    done: dict[int, Any] = {}  # a pickle may name the same list many times over, or inside itself

    def settle(value: Any) -> Any:
        if isinstance(value, _Array):
            return settle(value.value)
        if id(value) in done:
            return done[id(value)]
        if type(value) in (dict, OrderedDict):
            done[id(value)] = table = type(value)()
            table.update((settle(key), settle(item)) for key, item in value.items())
            return table
        if type(value) is list:
            items: list[Any] = []
            done[id(value)] = items
            items.extend(map(settle, value))
            return items
        if type(value) is tuple:
            done[id(value)] = whole = tuple(map(settle, value))
            return whole
        if only_values and not isinstance(value, _PLAIN):
            raise UnsafePickleError(f"it holds a {type(value).__name__}")
        return value

    return settle(content)
