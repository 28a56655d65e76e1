"""DiDeMo for paragraph retrieval: all that is said of a clip, in the order of the file, is one caption.

- The release's: ``{train,val,test}_data.json``, a description of a moment each, with ``{train,val,test}_list.txt``, the
  clips that could still be downloaded when the lists were made.
- DemoVLP's: ``DiDeMo_{train,val,test}.tsv``, without a header and quoted as CSV is: the paragraph, TAB, ``name.mp4``.

In: a folder with either, anywhere below it, or one of the TSV files. Out: captions, the same from both: descriptions
joined by ``", "`` (CLIP4Clip joins them by a blank). Moments (``times``) are not used. A clip is called what stands
before its file's last dot, since copies differ in their endings, as does the JSON itself: it calls some clips by two.
Annotators saw the first 30 seconds only.
"""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from pathlib import Path

from regionvlp.data.caption_table import Captions
from regionvlp.data.datasets import parts
from regionvlp.data.datasets.parts import Part
from regionvlp.data.formats import Queries
from regionvlp.errors import InputError

CLIPS: dict[Part, int] = {"train": 8392, "val": 1065, "test": 1004}

FILES: dict[str, Part | None] = {f"DiDeMo_{part}.tsv": part for part in CLIPS}
"""Names that are DiDeMo's alone, and the part that such a file holds."""

_SEPARATOR = ", "


def load_didemo(path: Path, part: Part = "test", queries: Queries | None = None) -> Captions:
    """Reads one part: ``train`` (8,392 clips), ``val`` (1,065) or ``test`` (1,004), a paragraph each.

    Returns:
        Captions in the order of the file or list, with source ``didemo``.

    Raises:
        InputError: a file is missing, damaged, or does not hold what the part consists of; or ``queries`` is given.
    """
    if queries is not None:
        raise InputError("DiDeMo has one paragraph a clip: 'queries' does not apply", "leave 'queries' out")
    tsv, document, listed = f"DiDeMo_{part}.tsv", f"{part}_data.json", f"{part}_list.txt"
    files = parts.find_files(path, {tsv, document, listed}, FILES.get(path.name))
    if tsv in files:
        return parts.table(_from_tsv(files[tsv], CLIPS[part]), "didemo", part)
    if document not in files or listed not in files:
        raise InputError(f"no {part} part of DiDeMo below {path}", f"needed: {tsv}, or {document} with {listed}")
    clips = [_stem(name) for name in parts.read_list(files[listed])]
    parts.check_count(files[listed], clips, CLIPS[part])
    descriptions = _from_json(files[document])
    paragraphs = {clip: [_SEPARATOR.join(said)] for clip, said in descriptions.items()}
    return parts.table(parts.captions_of(clips, paragraphs, files[document]), "didemo", part)


def _from_tsv(path: Path, count: int) -> list[tuple[str, str]]:
    rows = []
    try:
        for row in csv.reader(io.StringIO(parts.read_text(path), newline=""), delimiter="\t", strict=True):
            if not row:
                continue
            paragraph, name = row
            rows.append((_stem(name.strip()), paragraph.removesuffix(_SEPARATOR)))
    except (csv.Error, ValueError):
        message = f"{path}, record {len(rows) + 1} is not a paragraph, a tab, and the name of a file"
        raise InputError(message, "use the public file") from None
    parts.check_count(path, [clip for clip, _ in rows], count)
    return rows


def _from_json(path: Path) -> dict[str, list[str]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    try:
        for moment in json.loads(parts.read_text(path)):
            found[_stem(moment["video"])].append(str(moment["description"]))
    except (ValueError, TypeError, KeyError, AttributeError):
        message = f"{path} is not a list of moments with 'video' and 'description'"
        raise InputError(message, "use the public file") from None
    return dict(found)


def _stem(name: str) -> str:
    """What stands before the last dot; some names end with it."""
    return name.rpartition(".")[0] or name
