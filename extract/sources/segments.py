"""A table of stretches of videos, as InternVid and Panda-70M are handed out: file, start, end, and maybe an id.

The id of a stretch is its own (``clip_id``, ``id`` ... beside a column that names the file), else
``FILE_START_END`` with seconds to three decimals and without the file's extension.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from regionvlp.errors import InputError
from regionvlp.extract.sources import listing, names, times
from regionvlp.extract.sources.lookup import MEDIA_SUFFIX
from regionvlp.extract.sources.source import Source
from regionvlp.extract.sources.tables import Table
from regionvlp.store.plan import UNKNOWN

STARTS = (
    *("start", "start_time", "start time", "start_timestamp", "start_sec", "start_seconds", "start_s", "t_start"),
    *("begin", "begin_time", "time_start", "from"),
)
ENDS = (
    *("end", "end_time", "end time", "end_timestamp", "end_sec", "end_seconds", "end_s", "t_end"),
    *("stop", "time_end", "to"),
)
PAIRS = ("timestamp", "timestamps", "segment", "segments", "clips", "span", "spans")
# Beside one of these, an id names the stretch and not the file.
_FILES = (*names.PATHS, *names.VIDEOS, "videoid", "video_id")
_OWN_IDS = tuple(name for name in names.IDS if name not in ("videoid", "video_id"))
_YOUTUBE = r"(?:[?&]v=|youtu\.be/|/shorts/|/embed/)(?P<id>[A-Za-z0-9_-]{11})"


def is_segments(table: Table) -> bool:
    """Whether a table says which stretch of each file is meant."""
    if table.column(STARTS) and table.column(ENDS):
        return True
    # A column of this name may as well hold the day on which a clip was made.
    pairs = table.column(PAIRS)
    return pairs is not None and str(table.example(pairs)).lstrip().startswith("[")


def scan(source: Source) -> pa.Table:
    """Reads the table."""
    table = Table(source.videos, {*_FILES, *names.IDS, *names.URLS, *STARTS, *ENDS, *PAIRS, *names.OTHERS})
    files, own = _files(table), table.column(_OWN_IDS)
    if table.column(STARTS) and table.column(ENDS):
        start, end = (times.seconds(values) for values in table.read([_given(table, STARTS), _given(table, ENDS)]))
        start = np.where(np.isnan(start), 0.0, start)
    elif table.column(PAIRS):
        rows, start, end = times.pairs(table.read([_given(table, PAIRS)])[0])
        files, own = files.take(pa.array(rows)), None
    else:
        raise InputError(
            f"{table.path} does not say where its segments start and end (it has {', '.join(table.names[:8])})",
            "call the columns start and end, or use --source list",
        )
    _refuse_no_time(start, end, table.path)
    if own:
        ids = names.text_of(table.read([own])[0])
        names.refuse_empty(ids, table.path, f"a {own}")
    else:
        stems = pc.replace_substring_regex(files, MEDIA_SUFFIX, "")
        ids = names.joined(stems, "_", times.written(start), "_", times.written(end))
    ids, locations = names.resolved(source, [(ids, files)])
    return listing.finished(
        listing.table_of(
            {
                "video_id": ids,
                "location": locations,
                "bytes": UNKNOWN,
                "mtime_ns": UNKNOWN,
                "start": pa.array(start),
                "end": pa.array(end, mask=np.isnan(end)),
            }
        )
    )


def _given(table: Table, choices: tuple[str, ...]) -> str:
    name = table.column(choices)
    assert name is not None
    return name


def _files(table: Table) -> pa.ChunkedArray:
    """The column that names the file; of YouTube addresses, the id of the video."""
    name = table.column(_FILES) or table.column(names.IDS)
    if name:
        files = names.text_of(table.read([name])[0])
    elif url := table.column(names.URLS):
        name = url
        found = pc.extract_regex(names.text_of(table.read([url])[0]), _YOUTUBE)
        files = pc.fill_null(pc.struct_field(found, "id"), "")
    else:
        raise InputError(
            f"{table.path} has no column that names files (it has {', '.join(table.names[:8])})",
            f"call it {names.PATHS[0]} or video_id",
        )
    names.refuse_empty(files, table.path, f"a {name}")
    return files


def _refuse_no_time(start: NDArray[np.float64], end: NDArray[np.float64], path: str) -> None:
    bad = (start < 0) | (end < 0) | (end <= start)
    if bad.any():
        first = int(bad.argmax())
        raise InputError(
            f"{path}: {int(bad.sum())} segments are no stretch of time; segment {first + 1} goes from {start[first]:g} "
            f"to {end[first]:g} s (-1: not a time)",
            "write seconds or HH:MM:SS.mmm, the end after the start",
        )
