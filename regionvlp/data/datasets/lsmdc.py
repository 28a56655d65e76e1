"""LSMDC: clips of films, a sentence each.

- The release's, for whoever signed its agreement: ``LSMDC16_annos_training.csv``, ``LSMDC16_annos_val.csv`` and
  ``LSMDC16_challenge_1000_publictect.csv`` (so spelt), of six columns between tabs, without a header or quoting: clip,
  start and end as aligned, start and end as cut out, sentence.
- Frozen in Time's: ``{train,val,test}_list.txt`` and ``raw-captions.pkl``.

In: a folder with either, anywhere below it, or one of the release's files. Out: captions. A clip is called as its file
is, without folder and ``.avi``: ``0001_American_Beauty_00.00.51.926-00.00.54.129``. A clip may have several sentences.
"""

from __future__ import annotations

from pathlib import Path

from regionvlp.data.caption_table import Captions
from regionvlp.data.datasets import parts
from regionvlp.data.datasets.parts import Part
from regionvlp.data.formats import Queries
from regionvlp.errors import InputError

ROWS: dict[Part, int] = {"train": 101_079, "val": 7_408, "test": 1_000}

FILES: dict[str, Part | None] = {
    "LSMDC16_annos_training.csv": "train",
    "LSMDC16_annos_val.csv": "val",
    "LSMDC16_challenge_1000_publictect.csv": "test",
}
"""Names that are LSMDC's alone, and the part that such a file holds."""

_COLUMNS = 6


def load_lsmdc(path: Path, part: Part = "test", queries: Queries | None = None) -> Captions:
    """Reads one part: ``train`` (101,079 sentences), ``val`` (7,408) or ``test`` (1,000, the retrieval part).

    Returns:
        Captions in the order of the file or list, with source ``lsmdc``; names of persons are ``SOMEONE``.

    Raises:
        InputError: a file is missing, damaged, or does not hold what the part consists of; or ``queries`` is given.
    """
    if queries is not None:
        raise InputError("LSMDC is read whole: 'queries' does not apply", "leave 'queries' out")
    listed = f"{part}_list.txt"
    table = next(name for name, own in FILES.items() if own == part)
    files = parts.find_files(path, {table, listed, parts.WORD_LISTS}, FILES.get(path.name))
    if table in files:
        rows = _read(files[table])
        # The sentence is the sample in training; a gallery names each clip once.
        parts.check_count(files[table], [clip for clip, _ in rows], ROWS[part], distinct=part == "test")
        return parts.table(rows, "lsmdc", part)
    if listed not in files or parts.WORD_LISTS not in files:
        needed = f"{table}, or {listed} with {parts.WORD_LISTS}"
        raise InputError(f"no {part} part of LSMDC below {path}", f"needed: {needed}")
    clips, captions = parts.read_list(files[listed]), files[parts.WORD_LISTS]
    if part != "train":  # there a clip may have several sentences, so that there are fewer clips; how many is not known
        parts.check_count(files[listed], clips, ROWS[part])
    known = parts.read_word_lists(captions)
    return parts.table(parts.captions_of(clips, known, captions), "lsmdc", part)


def _read(path: Path) -> list[tuple[str, str]]:
    rows = []
    for number, line in enumerate(parts.read_lines(path), 1):
        cells = line.split("\t")
        if len(cells) != _COLUMNS:
            message = f"{path}, line {number} has {len(cells)} columns, {_COLUMNS} expected"
            raise InputError(message, "expected clip, four times and sentence, with tabs between them")
        if not cells[0].strip() or not cells[-1].strip():
            raise InputError(f"{path}, line {number} lacks its clip or its sentence", "use the public file")
        rows.append((cells[0].strip(), cells[-1].strip()))
    return rows
