"""Which stretch of its file each row of a table means: from columns of times, as InternVid and Panda-70M have."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from regionvlp.data.tables import times
from regionvlp.data.tables.table import Table
from regionvlp.errors import InputError

log = logging.getLogger(__name__)

# A start or an end without the other counts only under a name that means nothing else.
_ALONE = ("start", "end", "clip_start", "clip_end", "t_start", "t_end")
_HINT = "write seconds or HH:MM:SS.mmm, the end after the start"


@dataclass(frozen=True)
class Stretches:
    """Stretches of files.

    Attributes:
        rows: the row of the table that each belongs to; None where every row is one, in the table's order.
        start, end: seconds; the end is NaN where the file's end is meant.
    """

    rows: NDArray[np.int64] | None
    start: NDArray[np.float64]
    end: NDArray[np.float64]


def roles(table: Table) -> tuple[str, ...]:
    """The columns that say which stretch is meant; none in a table of whole files."""
    if table.has("start") and table.has("end"):
        return "start", "end"
    if table.has("start") and table.has("duration"):
        return "start", "duration"
    if table.has("start_frame") and table.has("end_frame"):
        return ("start_frame", "end_frame", "fps") if table.has("fps") else ("start_frame", "end_frame")
    if table.has("times") and any(_is_list(value) for value in table.sample("times")):
        return ("times",)  # a column of this name may as well hold the day on which a clip was made
    for role in ("start", "end"):
        if table.has(role) and table.name_of(role).replace(" ", "_").startswith(_ALONE):
            return (role,)
    return ()


def stretches(table: Table, read: Mapping[str, pa.ChunkedArray]) -> Stretches:
    """The stretches that the columns of :func:`roles` mean.

    Raises:
        InputError: something there is no stretch of time, or none is meant at all.
    """
    if "times" in read:
        try:
            rows, start, end = times.pairs(read["times"])
        except InputError as error:
            raise InputError(f"{table.path}, {error.message}", error.hint) from None
        if not len(rows):
            raise InputError(f"{table.path}: no row of '{table.name_of('times')}' holds a stretch", _HINT)
        without = len(read["times"]) - len(np.unique(rows))
        if without:
            log.warning("%s: %d rows name no stretch of their file and are left out", table.path, without)
        _refuse_no_time(start, end, table.path)
        return Stretches(rows, start, end)
    if "start_frame" in read:
        start, end = _by_frames(table, read)
    else:
        given = {role: _seconds(table, read[role], role) for role in ("start", "end", "duration") if role in read}
        length = len(next(iter(given.values())))
        start = given.get("start", np.zeros(length))
        start = np.where(np.isnan(start), 0.0, start)
        end = given.get("end", np.full(length, np.nan))
        if "duration" in given:
            lasting = given["duration"]
            end = np.where((lasting < 0) | (start < 0), -1.0, start + lasting)
    _refuse_no_time(start, end, table.path)
    return Stretches(None, start, end)


def _seconds(table: Table, values: pa.ChunkedArray, role: str) -> NDArray[np.float64]:
    """A column of times in seconds, whatever its unit."""
    try:
        found = times.seconds(values)
    except InputError as error:
        raise InputError(f"{table.path}: {error.message}", error.hint) from None
    in_thousandths = table.name_of(role).endswith("_ms") and not pa.types.is_duration(values.type)
    return np.where(found > 0, found / 1000, found) if in_thousandths else found


def _by_frames(table: Table, read: Mapping[str, pa.ChunkedArray]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if "fps" not in read:
        raise InputError(
            f"{table.path} counts its stretches in frames (columns '{table.name_of('start_frame')}' and "
            f"'{table.name_of('end_frame')}') and does not say how many make a second",
            "add a column fps, or write start and end in seconds; '--source list' takes the files whole",
        )
    first, last, fps = (times.seconds(read[role]) for role in ("start_frame", "end_frame", "fps"))
    with np.errstate(divide="ignore", invalid="ignore"):
        start, end = first / fps, last / fps
    bad = ~(fps > 0) | (first < 0) | (last < 0)
    return np.where(bad, -1.0, np.where(np.isnan(start), 0.0, start)), np.where(bad, -1.0, end)


def _refuse_no_time(start: NDArray[np.float64], end: NDArray[np.float64], path: str) -> None:
    bad = (start < 0) | (end < 0) | (end <= start)
    if bad.any():
        first = int(bad.argmax())
        raise InputError(
            f"{path}: {int(bad.sum())} segments are no stretch of time; segment {first + 1} goes from {start[first]:g} "
            f"to {end[first]:g} s (-1: not a time)",
            _HINT,
        )


def _is_list(value: object) -> bool:
    return isinstance(value, list | dict) or (isinstance(value, str) and value.lstrip().startswith("["))
