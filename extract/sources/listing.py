"""From what a source found to a listing: the columns of a plan but ``shard``, checked and sorted by id."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc

from regionvlp.errors import InputError
from regionvlp.store.plan import VIDEO_SCHEMA
from regionvlp.video.find import refuse_bad_ids

_ROWS_AT_ONCE = 65536
# What is not plainly an id: anything but printable ASCII, a backslash, an empty, '.' or '..' part, an absolute path.
# Only these few are looked at one by one.
_ODD = r"[^ -\[\]-~]|(^|/)\.{0,2}(/|$)|^[A-Za-z]:/"
_NAMED = 5


def from_rows(rows: Iterable[tuple[str, int, int]]) -> pa.Table:
    """The columns of a listing from rows of id, bytes and time of change, which are consumed piece by piece.

    Raises:
        InputError: a name is not valid UTF-8.
    """
    pieces: list[list[pa.Array]] = []
    undecodable: list[str] = []
    rows = iter(rows)
    while piece := list(islice(rows, _ROWS_AT_ONCE)):
        names, sizes, times = zip(*piece, strict=True)
        try:
            pieces.append([pa.array(names, pa.string()), pa.array(sizes), pa.array(times)])
        except UnicodeEncodeError:
            undecodable += [name for name in names if not is_text(name)]
    refuse_bad_ids(undecodable)
    columns = [pa.chunked_array(chunks) for chunks in zip(*pieces, strict=True)]
    return table_of(dict(zip(("video_id", "bytes", "mtime_ns"), columns, strict=True)))


def table_of(columns: dict[str, pa.Array | pa.ChunkedArray | int | None]) -> pa.Table:
    """The columns of a listing; a number stands for a column of it, an absent column for nulls."""
    length = len(columns["video_id"])  # type: ignore[arg-type]
    whole = []
    for field in VIDEO_SCHEMA:
        values = columns.get(field.name)
        if values is None:
            values = pa.nulls(length, field.type)
        elif isinstance(values, int):
            values = pa.repeat(pa.scalar(values, field.type), length)
        whole.append(values)
    return pa.Table.from_arrays(whole, schema=VIDEO_SCHEMA)


def finished(table: pa.Table) -> pa.Table:
    """Checks the ids of a listing and sorts it by them. A row that is there twice is there once.

    Raises:
        InputError: an id that cannot be one, or that stands for two videos.
    """
    ids = table.column("video_id")
    refuse_bad_places(ids)
    table = table.take(pc.sort_indices(ids))
    ids = table.column("video_id").combine_chunks()
    again = pc.equal(ids[1:], ids[:-1])
    if pc.any(again).as_py():
        table = _without_repeats(table, again)
    pa.default_memory_pool().release_unused()  # of millions of rows, the way here took a multiple of what is left
    return table


def refuse_bad_places(places: pa.ChunkedArray) -> None:
    """Refuses names that cannot be ids; the same rules keep a location below its root.

    Raises:
        InputError: there is one.
    """
    refuse_bad_ids(pc.unique(places.filter(pc.match_substring_regex(places, _ODD))).to_pylist())


def _without_repeats(table: pa.Table, again: pa.Array) -> pa.Table:
    """Drops rows that say the same as the one before; ``again`` [rows - 1] says which have the id of the one before."""
    same = again
    for name in ("location", "member", "offset", "start", "end"):
        column = table.column(name).combine_chunks()
        one, other = column[1:], column[:-1]
        alike = pc.or_(pc.fill_null(pc.equal(one, other), False), pc.and_(pc.is_null(one), pc.is_null(other)))
        same = pc.and_(same, alike)
    collides = pc.and_not(again, same)
    count = pc.sum(collides).as_py()
    if count:
        faults = [
            f"'{row['video_id']}' is {described(row)} and {described(other)}"
            for row, other in islice(_pairs(table, collides), _NAMED)
        ]
        more = f" (and {count - _NAMED} more)" if count > _NAMED else ""
        raise InputError(f"{count} ids stand for two videos: {'; '.join(faults)}{more}", "make the ids unique")
    return table.filter(pa.concat_arrays([pa.array([True]), pc.invert(same)]))


def _pairs(table: pa.Table, marked: pa.Array) -> Iterator[Sequence[dict[str, object]]]:
    for place in pc.indices_nonzero(marked):
        yield table.slice(place.as_py(), 2).to_pylist()


def described(row: dict[str, object]) -> str:
    """Where the video of a row lies, for a message."""
    place = str(row["location"] or row["video_id"])
    if row["member"]:
        place = f"{row['member']} in {place}"
    if row["start"] is None and row["end"] is None:
        return place
    return f"{place} from {row['start'] or 0:g} s" + ("" if row["end"] is None else f" to {row['end']:g} s")


def is_text(name: str) -> bool:
    """Whether a name is valid UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
