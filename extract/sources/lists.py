"""A list of videos: WebVid, CC3M, or any table with a column that names the file.

The id of a video is its ``video_id`` (or what else in :data:`~regionvlp.extract.sources.names.IDS` is there beside a
path), else the name of its file as listed, below the root. WebVid: ``page_dir/videoid``. CC3M: the name of the picture.
"""

from __future__ import annotations

import pyarrow as pa

from regionvlp.errors import InputError
from regionvlp.extract.sources import listing, names
from regionvlp.extract.sources.names import Form
from regionvlp.extract.sources.source import Source
from regionvlp.extract.sources.tables import Table
from regionvlp.store.plan import UNKNOWN


def scan(source: Source) -> pa.Table:
    """Reads the list. Rows that name the same file under the same id, as captions do, are one video."""
    known = {*names.PATHS, *names.IDS, *names.VIDEOS, *names.URLS, *names.FOLDERS, *names.OTHERS}
    ids, locations = names.resolved(source, _forms(Table(source.videos, known)))
    return listing.finished(
        listing.table_of({"video_id": ids, "location": locations, "bytes": UNKNOWN, "mtime_ns": UNKNOWN})
    )


def _forms(table: Table) -> list[Form]:
    """The ways in which the table may name files, the likeliest first."""
    folder, path = table.column(names.FOLDERS), table.column(names.PATHS)
    video = table.column((*names.IDS, *names.VIDEOS))
    if not table.has_header:
        # As DemoVLP and MCQ write them: caption, tab, name. Only CC3M's own list has an address in its place.
        last = _column(table, table.names[-1])
        return _cc3m(last, numbered=True) if "://" in last[0].as_py() else [(last, last)]
    if folder and video:
        folders, videos = _columns(table, folder, video)
        below = names.joined(folders, "/", videos)
        return [(below, below), (below, videos)]
    if path:
        own = table.column(names.IDS)
        *ids, places = _columns(table, *([own] if own else []), path)
        return [(ids[0] if ids else places, places)]
    if video:
        places = _column(table, video)
        return [(places, places)]
    if url := table.column(names.URLS):
        return _cc3m(_column(table, url), numbered=False)
    raise InputError(
        f"{table.path} has no column that names files (it has {', '.join(table.names[:8])})",
        f"call it {', '.join(names.PATHS[:3])} or {names.IDS[0]}",
    )


def _column(table: Table, name: str) -> pa.ChunkedArray:
    return _columns(table, name)[0]


def _columns(table: Table, *wanted: str) -> list[pa.ChunkedArray]:
    columns = [names.text_of(values) for values in table.read(list(wanted))]
    for name, values in zip(wanted, columns, strict=True):
        names.refuse_empty(values, table.path, f"a {name}" if table.has_header else "a name")
    return columns


def _cc3m(urls: pa.ChunkedArray, *, numbered: bool) -> list[Form]:
    """Names made from addresses: the checksum alone, or after the number of the row."""
    plain = names.checksums(urls)
    with_row = names.joined(names.row_numbers(len(plain)), "_", plain)
    forms: list[Form] = [(with_row, with_row), (plain, plain)]
    return forms if numbered else forms[::-1]
