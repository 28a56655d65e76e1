"""Reads captions, whatever file they come from; the table they become is :class:`Captions`.

In: an annotation file (any of :mod:`regionvlp.data.tables`), or the folder of a data set. Out: :class:`Captions`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import get_args

from regionvlp.data.caption_table import Caption as Caption
from regionvlp.data.caption_table import Captions as Captions
from regionvlp.data.datasets import didemo, lsmdc, msrvtt, msvd, plain
from regionvlp.data.datasets.parts import Part, parse_part
from regionvlp.data.formats import CaptionFormat as CaptionFormat
from regionvlp.data.formats import Queries as Queries
from regionvlp.data.joining import EXAMPLES as EXAMPLES
from regionvlp.data.joining import Overlap as Overlap
from regionvlp.data.joining import join as join
from regionvlp.data.joining import missing_videos as missing_videos
from regionvlp.data.joining import overlap as overlap
from regionvlp.data.joining import resolve_videos as resolve_videos
from regionvlp.errors import InputError, nearest

logger = logging.getLogger(__name__)


def load_captions(
    path: Path,
    *,
    format: CaptionFormat = "auto",
    split: str | None = None,
    queries: Queries | None = None,
    columns: Mapping[str, str] | None = None,
    training: bool = False,
) -> Captions:
    """Reads an annotation file or folder.

    Args:
        path: any table of :mod:`regionvlp.data.tables`, or the folder of a data set.
        format: ``csv`` and ``jsonl`` stand for plain tables of any kind, the others for data sets. ``auto`` decides by
            name: a file or folder of MSVD, DiDeMo or LSMDC shows in names that are its alone; another folder, or one of
            MSR-VTT's own JSON files, is ``msrvtt``; all else is a table.
        split: keep only this part. For MSR-VTT ``<split>-<part>`` such as ``1ka-test`` (see
            :func:`regionvlp.data.datasets.msrvtt.load_msrvtt`), for the other data sets ``train``, ``val`` or ``test``.
            Blanks around its name and capitals do not count.
        queries: which of a clip's captions; for MSR-VTT and MSVD only.
        columns: role -> the name of its column, for a table that calls them by names that are not known.
        training: the captions are to be trained on, so that no part is chosen that could be one to test on.

    Raises:
        InputError: the file is missing, is not of the format, or holds no such split.
    """
    if format not in get_args(CaptionFormat):
        raise InputError(f"unknown caption format '{format}'", nearest(format, get_args(CaptionFormat)))
    if not path.exists():
        raise InputError(f"no annotations at {path}", "check the path")
    format = kind_of(path, format)
    if format in _TITLES:
        if columns:
            raise InputError(f"{path} is read by {_TITLES[format]}'s own names", "leave 'columns' out")
        return _load_data_set(path, format, split, queries, training)
    if queries is not None:
        raise InputError(f"{path} is read whole: 'queries' is for MSR-VTT and MSVD", "leave 'queries' out")
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a {format} file", "name the annotation file in it")
    return plain.load_table(path, split, columns)


def kind_of(path: Path, format: CaptionFormat = "auto") -> CaptionFormat:
    """What ``auto`` means for a path; see :func:`load_captions`."""
    if format != "auto":
        return format
    folder = path.is_dir()
    for name, (files, _) in _PARTED.items():
        if path.name in files or (folder and any((path / file).exists() for file in files)):
            return name
    if folder or path.name in msrvtt.SENTENCE_FILES:
        return "msrvtt"
    return "jsonl" if path.suffix.lower() in (".jsonl", ".json", ".ndjson") else "csv"


_TITLES: Mapping[CaptionFormat, str] = {"msrvtt": "MSR-VTT", "msvd": "MSVD", "didemo": "DiDeMo", "lsmdc": "LSMDC"}
# Data sets in three parts: the names of files that are theirs alone, and their readers.
_PARTED: Mapping[CaptionFormat, tuple[Mapping[str, Part | None], Callable[[Path, Part, Queries | None], Captions]]] = {
    "msvd": (msvd.FILES, msvd.load_msvd),
    "didemo": (didemo.FILES, didemo.load_didemo),
    "lsmdc": (lsmdc.FILES, lsmdc.load_lsmdc),
}


def _load_data_set(
    path: Path, format: CaptionFormat, split: str | None, queries: Queries | None, training: bool
) -> Captions:
    title, own = _TITLES[format], None
    if format == "msrvtt":
        chosen = msrvtt.parse_split(split, needed=training)
        captions, name = msrvtt.load_msrvtt(path, *chosen, queries), "-".join(chosen)
    else:
        files, load = _PARTED[format]
        own = files.get(path.name)
        name = part = parse_part(split, own, title, needed=training)
        captions = load(path, part, queries)
    if split is None and own is None:
        logger.warning("%s: no part of %s was named; %d captions of %s are read", path, title, len(captions), name)
    return captions
