"""Which videos the rows of a table speak of: the ids that extraction gives them, and where their files lie.

The id of a video is its ``video_id`` (or another id beside a path), else the name of its file as listed. WebVid:
``page_dir/videoid``. CC3M: the name of the picture. The id of a stretch is its own (``clip_id``, ``id`` ... beside a
column that names the file), else ``FILE_START_END`` with seconds to three decimals, without the file's extension.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from regionvlp.data.tables.table import Table
from regionvlp.data.tables.times import written
from regionvlp.data.tables.vocabulary import no_column
from regionvlp.errors import InputError
from regionvlp.video.find import IMAGE_SUFFIXES, VIDEO_SUFFIXES

log = logging.getLogger(__name__)

# One way to name the videos: the id of each row, and the location of its file.
Form = tuple[pa.ChunkedArray, pa.ChunkedArray]
Read = Mapping[str, pa.ChunkedArray]

LEFT_OUT = 0.01  # share of a table's rows that may be empty; they are left out and counted
# The suffix of a file, or a dot in its place (DiDeMo has such names), as a regular expression for whole columns.
MEDIA_SUFFIX = rf"(?i)\.({'|'.join(suffix[1:] for suffix in sorted(VIDEO_SUFFIXES | IMAGE_SUFFIXES))})?$"
_YOUTUBE = r"(?:[?&]v=|youtu\.be/|/shorts/|/embed/)(?P<id>[A-Za-z0-9_-]{11})"
_IDS_PROPER = ("video_id", "videoid")  # of the names of a video, those that may differ from its file's


def roles(table: Table) -> list[str]:
    """The columns that name the videos of a table, of those that it has.

    Raises:
        InputError: there is none.
    """
    found = [role for role in ("path", "video", "id", "url", "folder") if table.has(role)]
    if not found or found == ["folder"]:
        raise no_column(table.path, "path" if not table.has_header else "video", table.names)
    return found


def forms(table: Table, read: Read) -> list[Form]:
    """The ways in which a table of whole files may name them, the likeliest first; "" where a row names nothing.

    Args:
        table: the table.
        read: its columns of :func:`roles`.
    """
    names = {role: text_of(values) for role, values in read.items()}
    folder, files = names.get("folder"), first_of(names, ("path", "video", "id"))
    if folder is not None and ("video" in names or "id" in names):
        files = first_of(names, ("video", "id"))
        both = pc.and_(pc.not_equal(folder, ""), pc.not_equal(files, ""))
        below = pc.if_else(both, joined(folder, "/", files), "")
        return [(below, below), (below, files)]
    if files is not None and ("path" in names or "video" in names):
        proper = "path" in names and "video" in names and table.name_of("video") in _IDS_PROPER
        given = ("video", "id") if proper else ("id",)
        own = first_of(names, given) if "path" in names else None
        return [(files if own is None else pc.if_else(pc.equal(own, ""), files, own), files)]
    if files is not None:
        return [(files, files)]
    return _cc3m(names["url"], numbered=not table.has_header)


def files_of_stretches(table: Table, read: Read) -> tuple[pa.ChunkedArray, pa.ChunkedArray | None]:
    """The file of each row of a table of stretches, and the ids that the stretches have of their own, if any."""
    names = {role: text_of(values) for role, values in read.items()}
    files = first_of(names, ("path", "video"))
    if files is not None:
        return files, names.get("id")
    if "id" in names:
        return names["id"], None
    found = pc.struct_field(pc.extract_regex(names["url"], _YOUTUBE), "id")
    return pc.fill_null(found, ""), None


def stretch_ids(files: pa.ChunkedArray, start: NDArray[np.float64], end: NDArray[np.float64]) -> pa.ChunkedArray:
    """The ids that extraction gives stretches without one of their own; ``end`` is NaN where a file's end is meant."""
    stems = pc.replace_substring_regex(files, MEDIA_SUFFIX, "")
    return joined(stems, "_", written(start), "_", written(end))


def first_of(names: Read, wanted: Sequence[str]) -> pa.ChunkedArray | None:
    """Of some columns, what the first that has anything says in each row; None where there is none of them."""
    found: pa.ChunkedArray | None = None
    for role in wanted:
        if role in names:
            found = names[role] if found is None else pc.if_else(pc.equal(found, ""), names[role], found)
    return found


def joined(*columns: pa.ChunkedArray | pa.Array | str) -> pa.ChunkedArray:
    """Columns and texts, one after the other."""
    return pc.binary_join_element_wise(*columns, "")


def text_of(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column as text without blanks around it, "" for nothing."""
    return pc.utf8_trim_whitespace(pc.fill_null(values, "") if values.null_count else values)


def whole_rows(lacking: NDArray[np.bool_], path: str, what: str) -> NDArray[np.int64] | None:
    """The rows that lack nothing; None for all of them. A few that do are left out, and counted in the log.

    Raises:
        InputError: more than one row in a hundred lacks something.
    """
    count = int(lacking.sum())
    if not count:
        return None
    message = f"{path}: {count} rows without {what}, the first is row {int(lacking.argmax()) + 1}"
    if count > LEFT_OUT * len(lacking):
        raise InputError(message, "fill or remove them")
    log.warning("%s; of %d rows, they are left out", message, len(lacking))
    return np.flatnonzero(~lacking)


def is_empty(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Which rows of a column of text say nothing."""
    return np.asarray(pc.equal(column, ""), dtype=bool)


def _cc3m(urls: pa.ChunkedArray, *, numbered: bool) -> list[Form]:
    """Names made from addresses: the checksum alone, or after the number of the row."""
    empty = pc.equal(urls, "")
    plain = pc.if_else(empty, "", _checksums(urls))
    numbers = pa.chunked_array([pa.array(np.arange(len(urls))).cast(pa.string())])
    with_row = pc.if_else(empty, "", joined(numbers, "_", plain))
    found: list[Form] = [(with_row, with_row), (plain, plain)]
    return found if numbered else found[::-1]


def _checksums(urls: pa.ChunkedArray) -> pa.ChunkedArray:
    """The CRC-32 of each text in decimal digits: the name under which CC3M pictures are stored."""
    chunks = (chunk.to_pylist() for chunk in urls.chunks)
    return pa.chunked_array(
        [pa.array([zlib.crc32(url.encode()) for url in chunk], pa.int64()).cast(pa.string()) for chunk in chunks],
        pa.string(),
    )
