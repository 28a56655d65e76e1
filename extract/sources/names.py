"""From the words of a table to ids and locations below a folder: how the user's copy is laid out.

In: columns. Out: the ``video_id`` and ``location`` columns of a listing. A listed name is looked up without its
extension, since that differs between releases; the file itself is looked for when the video is decoded, not for
millions of rows at once, and only a few rows are looked at here, to find out how the user's copy is laid out.
"""

from __future__ import annotations

import os
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from regionvlp.data.tables import Table
from regionvlp.data.tables.naming import Form, joined
from regionvlp.errors import InputError
from regionvlp.extract.sources import remote
from regionvlp.extract.sources.listing import refuse_bad_places
from regionvlp.extract.sources.looking import spread
from regionvlp.extract.sources.lookup import is_there
from regionvlp.extract.sources.source import Source

# Where copies of the public data sets keep the files, below the folder that people name.
_PREFIXES = ("", "videos/", "train/", "val/", "training/", "validation/", "images/", "all/", "videos/all/", "data/")
_ABSOLUTE = r"^(/|[A-Za-z][A-Za-z0-9+.-]*://)"
_SAMPLE = 32  # rows that decide between them


def table_of(source: Source) -> Table:
    """The table that a source names, here or on another file system.

    Raises:
        InputError: see :class:`~regionvlp.data.tables.Table`.
    """
    return Table(source.videos, columns=dict(source.columns), opener=remote.open_file)


def taken(form: Form, rows: NDArray[np.int64]) -> Form:
    """Some rows of a form; where its two columns are one, they stay so."""
    ids, locations = form
    some = ids.take(pa.array(rows))
    return some, some if ids is locations else locations.take(pa.array(rows))


def resolved(source: Source, forms: list[Form]) -> tuple[pa.ChunkedArray, pa.ChunkedArray | None]:
    """The ids and locations in the form, and below the prefix, in which most files of a sample are there.

    Where none is, the first form without a prefix.

    Raises:
        InputError: a location leaves the root.
    """
    best, most = (0, ""), 0
    for i, (_, locations) in enumerate(forms):
        for prefix in _prefixes(source):
            # An absolute place has no prefix.
            sample = [name for name in _sample(locations) if not (prefix and re.match(_ABSOLUTE, name))]
            hits = sum(is_there(source.root, prefix + name) for name in sample)
            if hits > most:
                best, most = (i, prefix), hits
    return _within_root(source, *forms[best[0]], best[1])


def _prefixes(source: Source) -> list[str]:
    here = not remote.is_url(source.root)
    return [prefix for prefix in _PREFIXES if not here or os.path.isdir(os.path.join(source.root, prefix))]


def _sample(column: pa.ChunkedArray) -> list[str]:
    names: list[str] = column.take(pa.array(spread(len(column), _SAMPLE))).to_pylist()
    return names


def _within_root(
    source: Source, ids: pa.ChunkedArray, locations: pa.ChunkedArray, prefix: str
) -> tuple[pa.ChunkedArray, pa.ChunkedArray | None]:
    """Makes places below the root relative to it; others may be absolute only where the user gave no root.

    A location that equals its id is left out.
    """
    same = ids is locations
    root = remote.join(source.root, "")
    for start in ("./", root):
        here = pc.starts_with(locations, start)
        if pc.any(here).as_py():
            locations = pc.if_else(here, pc.utf8_slice_codeunits(locations, len(start)), locations)
    outside = pc.match_substring_regex(locations, _ABSOLUTE)
    count = pc.sum(outside).as_py() or 0
    if count and source.root_given:
        example = locations.filter(outside)[0]
        raise InputError(
            f"{count} of the places in {source.videos} are not below {source.root}, such as {example}",
            "give the --root that they lie below, or none",
        )
    plain = pc.replace_substring_regex(locations, _ABSOLUTE, "") if count else locations
    refuse_bad_places(plain)
    if same:
        ids = plain
    if prefix:
        locations = pc.if_else(outside, locations, joined(prefix, locations))
    if ids is locations:
        return ids, None
    return ids, pc.if_else(pc.equal(ids, locations), pa.scalar(None, pa.string()), locations)
