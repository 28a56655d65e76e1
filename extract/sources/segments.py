"""A table of stretches of videos, as InternVid and Panda-70M are handed out: file, start, end, and maybe an id."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from regionvlp.data.tables import Table, naming, stretches
from regionvlp.data.tables.vocabulary import shown
from regionvlp.errors import InputError
from regionvlp.extract.sources import listing, names
from regionvlp.extract.sources.source import Source
from regionvlp.store.plan import UNKNOWN


def is_segments(table: Table) -> bool:
    """Whether a table says which stretch of each file is meant."""
    return bool(stretches.roles(table))


def scan(source: Source) -> pa.Table:
    """Reads the table."""
    table = names.table_of(source)
    wanted, timed = naming.roles(table), stretches.roles(table)
    if not timed:
        raise InputError(
            f"{table.path} does not say where its segments start and end (it has {shown(table.names)})",
            "call the columns start and end, or use --source list",
        )
    read = table.read(*wanted, *timed)
    files, own = naming.files_of_stretches(table, {role: read[role] for role in wanted})
    lacking = naming.is_empty(files) if own is None else naming.is_empty(files) | naming.is_empty(own)
    kept = naming.whole_rows(lacking, table.path, f"a {table.name_of(wanted[0])}")
    if kept is not None:
        read = {role: values.take(pa.array(kept)) for role, values in read.items()}
        files, own = files.take(pa.array(kept)), None if own is None else own.take(pa.array(kept))
    found = stretches.stretches(table, {role: read[role] for role in timed})
    if found.rows is not None:
        files, own = files.take(pa.array(found.rows)), None
    ids = naming.stretch_ids(files, found.start, found.end) if own is None else own
    ids, locations = names.resolved(source, [(ids, files)])
    return listing.finished(
        listing.table_of(
            {
                "video_id": ids,
                "location": locations,
                "bytes": UNKNOWN,
                "mtime_ns": UNKNOWN,
                "start": pa.array(found.start),
                "end": pa.array(found.end, mask=np.isnan(found.end)),
            }
        )
    )
