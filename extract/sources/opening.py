"""Finds out what kind of source an argument of ``--videos`` is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from regionvlp.data.tables import SUFFIXES, Table
from regionvlp.errors import InputError, nearest
from regionvlp.extract.sources import patterns, remote, segments
from regionvlp.extract.sources.source import KINDS, Source
from regionvlp.video.find import is_wanted

_SHOWN = f"{', '.join(suffix for suffix in SUFFIXES if not suffix.endswith('.gz'))}, each also with .gz"


def open_source(
    videos: str | Path | Source,
    *,
    kind: str | None = None,
    root: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
) -> Source:
    """The source that ``videos`` names. Of the videos, nothing is listed yet.

    Args:
        videos: a folder of videos and images, or one file; a list of them (see :mod:`regionvlp.data.tables`), with
            columns of times where it is one of segments; a glob; tars: a file, a folder of nothing else, a range in
            braces or a glob. All but a folder of mixed files also on any file system that fsspec knows. A source is
            returned as it is.
        kind: a key of :data:`~regionvlp.extract.sources.source.KINDS`, where the argument alone would be taken for
            another.
        root: the folder that names in a list are relative to; by default the list's own.
        columns: role -> the name of a list's column, where it has another name than those that are known.

    Raises:
        InputError: ``videos`` is not there, or ``kind`` is none.
    """
    if isinstance(videos, Source):
        return videos
    if kind is not None and kind not in KINDS:
        raise InputError(f"no kind of source '{kind}'", nearest(kind, KINDS) or f"choose one of {', '.join(KINDS)}")
    place = _absolute(videos)
    kind = kind or _kind_of(place, columns or {})
    if kind in ("list", "segments"):
        # What the table is would otherwise only show when it is read.
        if not place.lower().endswith(SUFFIXES):
            raise InputError(f"{videos} is no list", f"lists end in {_SHOWN}")
        below = place.rpartition("/")[0] if root is None else _absolute(root)
        return Source(kind, place, below, root is not None, tuple(sorted((columns or {}).items())))
    if root is not None:
        raise InputError(f"--root is for lists, and {videos} is none ({kind})", "leave it out")
    if columns:
        raise InputError(f"columns are those of lists, and {videos} is none ({kind})", "leave --columns out")
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


def _kind_of(place: str, columns: Mapping[str, str]) -> str:
    lower = place.lower()
    # A name with brackets may be a pattern, and may be that of a list that is there.
    if lower.endswith(SUFFIXES) and (not patterns.has_magic(place) or os.path.isfile(place)):
        if not remote.is_url(place) and not os.path.isfile(place):
            raise InputError(f"'{place}' does not exist", "name a list, a folder, a glob or tars")
        table = Table(place, columns=columns, opener=remote.open_file)
        return "segments" if segments.is_segments(table) else "list"
    if lower.endswith(".tar"):
        return "webdataset"
    if remote.is_url(place):
        return "glob"
    if os.path.isdir(place):
        from regionvlp.shards.pictures.format import holds_frames

        if holds_frames(Path(place)):
            return "frames"
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
