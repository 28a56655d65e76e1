"""The captions table: one row per (video, caption) in Arrow columns, tens of bytes each, shared by all who read it.

A large table lies in a file of the machine's temporary folder, called after its content and mapped into memory: to
another process it travels as that name, and the ranks of a run, which read the same captions, share one copy.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from regionvlp.data import mapping
from regionvlp.errors import InputError

LARGE = 1 << 25  # bytes from which a table is mapped rather than copied
_AT_ONCE = 4096  # rows of which Python's objects are made while iterating


@dataclass(frozen=True, slots=True)
class Caption:
    """One sentence about one video.

    Attributes:
        video_id: as annotated; once joined with shards, the id that the shards use.
        caption: the text as it stands in the file, HTML entities decoded.
        caption_id: unique within the table; where the file gives none, the video's id and the caption's number there.
        split: what the file calls the part, or empty.
        source: where the row came from: the file's name, or the data set's.
    """

    video_id: str
    caption: str
    caption_id: str
    split: str
    source: str


class Captions(Sequence[Caption]):
    """Captions in columns. Iterating and indexing make :class:`Caption` objects; a slice is a table again.

    Args:
        rows: ``video`` (int32, a row of ``videos``), ``caption`` (string), ``split`` and ``source`` (dictionaries),
            and ``caption_id`` (string) or, where ids are generated, ``number`` (the how-manieth of its video). Before
            the join also ``also0``, ``also1`` ... (other names that the row's video may have in the shards) and
            ``file`` (of a stretch, the whole clip), all dictionaries.
        videos: ``id`` (string), every video once, in the order of their first rows.
    """

    def __init__(self, rows: pa.Table, videos: pa.Table) -> None:
        self.rows, self.videos = rows, videos
        self._path: Path | None = None

    @classmethod
    def build(
        cls,
        video: pa.ChunkedArray,
        caption: pa.ChunkedArray,
        source: str,
        *,
        split: pa.ChunkedArray | str = "",
        caption_id: pa.ChunkedArray | None = None,
        also: Sequence[pa.ChunkedArray] = (),
        file: pa.ChunkedArray | None = None,
    ) -> Captions:
        """A table of columns of text, all of one length.

        Args:
            video, caption: of each row.
            source: of all rows.
            split: of each row, or of all.
            caption_id: given ids; "" or null for one that is generated. Without any, all are.
            also, file: see the class.

        Raises:
            InputError: a caption id occurs twice.
        """
        encoded = _encoded(video)
        codes, ids = np.asarray(encoded.indices, dtype=np.int32), encoded.dictionary
        numbers = _numbers(codes)
        columns: dict[str, Any] = {"video": codes, "caption": caption}
        if caption_id is None:
            columns["number"] = numbers.astype(np.min_scalar_type(int(numbers.max(initial=0))))
        else:
            columns["caption_id"] = _filled(caption_id, ids.take(encoded.indices), numbers, source)
        columns["split"] = _constant(split, len(codes)) if isinstance(split, str) else _encoded(split, pa.int16())
        columns["source"] = _constant(source, len(codes))
        columns |= {f"also{i}": _encoded(names) for i, names in enumerate(also)}
        if file is not None:
            columns["file"] = _encoded(file)
        return cls(pa.table(columns), pa.table({"id": ids}))

    @classmethod
    def of(cls, captions: Iterable[Caption]) -> Captions:
        """A table of single captions; one that is a table already as it is.

        Raises:
            InputError: a caption id occurs twice.
        """
        if isinstance(captions, cls):
            return captions
        given = list(captions)
        names = ("video_id", "caption", "split", "source", "caption_id")
        video, text, split, source, ids = (
            pa.chunked_array([pa.array([getattr(one, name) for one in given], pa.string())]) for name in names
        )
        table = cls.build(video, text, "", split=split, caption_id=ids)
        place = table.rows.schema.get_field_index("source")
        return cls(table.rows.set_column(place, "source", _encoded(source, pa.int16())), table.videos)

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    @overload
    def __getitem__(self, index: int) -> Caption: ...
    @overload
    def __getitem__(self, index: slice) -> Captions: ...
    def __getitem__(self, index: int | slice) -> Caption | Captions:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        place = range(len(self))[index]
        return next(self._made(self.rows.slice(place, 1)))

    def __iter__(self) -> Iterator[Caption]:
        for start in range(0, len(self), _AT_ONCE):
            yield from self._made(self.rows.slice(start, _AT_ONCE))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Captions({len(self):,} of {len(self.video_ids):,} videos)"

    def __reduce__(self) -> tuple[Any, ...]:
        if self.nbytes >= LARGE:
            mapped = self.mapped()
            if mapped._path:
                return _from_file, (mapped._path,)
        return type(self), (self.rows, self.videos)

    @property
    def nbytes(self) -> int:
        """Bytes that the columns take."""
        return int(self.rows.nbytes + self.videos.nbytes)

    @property
    def video_ids(self) -> pa.ChunkedArray:
        """The distinct videos, in the order of the table: a column of strings."""
        return self.videos.column("id")

    @property
    def video_index(self) -> NDArray[np.int32]:
        """[N] int32, which of ``video_ids`` each caption is about."""
        found: NDArray[np.int32] = self.rows.column("video").to_numpy()
        return found

    @property
    def texts(self) -> pa.ChunkedArray:
        """[N] the captions: a column of strings; ``texts.take(rows).to_pylist()`` gives those of a batch."""
        return self.rows.column("caption")

    def caption_ids(self, rows: NDArray[np.integer] | slice = slice(None)) -> list[str]:
        """The ids of some captions."""
        table = self.rows.take(pa.array(np.arange(len(self))[rows]))
        return self._ids(table)

    def take(self, rows: NDArray[np.integer]) -> Captions:
        """The captions of some rows, in that order."""
        table = self.rows.take(pa.array(rows, pa.int64()))
        codes, kept = _compacted(table.column("video").to_numpy())
        place = table.schema.get_field_index("video")
        return Captions(table.set_column(place, "video", pa.array(codes)), self.videos.take(pa.array(kept)))

    def names(self) -> list[tuple[NDArray[np.int32], pa.Array]]:
        """What the rows' videos may be called in shards, the likeliest first: codes [N], and what they stand for."""
        also = [name for name in self.rows.column_names if name.startswith("also")]
        return [(self.video_index, _one(self.videos.column("id"))), *map(self._coded, also)]

    def files(self) -> tuple[NDArray[np.int32], pa.Array] | None:
        """Of a table of stretches, the whole clips that they are of; like :meth:`names`."""
        return self._coded("file") if "file" in self.rows.column_names else None

    def split_counts(self) -> dict[str, int]:
        """The parts that the file names, and how many captions each has."""
        counts = pc.value_counts(_one(self.rows.column("split")).dictionary_decode())
        return {str(one["values"]): int(one["counts"]) for one in counts.to_pylist()}

    def joined(self, codes: NDArray[np.integer], ids: pa.Array) -> Captions:
        """The table with the shards' ids for those annotated.

        Args:
            codes: [N] which of ``ids`` each row is about, every one at least once.
            ids: the ids of the shards.
        """
        kept = [name for name in self.rows.column_names if not name.startswith("also") and name != "file"]
        rows = self.rows.select(kept)
        rows = rows.set_column(rows.schema.get_field_index("video"), "video", pa.array(codes.astype(np.int32)))
        if "number" in kept:
            numbers = _numbers(codes)
            small = pa.array(numbers.astype(np.min_scalar_type(int(numbers.max(initial=0)))))
            rows = rows.set_column(rows.schema.get_field_index("number"), "number", small)
        table = Captions(rows, pa.table({"id": ids}))
        return table.mapped() if table.nbytes >= LARGE else table

    def mapped(self) -> Captions:
        """The same table in a mapped file, where there is room for one; this one where it is in one already."""
        if self._path is not None:
            return self
        path = mapping.written([self.rows, self.videos])
        return self if path is None else _from_file(path)

    def _made(self, rows: pa.Table) -> Iterator[Caption]:
        videos = self.videos.column("id").take(rows.column("video"))
        columns = [videos, rows.column("caption"), self._ids(rows), rows.column("split"), rows.column("source")]
        lists = [column if isinstance(column, list) else column.to_pylist() for column in columns]
        yield from itertools.starmap(Caption, zip(*lists, strict=True))

    def _ids(self, rows: pa.Table) -> list[str]:
        if "caption_id" in rows.column_names:
            given: list[str] = rows.column("caption_id").to_pylist()
            return given
        names = self.videos.column("id").take(rows.column("video")).to_pylist()
        return [f"{name}#{number}" for name, number in zip(names, rows.column("number").to_pylist(), strict=True)]

    def _coded(self, name: str) -> tuple[NDArray[np.int32], pa.Array]:
        column = _one(self.rows.column(name))
        codes, kept = _compacted(np.asarray(column.indices, dtype=np.int32))
        return codes, column.dictionary.take(pa.array(kept))


def _from_file(path: Path) -> Captions:
    rows, videos = mapping.read(path)
    table = Captions(rows, videos)
    table._path = path
    return table


def _one(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column in one piece."""
    if isinstance(column, pa.Array):
        return column
    if column.num_chunks == 1:
        return column.chunk(0)
    return (
        column.unify_dictionaries().combine_chunks() if pa.types.is_dictionary(column.type) else column.combine_chunks()
    )


def _encoded(values: pa.ChunkedArray, index: pa.DataType | None = None) -> pa.DictionaryArray:
    """A column of text as numbers into its distinct values, these in the order of their first rows."""
    found = _one(pc.fill_null(values, "")).dictionary_encode()
    if index is not None and len(found.dictionary) < 2**15:
        return pa.DictionaryArray.from_arrays(found.indices.cast(index), found.dictionary)
    return found


def _constant(value: str, length: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(length, np.int8)), pa.array([value], pa.string()))


def _compacted(codes: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Codes without gaps, in the order of their first rows, and which old code each was."""
    old, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    order = np.argsort(first)
    new = np.empty(len(old), np.int32)
    new[order] = np.arange(len(old), dtype=np.int32)
    return new[inverse], old[order].astype(np.int64)


def _numbers(codes: NDArray[np.integer]) -> NDArray[np.int64]:
    """For each row, how many rows before it have its code."""
    order = np.argsort(codes, kind="stable")
    ranked = codes[order]
    begins = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]]) if len(ranked) else np.zeros(0, np.int64)
    lengths = np.diff(np.r_[begins, len(ranked)])
    numbers = np.empty(len(codes), np.int64)
    numbers[order] = np.arange(len(codes)) - np.repeat(begins, lengths)
    return numbers


def _filled(given: pa.ChunkedArray, videos: pa.Array, numbers: NDArray[np.int64], source: str) -> pa.ChunkedArray:
    """Caption ids, those that are not given generated.

    Raises:
        InputError: one occurs twice.
    """
    made = pc.binary_join_element_wise(videos, pa.array(numbers).cast(pa.string()), "#")
    text = pc.fill_null(given, "")
    ids = pc.if_else(pc.equal(text, ""), pa.chunked_array([made]), text)
    if pc.count_distinct(ids).as_py() < len(ids):
        counts = pc.value_counts(_one(ids))
        worst = counts[pc.index(counts.field("counts"), pc.max(counts.field("counts"))).as_py()].as_py()
        raise InputError(
            f"{source}: caption_id '{worst['values']}' occurs {worst['counts']} times", "make caption ids unique"
        )
    return ids
