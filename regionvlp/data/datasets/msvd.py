"""MSVD, in the layouts in which it is handed out.

- DemoVLP's: ``MSVD_{train,val,test}.tsv``, without a header: all captions of a clip joined by ``", "``, TAB, its name.
- Captions of all clips, ``raw-captions.pkl`` (Frozen in Time), ``captions_msvd.json`` (clip -> captions), the release's
  ``MSR Video Description Corpus.csv`` or ``AllVideoDescriptions.txt``, with lists of the parts:
  ``{train,val,test}_list.txt``, or the table of numbers, ``youtube_mapping.txt``, along which the parts go.

In: a folder with any mixture of these, anywhere below it, or one of the files. Out: captions. A clip is called as the
videos are, without ``.avi``: ``<YouTube id>_<start>_<end>``. Where several files hold captions, the first of the order
above is read: which caption of a clip is its first depends on it.
"""

from __future__ import annotations

import csv
import io
import json
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from regionvlp.data.caption_table import Captions
from regionvlp.data.datasets import parts
from regionvlp.data.datasets.parts import Part
from regionvlp.data.formats import Queries
from regionvlp.errors import InputError

logger = logging.getLogger(__name__)

CLIPS: dict[Part, range] = {"train": range(1, 1201), "val": range(1201, 1301), "test": range(1301, 1971)}
"""The parts for retrieval by the numbers of the mapping (vid1 ...); those for question answering are others."""

_CORPUS, _DESCRIPTIONS, _JSON = "MSR Video Description Corpus.csv", "AllVideoDescriptions.txt", "captions_msvd.json"
FILES: dict[str, Part | None] = {
    **{f"MSVD_{part}.tsv": part for part in CLIPS},
    **dict.fromkeys((_JSON, _CORPUS, _DESCRIPTIONS, "msvd_youtube_mapping.txt")),
}
"""Names that are MSVD's alone, and the part that such a file holds, if it is of one."""

_MAPPINGS = ("msvd_youtube_mapping.txt", "youtube_mapping.txt")
_LISTS = {part: f"{part}_list.txt" for part in CLIPS}


def load_msvd(path: Path, part: Part = "test", queries: Queries | None = None) -> Captions:
    """Reads one part.

    Args:
        path: the folder below which the files lie, or one of them.
        part: ``train`` (1,200 clips), ``val`` (100) or ``test`` (670).
        queries: ``all`` captions of a clip, 18 to 81 of them (the default, and CLIP4Clip's protocol), or the ``first``
            (DemoVLP's, in training too). Figures of the two differ by several points.

    Returns:
        Captions clip by clip in the order of the list, with source ``msvd``.

    Raises:
        InputError: a file is missing, damaged, or does not hold what the part consists of.
    """
    if queries == "index_file":
        raise InputError("MSVD has no file that names one caption a clip", "use queries: all or first")
    tsv = f"MSVD_{part}.tsv"
    files = parts.find_files(path, {*FILES, *_READERS, *_MAPPINGS, *_LISTS.values()}, FILES.get(path.name))
    if tsv in files:
        source = files[tsv]
        captions = _from_tsv(source, len(CLIPS[part]))
        clips = list(captions)
    else:
        name = next((name for name in _READERS if name in files), None)
        if name is None:
            raise InputError(f"no captions of MSVD below {path}", f"needed: {tsv}, or one of {', '.join(_READERS)}")
        source = files[name]
        clips, captions = _clips(part, files, path), _READERS[name](source)
    rows = parts.captions_of(clips, captions, source)
    if queries == "first":
        rows = [(clip, captions[clip][0]) for clip in clips]
    return parts.table(rows, "msvd", part)


def _from_tsv(path: Path, count: int) -> dict[str, list[str]]:
    rows = [line.split("\t") for line in parts.read_lines(path)]
    for number, row in enumerate(rows, 1):
        if len(row) != 2:
            message = f"{path}, line {number} has {len(row)} columns, 2 expected"
            raise InputError(message, "expected captions, a tab, and the name of the clip")
    parts.check_count(path, [name.strip() for _, name in rows], count)
    # No caption of MSVD holds a comma of its own; the joined ones end with one.
    return {name.strip(): [text for text in joined.split(", ") if text.strip()] for joined, name in rows}


def _from_json(path: Path) -> dict[str, list[str]]:
    try:
        content = json.loads(parts.read_text(path))
        if not all(isinstance(text, str) for texts in content.values() for text in texts):
            raise TypeError
        return dict(content)
    except (ValueError, TypeError, AttributeError):
        raise InputError(f"{path} is not an object of clip -> captions", "use the public file") from None


def _from_corpus(path: Path) -> dict[str, list[str]]:
    try:
        # Some of the other languages' rows are not UTF-8; they are not read.
        text = path.read_bytes().decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}", "check the file") from None
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    wanted = ("VideoID", "Start", "End", "Language", "Description")
    if not rows or any(column not in rows[0] for column in wanted):
        raise InputError(f"{path} lacks one of the columns {', '.join(wanted)}", "use the public file")
    english = [row for row in rows if row["Language"] == "English" and (row["Description"] or "").strip()]
    broken = sum("\ufffd" in row["Description"] for row in english)
    if broken:
        logger.warning("%s: %d English captions hold letters that are not UTF-8", path, broken)
    return _grouped((f"{row['VideoID']}_{row['Start']}_{row['End']}", row["Description"].strip()) for row in english)


def _from_descriptions(path: Path) -> dict[str, list[str]]:
    lines = (line for line in parts.read_lines(path) if not line.startswith("#"))
    return _grouped((clip, text.strip()) for clip, _, text in (line.partition(" ") for line in lines))


_READERS: Mapping[str, Callable[[Path], dict[str, list[str]]]] = {
    parts.WORD_LISTS: parts.read_word_lists,
    _JSON: _from_json,
    _CORPUS: _from_corpus,
    _DESCRIPTIONS: _from_descriptions,
}


def _grouped(rows: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for clip, text in rows:
        found[clip].append(text)
    return dict(found)


def _clips(part: Part, files: Mapping[str, Path], folder: Path) -> list[str]:
    """The clips of a part, from its list or from the table of numbers."""
    numbers = CLIPS[part]
    listed = files.get(_LISTS[part])
    if listed is not None:
        clips = parts.read_list(listed)
        parts.check_count(listed, clips, len(numbers))
        return clips
    mapping = next((files[name] for name in _MAPPINGS if name in files), None)
    if mapping is None:
        names = f"{_LISTS[part]} or {_MAPPINGS[1]}"
        raise InputError(f"no list of the {part} clips of MSVD below {folder}", f"needed: {names}")
    by_number = {number: clip for clip, _, number in (line.rpartition(" ") for line in parts.read_list(mapping))}
    missing = [number for number in numbers if f"vid{number}" not in by_number]
    if missing:
        raise InputError(f"{mapping} has no vid{missing[0]}", "use the public file")
    return [by_number[f"vid{number}"] for number in numbers]
