"""Times as tables write them: seconds, ``MM:SS``, ``HH:MM:SS.mmm``, and lists of pairs of them.

A cell is parsed as what it is, whole, or it is no time: nothing is searched for in a text.
"""

from __future__ import annotations

import ast
import json
import math
import re
import warnings
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from regionvlp.errors import InputError

# Seconds may have an exponent (pandas writes 5e-05 so) and a comma for a point, as subtitles do.
_CLOCK = r"^(?:(?:(?P<h>\d+):)?(?P<m>\d+):)?(?P<s>\d+(?:[.,]\d*)?(?:[eE][+-]?\d{1,3})?)$"
_NUMPY = re.compile(r"[\[\]\s\d.eE+-]+")  # the print of an array of numbers
_TOKEN = re.compile(r"[\[\]]|[^\[\]\s]+")
_NO_TIME = -1.0
_LONGEST = 1e9  # seconds; beyond that, the milliseconds in an id would lie


def seconds(values: pa.ChunkedArray) -> NDArray[np.float64]:
    """Seconds, float64 of the column's length; NaN where a row has no time, -1 where what it has is none.

    Raises:
        InputError: the column's type holds no times.
    """
    if pa.types.is_null(values.type):
        return np.full(len(values), np.nan)
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        numbers = np.asarray(pc.fill_null(_numbers(values), np.nan), dtype=np.float64)
        good = np.isnan(numbers) | (numbers >= 0) & (numbers < _LONGEST)
        return np.where(good, numbers, _NO_TIME)
    text = pc.utf8_trim_whitespace(pc.fill_null(values, ""))
    parts = pc.extract_regex(text, _CLOCK)
    total = np.zeros(len(values))
    for name, unit in (("h", 3600), ("m", 60), ("s", 1)):
        field = pc.replace_substring(pc.struct_field(parts, name), ",", ".")
        field = pc.if_else(pc.equal(field, ""), "0", field)
        total += unit * np.asarray(pc.fill_null(field, "0").cast(pa.float64()), dtype=np.float64)
    missing = np.asarray(pc.equal(text, ""), dtype=bool)
    total[np.asarray(pc.is_null(parts), dtype=bool) | (total >= _LONGEST)] = _NO_TIME
    total[missing] = np.nan
    return total


def _numbers(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of numbers, durations or times of day as float64 (seconds)."""
    kind = values.type
    if pa.types.is_duration(kind) or pa.types.is_time(kind):
        per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[kind.unit]
        whole = values.cast(pa.int32()) if pa.types.is_time32(kind) else values
        return pc.divide(whole.cast(pa.int64()).cast(pa.float64(), safe=False), float(per_second))
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return values.cast(pa.float64(), safe=False)
    raise InputError(f"a column of {kind} holds no times", "write seconds or HH:MM:SS.mmm")


def pairs(values: pa.ChunkedArray) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Reads rows of pairs, such as ``[['0:00:00.000', '0:00:05.005'], ...]``, as text or as lists.

    Text is JSON, or what Python or NumPy print of a list: of pairs, or one pair alone. A row may hold no pair.

    Returns:
        The row, start and end (seconds) of each pair; -1 for what is no time.

    Raises:
        InputError: a row that is something else.
    """
    rows: list[int] = []
    edges: list[str] = []
    for row, value in enumerate(values.to_pylist()):
        try:
            for start, end in _pairs_of(value):
                rows.append(row)
                edges += (_text_of(start), _text_of(end))
        except ValueError:
            shown = str(value)
            shown = shown if len(shown) <= 40 else f"{shown[:37]}..."
            raise InputError(
                f"row {row + 1} holds {shown!r}, which is no list of pairs of times", "write [[start, end], ...]"
            ) from None
    both = seconds(pa.chunked_array([pa.array(edges, pa.string())])).reshape(-1, 2)
    both = np.where(np.isnan(both), _NO_TIME, both)
    return np.asarray(rows, dtype=np.int64), both[:, 0], both[:, 1]


def _pairs_of(value: Any) -> list[tuple[Any, Any]]:
    """The pairs of one cell.

    Raises:
        ValueError: it is something else.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return []
    found = literal(value) if isinstance(value, str) else value
    if isinstance(found, dict) or (isinstance(found, list | tuple) and found and not _is_nested(found)):
        found = [found]
    if not isinstance(found, list | tuple):
        raise ValueError
    result = []
    for pair in found:
        if isinstance(pair, dict) and {"start", "end"} <= pair.keys():
            pair = [pair["start"], pair["end"]]
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise ValueError
        result.append((pair[0], pair[1]))
    return result


def _is_nested(values: list[Any] | tuple[Any, ...]) -> bool:
    return isinstance(values[0], list | tuple | dict)


def _text_of(value: Any) -> str:
    """One edge of a pair as the text that :func:`seconds` reads; text that is no time where it is none."""
    if isinstance(value, str):
        return value.strip() or "no time"
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return "no time"
    return repr(value)


def literal(text: str) -> Any:
    """What a cell means: JSON, a Python literal, or an array of numbers as NumPy prints it.

    Raises:
        ValueError: it is none of these.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    if _NUMPY.fullmatch(text):
        return _numpy(text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes in somebody's text
            return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise ValueError("no literal") from None


def _numpy(text: str) -> list[Any]:
    """An array of numbers as NumPy prints it, ``[[0. 5.]\\n [1. 2.5]]``.

    Raises:
        ValueError: the brackets do not fit, or something between them is no number.
    """
    whole: list[Any] = []
    open_lists = [whole]
    for token in _TOKEN.findall(text):
        if token == "[":
            inner: list[Any] = []
            open_lists[-1].append(inner)
            open_lists.append(inner)
        elif token == "]":
            open_lists.pop()
            if not open_lists:
                raise ValueError("a bracket too many")
        else:
            open_lists[-1].append(float(token))
    if len(open_lists) != 1 or len(whole) != 1 or not isinstance(whole[0], list):
        raise ValueError("no array")
    return whole[0]


def written(values: NDArray[np.float64]) -> pa.Array:
    """Seconds with three decimals, as text; NaN as ``end``."""
    known = ~np.isnan(values)
    thousandths = np.rint(np.where(known, values, 0.0) * 1000).astype(np.int64)
    rest = pc.utf8_lpad(pa.array(thousandths % 1000).cast(pa.string()), 3, "0")
    text = pc.binary_join_element_wise(pa.array(thousandths // 1000).cast(pa.string()), rest, ".")
    return pc.if_else(pa.array(known), text, "end")
