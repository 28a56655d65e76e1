"""Plain annotation files: tables with a header (CSV, TSV) and JSON (lines or one list), columns found by name.

In: a UTF-8 file. Out: captions in the order of the file. Whoever names a column otherwise gets an error that says which
names are known; nothing is read by position, and no row is skipped.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from regionvlp.data.captions import Caption, check_caption_ids
from regionvlp.errors import InputError, nearest

# Of several columns of one meaning the first of these counts. WebVid calls the caption `name`, so that comes last.
VIDEO_COLUMNS = ("video_id", "video", "clip_name", "videoid", "file", "filename", "file_name", "video_path", "path")
CAPTION_COLUMNS = ("caption", "sentence", "text", "title", "name")
SEPARATORS = (",", ";", "\t")

Row = Mapping[str, Any]


def read_csv(path: Path) -> list[Caption]:
    """Reads a table whose first line names its columns; quoted fields may hold separators and line breaks.

    Raises:
        InputError: the file is not text, has no such header, a row with too few or too many fields, or rows without
            a video or a caption.
    """
    return _captions(read_table(path, VIDEO_COLUMNS, CAPTION_COLUMNS), path)


def read_jsonl(path: Path) -> list[Caption]:
    """Reads objects, one per line or all in one list; a caption may be a string or a list of strings.

    Raises:
        InputError: the file is not text or not JSON, or an object lacks a video or a caption.
    """
    text = read_text(path)
    if text.lstrip().startswith("["):
        rows = [(f"entry {i}", value) for i, value in enumerate(_parse(text, path, None), 1)]
    else:
        lines = ((i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip())
        rows = [(f"line {i}", _parse(line, path, i)) for i, line in lines]
    for place, value in rows:
        if not isinstance(value, dict):
            raise InputError(f"{path}, {place}: not a JSON object", 'write {"video_id": ..., "caption": ...}')
    return _captions(rows, path)


def read_table(path: Path, *columns: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """The rows of a table with a header, each with its place in the file; column names in lower case.

    Args:
        path: the file; its separator is the one that its header holds most of.
        columns: for each column that must be there, the names that it may have.

    Raises:
        InputError: the file is not text, lacks a column, or a row does not have the header's number of fields.
    """
    text = read_text(path)
    separator = max(SEPARATORS, key=text.partition("\n")[0].count)
    # strict: a quote that is never closed would otherwise swallow the rest of the file as one caption.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows: list[tuple[str, dict[str, str]]] = []
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        for names in columns:
            _column(header, names, path, "line 1")
        for fields in reader:
            place = f"line {reader.line_num}"
            if not fields:
                continue
            if len(fields) != len(header):
                raise InputError(
                    f"{path}, {place}: {len(fields)} fields where the header names {len(header)}",
                    f"quote captions that hold {separator!r} or line breaks",
                )
            rows.append((place, dict(zip(header, fields, strict=True))))
    except csv.Error as error:
        raise InputError(
            f"{path}, line {reader.line_num}: {error}",
            "put a caption that begins with a quote into quotes, and double it",
        ) from None
    return rows


def read_text(path: Path) -> str:
    """The whole of a UTF-8 file, without a byte order mark.

    Raises:
        InputError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}", "check the path") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start})", "save it as UTF-8") from None


def of_split(captions: list[Caption], split: str | None, path: Path) -> list[Caption]:
    """The captions of one split; a file that names no splits is one split.

    Raises:
        InputError: the file names splits, and this is none of them.
    """
    found = {caption.split for caption in captions}
    if split is None or found == {""}:
        return captions
    if split not in found:
        names = ", ".join(f"'{name}'" for name in sorted(found))
        raise InputError(f"{path} has no split '{split}', only {names}", nearest(split, found) or "correct the split")
    return [caption for caption in captions if caption.split == split]


def _parse(text: str, path: Path, line: int | None) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        at = getattr(error, "lineno", 1) if line is None else line
        raise InputError(f"{path}, line {at}: not JSON", "expected one object a line, or one list of objects") from None


def _captions(rows: Iterable[tuple[str, Row]], path: Path) -> list[Caption]:
    captions: list[Caption] = []
    numbers: Counter[str] = Counter()
    empty: list[str] = []
    for place, row in rows:
        video = row[_column(row, VIDEO_COLUMNS, path, place)]
        video_id = "" if video is None else str(video).strip()
        texts = list(_texts(row[_column(row, CAPTION_COLUMNS, path, place)], path, place))
        if not video_id or not texts or not all(text.strip() for text in texts):
            empty.append(place)
            continue
        for text in texts:
            # Counted per video, so that an id does not depend on which other videos the file holds.
            number = numbers[video_id]
            numbers[video_id] += 1
            given = row.get("caption_id") if len(texts) == 1 else None
            caption_id = f"{video_id}#{number}" if given in (None, "") else str(given)
            captions.append(Caption(video_id, text, caption_id, str(row.get("split") or ""), path.name))
    if empty:
        raise InputError(
            f"{path}: {len(empty)} rows without a video or a caption, the first in {empty[0]}", "fill or remove them"
        )
    if not captions:
        raise InputError(f"{path} holds no captions", "expected one per line")
    return check_caption_ids(captions, path)


def _column(found: Iterable[str], names: Sequence[str], path: Path, place: str) -> str:
    """The first of ``names`` that is among the column names ``found``."""
    found = list(found)
    for name in names:
        if name in found:
            return name
    shown = ", ".join(found[:6]) or "nothing"
    raise InputError(
        f"{path}, {place}: no column '{names[0]}' (found: {shown})",
        f"columns go by name: {', '.join(names[:5])}" if len(names) > 1 else "use the public file",
    )


def _texts(value: Any, path: Path, place: str) -> Iterator[str]:
    for text in value if isinstance(value, list) else [value]:
        if not isinstance(text, str | None):
            raise InputError(f"{path}, {place}: the caption is a {type(text).__name__}, not text", "write a string")
        yield text or ""
