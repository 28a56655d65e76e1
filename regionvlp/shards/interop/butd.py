"""The tables in which most public bottom-up-attention features lie: one line an image, arrays as base64.

====================== ==================================================================================
10 columns             ``image_id image_h image_w objects_id objects_conf attrs_id attrs_conf num_boxes``
                       ``boxes features``
6 columns              ``image_id image_w image_h num_boxes boxes features``
a first line of names  any order; ``img_id``, ``img_h`` and ``img_w`` are understood as well
====================== ==================================================================================

Columns are parted by tabs; an array is the base64 of its little-endian bytes: ids int64 (or int32), the rest float32.
A file may hold tens of gigabytes, so it is read twice: once line by line, to know which image stands where, and then
image by image, from the place that the plan has.

In: such files. Out: a video of one frame per image, its regions by falling confidence where the file has that, and
else in the order of the file.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regionvlp.errors import InputError, VideoError
from regionvlp.regions import FrameRegions, VideoRegions
from regionvlp.shards.interop.filling import first_width
from regionvlp.store.manifest import Manifest
from regionvlp.store.plan import PlanRow

_TEN = (
    *("image_id", "image_h", "image_w", "objects_id", "objects_conf", "attrs_id", "attrs_conf"),
    *("num_boxes", "boxes", "features"),
)
_SIX = ("image_id", "image_w", "image_h", "num_boxes", "boxes", "features")
_OTHER_NAMES = {"img_id": "image_id", "img_h": "image_h", "img_w": "image_w"}
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LINE_BYTES = 2**28  # an image has a few hundred thousand


@dataclass(frozen=True)
class Table:
    """One file.

    Attributes:
        path: the file.
        columns: name of a column -> its place.
    """

    path: Path
    columns: dict[str, int]


@dataclass(frozen=True)
class Found:
    """What :func:`find_images` found.

    Attributes:
        rows: plan rows by id; ``location``, ``offset`` and ``bytes`` say where a line lies.
        tables: location -> file.
        repeated: lines left out because they repeat another word for word.
        broken: lines left out because they cannot be read and another one of their image can.
    """

    rows: list[PlanRow]
    tables: dict[str, Table]
    repeated: int
    broken: int


def find_images(files: Sequence[Path], on_bytes: Callable[[int], None] = lambda count: None) -> Found:
    """Lists the images of tables.

    Args:
        files: the tables; an image may stand in several of them if its lines are the same.
        on_bytes: called now and then with the number of bytes gone through since the last call.

    Raises:
        InputError: a file cannot be read, is no such table, or two lines tell different things of one image.
    """
    rows: dict[str, PlanRow] = {}
    tables: dict[str, Table] = {}
    repeated = broken = 0
    for path in files:
        location = path.name
        if location in tables:
            raise InputError(f"two of the files are called {location}", "rename one of them")
        try:
            with path.open("rb") as file:
                table, offset = _open_table(path, file)
                tables[location] = table
                mtime = os.fstat(file.fileno()).st_mtime_ns
                told = 0
                file.seek(offset)
                while line := file.readline(_LINE_BYTES):
                    row = PlanRow(0, _image_id(line, table), len(line), mtime, location, offset=offset)
                    first = rows.setdefault(row.video_id, row)
                    if first is not row:
                        rows[row.video_id] = _better(tables, first, row)
                        if _bytes_of(tables, first).rstrip() == line.rstrip():
                            repeated += 1
                        else:
                            broken += 1
                    offset += len(line)
                    if offset - told >= 2**24:
                        on_bytes(offset - told)
                        told = offset
                on_bytes(offset - told)
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}", "check the path") from None
    if not rows:
        raise InputError(f"{files[0]} holds no images", "expected a table of bottom-up-attention features")
    return Found([rows[name] for name in sorted(rows)], tables, repeated, broken)


def _better(tables: dict[str, Table], first: PlanRow, second: PlanRow) -> PlanRow:
    """Of two lines of one image the one to use: the first if they are alike, else the only one that can be read.

    The public table of COCO test2014 holds images twice, the first time broken off.

    Raises:
        InputError: both can be read and tell different things.
    """
    if _bytes_of(tables, first).rstrip() == _bytes_of(tables, second).rstrip():
        return first
    readable = [row for row in (first, second) if _is_readable(tables, row)]
    if len(readable) == 2:
        same = first.location == second.location
        raise InputError(
            f"image '{first.video_id}' stands in {first.location} "
            + (
                f"twice, unlike (bytes {first.offset} and {second.offset})"
                if same
                else f"and again, unlike, in {second.location}"
            ),
            "take one of the two lines out" if same else "give only one of the two files",
        )
    return readable[0] if readable else first


def _is_readable(tables: dict[str, Table], row: PlanRow) -> bool:
    try:
        read_image(tables, row, 1)
    except VideoError:
        return False
    return True


def feature_width(found: Found) -> int:
    """C; see :func:`~regionvlp.shards.interop.filling.first_width`."""
    return first_width(found.rows, lambda row: read_image(found.tables, row, 1)[0])


def image_reader(tables: dict[str, Table], manifest: Manifest) -> Callable[[PlanRow], VideoRegions]:
    """The function that reads a plan row as a video of ``manifest``; VideoError where its line cannot be used."""

    def read(row: PlanRow) -> VideoRegions:
        regions, image_size = read_image(tables, row, manifest.regions)
        if regions.features.shape[1] != manifest.feature_width:
            message = f"features are {regions.features.shape[1]} wide, those before {manifest.feature_width}"
            raise VideoError(message, stage="decode", reason="bad-fields")
        return VideoRegions.from_frames(
            row.video_id,
            [regions],
            frame_index=[0],
            frame_time=[0.0],
            image_size=[image_size],
            slots=manifest.regions,
            dtype=manifest.memory_dtype.name,
        )

    return read


def read_image(tables: dict[str, Table], row: PlanRow, most: int) -> tuple[FrameRegions, tuple[int, int]]:
    """The first ``most`` regions of one line, and (height, width) of its image.

    Raises:
        VideoError: the file or the line cannot be read, or the file is no longer the one that was planned.
    """
    assert row.location is not None
    if row.location not in tables:
        message = f"{row.location} was planned, and is not among the files now"
        raise VideoError(message, stage="open", reason="missing-file", transient=True)
    table = tables[row.location]
    try:
        line = _bytes_of(tables, row)
    except OSError as error:
        message = f"{table.path}: {error.strerror}"
        raise VideoError(message, stage="open", reason="unreadable", transient=True) from error
    fields = line.rstrip(b"\r\n").split(b"\t")
    if _plain(fields[table.columns["image_id"] % len(fields)]) != row.video_id.encode():
        message = f"{table.path} is not the file that was planned: byte {row.offset} begins another line"
        raise VideoError(message, stage="open", reason="changed-file")
    try:
        return _regions(fields, table.columns, most)
    except (ValueError, IndexError, OverflowError, MemoryError, binascii.Error) as error:
        message = f"{table.path}, byte {row.offset}: {error}"
        raise VideoError(message, stage="decode", reason="bad-fields") from error


def _open_table(path: Path, file: Any) -> tuple[Table, int]:
    """The table with its columns, and where its first image begins."""
    mark = len(_BYTE_ORDER_MARK) if file.read(len(_BYTE_ORDER_MARK)) == _BYTE_ORDER_MARK else 0
    file.seek(mark)
    first = file.readline(_LINE_BYTES)
    fields = first.rstrip(b"\r\n").split(b"\t")
    names = [name.decode("utf-8", "replace").strip() for name in fields] if len(first) < 4096 else []
    names = [_OTHER_NAMES.get(name, name) for name in names]
    if "image_id" in names and "features" in names:
        columns, start = names, mark + len(first)
    else:
        columns, start = list({10: _TEN, 6: _SIX}.get(len(fields), ())), mark
    missing = [name for name in _SIX if name not in columns]
    if missing:
        raise InputError(
            f"{path} is not a table of bottom-up-attention features: {len(fields)} columns, without '{missing[0]}'",
            f"expected, parted by tabs: {' '.join(_TEN)}; or {' '.join(_SIX)}",
        )
    return Table(path, {name: place for place, name in enumerate(columns)}), start


def _image_id(line: bytes, table: Table) -> str:
    place = table.columns["image_id"]
    fields = line.split(b"\t", place + 1)
    if len(fields) <= place or not fields[place].strip():
        raise InputError(f"{table.path} holds a line without an image id", "is it cut or damaged?")
    try:
        return _plain(fields[place].strip(b"\r\n")).decode()
    except UnicodeDecodeError:
        raise InputError(f"{table.path} holds an image id that is not UTF-8", "is it damaged?") from None


def _plain(field: bytes) -> bytes:
    """A field without the ``b'...'`` that Python 3 puts around bytes which somebody forgot to decode."""
    is_marked = len(field) > 2 and field[:1] == b"b" and field[1:2] in b"'\"" and field[-1:] == field[1:2]
    return field[2:-1] if is_marked else field


def _bytes_of(tables: dict[str, Table], row: PlanRow) -> bytes:
    assert row.location is not None
    assert row.offset is not None
    with tables[row.location].path.open("rb") as file:
        file.seek(row.offset)
        return file.read(row.bytes)


def _regions(fields: list[bytes], columns: dict[str, int], most: int) -> tuple[FrameRegions, tuple[int, int]]:
    if len(fields) != len(columns):
        raise ValueError(f"{len(fields)} columns instead of {len(columns)}")

    def number(name: str) -> int:
        return int(float(_plain(fields[columns[name]])))

    def array(name: str, dtype: str, width: int = 1) -> NDArray[Any]:
        data = base64.b64decode(_plain(fields[columns[name]]), validate=True)
        if dtype == "<i8" and len(data) == 4 * count:
            dtype = "<i4"
        values = np.frombuffer(data, dtype)
        if width and values.size != count * width:
            raise ValueError(f"'{name}' holds {values.size} numbers for {count} boxes")
        return values.reshape(count, -1) if width != 1 else values

    count = number("num_boxes")
    image_size = (number("image_h"), number("image_w"))
    if count < 0 or min(image_size) < 1:
        raise ValueError(f"{count} boxes in an image of {image_size[1]}x{image_size[0]}")
    if count == 0:
        raise ValueError("no boxes, so nothing tells the width of the features")
    boxes = array("boxes", "<f4", 4)  # first: it shows whether the count, by which others are made, is true

    def ids(name: str) -> NDArray[np.int32]:
        return array(name, "<i8").astype(np.int32) if name in columns else np.full(count, -1, np.int32)

    def probabilities(name: str) -> NDArray[np.float32]:
        return array(name, "<f4") if name in columns else np.zeros(count, np.float32)

    scores = probabilities("objects_conf")
    order = np.argsort(-scores, kind="stable")[:most]
    regions = FrameRegions(
        features=array("features", "<f4", 0)[order],
        boxes=boxes[order],
        scores=scores[order],
        class_ids=ids("objects_id")[order],
        attribute_ids=ids("attrs_id")[order],
        attribute_scores=probabilities("attrs_conf")[order],
    )
    return regions, image_size
