"""The layouts of JSON documents as rows: COCO, Karpathy, captions by video, pandas' columns, plain lists."""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import Any

from regionvlp.data.tables.vocabulary import VOCABULARY, normal
from regionvlp.errors import InputError

Row = dict[str, Any]
_FILES = ("images", "videos")
_ANNOTATIONS = ("annotations", "sentences")
_VIDEO_NAMES = frozenset(name for role in ("video", "path", "id", "url") for name in VOCABULARY[role])
_HINT = "known: a list of objects, {video: captions}, COCO's images and annotations, Karpathy's images with sentences"


def rows_of(document: Any, path: str, known: Set[str]) -> Iterator[tuple[str, Row]]:
    """The rows of a document, each with its place for messages.

    Args:
        document: as parsed.
        path: for messages.
        known: names of columns.

    Raises:
        InputError: the document has no layout that is known, or contradicts itself.
    """
    if isinstance(document, list):
        yield from _entries(document, path)
        return
    if not isinstance(document, dict) or not document:
        raise InputError(f"{path} holds no rows", _HINT)
    files = next((document[name] for name in _FILES if _are_objects(document.get(name))), None)
    annotations = next((document[name] for name in _ANNOTATIONS if _are_objects(document.get(name))), None)
    lists = [value for value in document.values() if _are_objects(value)]
    if annotations is not None:
        yield from _coco(files or [], annotations, path)
    elif files is not None:
        yield from (_karpathy(i, entry) for i, entry in enumerate(files, 1))
    elif _is_by_column(document, known):
        yield from _by_column(document, path)
    elif len(lists) == 1:
        yield from _entries(lists[0], path)
    elif any(normal(name) in _VIDEO_NAMES for name in document):
        yield "line 1", document
    else:
        yield from _by_video(document, path)


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _entries(values: list[Any], path: str) -> Iterator[tuple[str, Row]]:
    if values and all(isinstance(value, str) for value in values):
        values = [{"path": value} for value in values]
    for i, value in enumerate(values, 1):
        if not isinstance(value, dict):
            raise InputError(f"{path}, entry {i}: not a JSON object", 'write {"video_id": ..., "caption": ...}')
        yield f"entry {i}", _karpathy(i, value)[1]


def _karpathy(number: int, entry: Row) -> tuple[str, Row]:
    """An image with its sentences; any other object as it is."""
    if not (isinstance(entry.get("sentences"), list) and isinstance(entry.get("filename"), str)):
        return f"entry {number}", entry
    row = {"video": entry["filename"], "caption": entry["sentences"], "split": entry.get("split")}
    if entry.get("filepath"):  # the folder, in COCO's file
        row["page_dir"] = entry["filepath"]
    return f"entry {number}", row


def _coco(files: list[Row], annotations: list[Row], path: str) -> Iterator[tuple[str, Row]]:
    """Annotations joined to the files that they speak of, by ``image_id`` or ``video_id``."""
    by_id: dict[Any, Row] = {}
    for entry in files:
        for key in ("id", "video_id"):
            value = entry.get(key)
            if not isinstance(value, str | int):
                continue
            if by_id.setdefault((key, value), entry) is not entry:
                raise InputError(f"{path}: two files have the {key} {value!r}", "make the ids unique")
    for i, annotation in enumerate(annotations, 1):
        own = annotation.get("image_id", annotation.get("video_id"))
        if not isinstance(own, str | int):
            raise InputError(f"{path}, annotation {i} names no image or video", "write its image_id or video_id")
        known = by_id.get(("id", own), by_id.get(("video_id", own)))
        if known is None and files:
            raise InputError(f"{path}, annotation {i} is of {own!r}, which is none of the files listed", "list it")
        found = known or {}
        names = ("file_name", "filename", "video_id", "video", "name")
        name = next((found[key] for key in names if isinstance(found.get(key), str)), own)
        row = {
            "video": name,
            "caption": annotation.get("caption"),
            "split": found.get("split", annotation.get("split")),
        }
        yield f"annotation {i}", row


def _is_by_column(document: Row, known: Set[str]) -> bool:
    """Whether the names are those of columns (``{"video_id": {"0": ..}, "caption": {..}}``), not of videos."""
    values = list(document.values())
    if sum(normal(name) in known for name in document) < 2:
        return False
    return all(isinstance(value, dict) for value in values) or all(isinstance(value, list) for value in values)


def _by_column(document: Row, path: str) -> Iterator[tuple[str, Row]]:
    columns = {name: value if isinstance(value, dict) else dict(enumerate(value)) for name, value in document.items()}
    first = next(iter(columns.values()))
    for name, column in columns.items():
        if column.keys() != first.keys():
            raise InputError(f"{path}: the column {name!r} has other rows than the first", _HINT)
    for key in first:
        yield f"row {key}", {name: column[key] for name, column in columns.items()}


def _by_video(document: Row, path: str) -> Iterator[tuple[str, Row]]:
    """``{video: caption}``, ``{video: [captions]}`` or ``{video: {...}}``."""
    for video, value in document.items():
        place = f"the entry {video!r}"
        if isinstance(value, dict):
            named = [value[name] for name in value if normal(name) in ("video", "video_id", "videoid")]
            if any(name != video for name in named):
                raise InputError(f"{path}: {place} calls itself {named[0]!r}", "leave one of the two names out")
            yield place, {**value, "video_id": video}
        elif isinstance(value, str | list):
            yield place, {"video_id": video, "caption": value}
        else:
            raise InputError(f"{path}: {place} is a {type(value).__name__}, neither text nor a list of texts", _HINT)
