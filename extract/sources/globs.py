"""A glob, or a folder on another file system: the id of a video is its path below the part without wildcards."""

from __future__ import annotations

import pyarrow as pa

from regionvlp.errors import InputError
from regionvlp.extract.sources import listing, remote
from regionvlp.extract.sources.patterns import expand
from regionvlp.extract.sources.source import Source


def scan(source: Source) -> pa.Table:
    """Lists the videos and images that fit."""
    files = expand(source.videos)
    if not files:
        raise InputError(f"no video fits {source.videos}", "quote the pattern, so that the shell leaves it alone")
    rows = ((remote.below(source.root, place), size, mtime) for place, size, mtime in files)
    return listing.finished(listing.from_rows(rows))
