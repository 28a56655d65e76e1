"""Finds out what kind of source an argument of ``--videos`` is."""

from __future__ import annotations

import os
from pathlib import Path

from regionvlp.errors import InputError, nearest
from regionvlp.extract.sources import names, patterns, remote, segments, tables
from regionvlp.extract.sources.source import KINDS, Source
from regionvlp.video.find import is_wanted


def open_source(videos: str | Path | Source, *, kind: str | None = None, root: str | Path | None = None) -> Source:
    """The source that ``videos`` names. Of the videos, nothing is listed yet.

    Args:
        videos: a folder of videos and images, or one file; a list of them (CSV, TSV, lines, Parquet, JSON lines), with
            columns of times where it is one of segments; a glob; tars: a file, a folder of nothing else, a range in
            braces or a glob. All but a folder of mixed files also on any file system that fsspec knows. A source is
            returned as it is.
        kind: a key of :data:`~regionvlp.extract.sources.source.KINDS`, where the argument alone would be taken for
            another.
        root: the folder that names in a list are relative to; by default the list's own.

    Raises:
        InputError: ``videos`` is not there, or ``kind`` is none.
    """
    if isinstance(videos, Source):
        return videos
    if kind is not None and kind not in KINDS:
        raise InputError(f"no kind of source '{kind}'", nearest(kind, KINDS) or f"choose one of {', '.join(KINDS)}")
    place = _absolute(videos)
    kind = kind or _kind_of(place)
    if kind in ("list", "segments"):
        # What the table is would otherwise only show when it is read.
        if not place.lower().endswith(tables.SUFFIXES):
            raise InputError(f"{videos} is no list", f"lists end in {', '.join(tables.SUFFIXES)}")
        return Source(kind, place, place.rpartition("/")[0] if root is None else _absolute(root), root is not None)
    if root is not None:
        raise InputError(f"--root is for lists, and {videos} is none ({kind})", "leave it out")
    if kind == "folder":
        return Source(kind, place, os.path.dirname(place) if os.path.isfile(place) else place)
    whole = remote.is_url(place) or os.path.exists(place)
    is_pattern = ("{" in place or patterns.has_magic(place)) and not patterns.is_literal(place)
    below = patterns.fixed_part(place) if is_pattern else place
    if whole and below == place and (os.path.isfile(place) or os.path.splitext(place)[1]):
        below = place.rpartition("/")[0]
    return Source(kind, place, below)


def _absolute(place: str | Path) -> str:
    text = remote.plain_path(os.fspath(place))
    return text if remote.is_url(text) else os.path.abspath(text)


def _kind_of(place: str) -> str:
    lower = place.lower()
    if lower.endswith(tables.SUFFIXES) and not patterns.has_magic(place):
        if not remote.is_url(place) and not os.path.isfile(place):
            raise InputError(f"'{place}' does not exist", "name a list, a folder, a glob or tars")
        known = {*names.PATHS, *names.IDS, *names.VIDEOS, *names.URLS, *segments.STARTS, *segments.ENDS}
        return "segments" if segments.is_segments(tables.Table(place, known)) else "list"
    if lower.endswith(".tar"):
        return "webdataset"
    if remote.is_url(place):
        return "glob"
    if os.path.isdir(place):
        return "webdataset" if _holds_only_tars(place) else "folder"
    return "glob" if not os.path.exists(place) and patterns.has_magic(place) else "folder"


def _holds_only_tars(folder: str) -> bool:
    """Whether a folder holds tars and, as far as is seen without descending, no video: img2dataset leaves such."""
    tars = False
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir() or (not entry.name.endswith(".tar") and is_wanted(entry.path)):
                    return False
                tars = tars or entry.name.endswith(".tar")
    except OSError:
        return False
    return tars
