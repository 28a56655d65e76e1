"""A list of videos: WebVid, CC3M, or any table with a column that names the file; see :mod:`regionvlp.data.tables`."""

from __future__ import annotations

import pyarrow as pa

from regionvlp.data.tables import Table, naming
from regionvlp.extract.sources import listing, names
from regionvlp.extract.sources.source import Source
from regionvlp.store.plan import UNKNOWN


def scan(source: Source) -> pa.Table:
    """Reads the list. Rows that name the same file under the same id, as captions do, are one video."""
    table = names.table_of(source)
    wanted = naming.roles(table)
    forms = naming.forms(table, table.read(*wanted))
    rows = naming.whole_rows(naming.is_empty(forms[0][0]), source.videos, _what(table, wanted))
    ids, locations = names.resolved(source, forms if rows is None else [names.taken(form, rows) for form in forms])
    return listing.finished(
        listing.table_of({"video_id": ids, "location": locations, "bytes": UNKNOWN, "mtime_ns": UNKNOWN})
    )


def _what(table: Table, wanted: list[str]) -> str:
    """What rows without it lack."""
    if not table.has_header:
        return "a name"
    return " or ".join(f"a {table.name_of(role)}" for role in (wanted if "folder" in wanted else wanted[:1]))
