"""Times as tables write them: seconds, ``MM:SS``, ``HH:MM:SS.mmm``, and lists of pairs of them."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_CLOCK = r"^(?:(?:(?P<h>\d+):)?(?P<m>\d+):)?(?P<s>\d+(?:[.,]\d*)?)$"
_TIME = re.compile(r"\d+(?::\d+){0,2}(?:[.,]\d*)?")


def seconds(values: pa.ChunkedArray) -> NDArray[np.float64]:
    """Seconds, float64 of the column's length; NaN where a row has no time, -1 where what it has is none."""
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        numbers = np.asarray(pc.fill_null(values.cast(pa.float64()), np.nan), dtype=np.float64)
        return np.where(np.isfinite(numbers) & (numbers >= 0) | np.isnan(numbers), numbers, -1.0)
    text = pc.utf8_trim_whitespace(pc.fill_null(values, ""))
    parts = pc.extract_regex(text, _CLOCK)
    total = np.zeros(len(values))
    for name, unit in (("h", 3600), ("m", 60), ("s", 1)):
        field = pc.replace_substring(pc.struct_field(parts, name), ",", ".")
        field = pc.if_else(pc.equal(field, ""), "0", field)
        total += unit * np.asarray(pc.fill_null(field, "0").cast(pa.float64()), dtype=np.float64)
    missing = np.asarray(pc.equal(text, ""), dtype=bool)
    total[np.asarray(pc.is_null(parts), dtype=bool)] = -1.0
    total[missing] = np.nan
    return total


def pairs(values: pa.ChunkedArray) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Reads rows of pairs, such as ``[['0:00:00.000', '0:00:05.005'], ...]``, as text or as lists.

    Returns:
        The row, start and end (seconds) of each pair; end is NaN where a row holds an odd number of times.
    """
    rows: list[int] = []
    clocks: list[str] = []
    for row, value in enumerate(values.to_pylist()):
        # The text of a list of lists of strings or numbers is what the text tables hold.
        found = _TIME.findall(str(value))
        rows += [row] * ((len(found) + 1) // 2)
        clocks += found + [""] * (len(found) % 2)
    edges = seconds(pa.chunked_array([pa.array(clocks, pa.string())])).reshape(-1, 2)
    return np.asarray(rows, dtype=np.int64), edges[:, 0], edges[:, 1]


def written(values: NDArray[np.float64]) -> pa.Array:
    """Seconds with three decimals, as text; NaN as ``end``."""
    known = ~np.isnan(values)
    thousandths = np.rint(np.where(known, values, 0.0) * 1000).astype(np.int64)
    rest = pc.utf8_lpad(pa.array(thousandths % 1000).cast(pa.string()), 3, "0")
    text = pc.binary_join_element_wise(pa.array(thousandths // 1000).cast(pa.string()), rest, ".")
    return pc.if_else(pa.array(known), text, "end")
