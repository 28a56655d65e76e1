"""What a receipt says of the inside of its data file: ids, where each value lies, and a checksum a frame.

With it a reader needs neither HDF5 nor Arrow, which may do worse than raise when a file is damaged, and a folder of
thousands of shards opens without touching one data file. The receipt's own digest vouches for it.

Rows of one file are laid out alike: what differs is where a row begins. So a layout is kept as a number a row and a few
patterns, about 12 bytes a video and 8 a frame of checksums.

Shape letters: N videos of one shard, S frame slots, C small columns, Q patterns.
"""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from regionvlp.errors import ShardError
from regionvlp.shards.formats import Layout
from regionvlp.shards.schema import ShardSpec

_HEADER = struct.Struct("<5q")  # N, S, C, Q, bytes of all ids
_PLACES, _SUMS = "places", "xxh3"


@dataclass(frozen=True)
class Places:
    """A layout, compactly.

    Attributes:
        base: [N] int64, the lowest byte offset of each row.
        pattern: [N] int32, which pattern a row follows.
        patterns: [Q, 1 + C + S] int64: number of frames; offsets from the base of the first value of each small column,
            in the order of the spec; and of each frame's features, -1 past the last frame.
    """

    base: NDArray[np.int64]
    pattern: NDArray[np.int32]
    patterns: NDArray[np.int64]

    @classmethod
    def of(cls, layout: Layout, spec: ShardSpec) -> Places:
        """Those of a layout."""
        columns = np.stack([layout.columns[column.name] for column in spec.small_columns], axis=1)
        offsets = np.concatenate([columns, layout.features], axis=1)
        used = np.arange(spec.frames) < layout.num_frames[:, None]
        used = np.concatenate([np.ones(columns.shape, bool), used], axis=1)
        base = np.where(used, offsets, np.iinfo(np.int64).max).min(axis=1, initial=np.iinfo(np.int64).max)
        relative = np.where(used, offsets - base[:, None], -1)
        rows = np.concatenate([layout.num_frames[:, None].astype(np.int64), relative], axis=1)
        patterns, pattern = np.unique(rows, axis=0, return_inverse=True)
        return cls(base, pattern.reshape(-1).astype(np.int32), patterns)

    @property
    def num_frames(self) -> NDArray[np.int64]:
        """[N] int64, frames of each row."""
        frames: NDArray[np.int64] = self.patterns[self.pattern, 0]
        return frames

    def same(self, other: Places) -> bool:
        """Whether every value has the same place."""
        return (
            np.array_equal(self.base, other.base)
            and np.array_equal(self.pattern, other.pattern)
            and np.array_equal(self.patterns, other.patterns)
        )


@dataclass(frozen=True)
class Ids:
    """N video ids, compactly.

    Attributes:
        text: all of them as UTF-8, one after the other.
        lengths: [N] uint32, bytes of each.
    """

    text: bytes
    lengths: NDArray[np.uint32]

    @classmethod
    def of(cls, video_ids: Iterable[str]) -> Ids:
        """Those of a list."""
        encoded = [video_id.encode() for video_id in video_ids]
        return cls(b"".join(encoded), np.array([len(one) for one in encoded], np.uint32))

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[str]:
        end = 0
        for length in self.lengths.tolist():
            start, end = end, end + length
            yield self.text[start:end].decode()


@dataclass(frozen=True)
class ShardIndex:
    """Everything that reading one data file takes.

    Attributes:
        ids: of the rows.
        places: where the values lie.
        checksums: [N, S] uint64, 0 past a video's last frame; None for shards that were written without.
    """

    ids: Ids
    places: Places
    checksums: NDArray[np.uint64] | None

    @classmethod
    def of(
        cls, video_ids: Sequence[str], layout: Layout, checksums: Sequence[NDArray[np.uint64]] | None, spec: ShardSpec
    ) -> ShardIndex:
        """The index of a data file.

        Args:
            video_ids: N ids in the order of the rows.
            layout: as the format's module read it.
            checksums: of each row, [F] uint64, see :mod:`regionvlp.shards.checksums`; None where there are none.
            spec: of the shard.
        """
        ids, sums = Ids.of(video_ids), None
        if checksums is not None:
            sums = np.zeros((len(ids), spec.frames), np.uint64)
            for row, of_frames in zip(sums, checksums, strict=True):
                row[: len(of_frames)] = of_frames
        return cls(ids, Places.of(layout, spec), sums)

    def as_document(self) -> dict[str, str]:
        """The index as it stands in a receipt."""
        assert self.checksums is not None, "only what has checksums is written"
        places, (count, slots) = self.places, self.checksums.shape
        kinds, width = places.patterns.shape
        content = b"".join(
            [
                _HEADER.pack(count, slots, width - 1 - slots, kinds, len(self.ids.text)),
                self.ids.lengths.astype("<u4").tobytes(),
                self.ids.text,
                np.diff(places.base, prepend=0).astype("<i8").tobytes(),
                places.pattern.astype("<i4").tobytes(),
                places.patterns.astype("<i8").tobytes(),
            ]
        )
        used = np.arange(slots) < places.num_frames[:, None]
        sums = self.checksums[used].astype("<u8").tobytes()
        return {
            _PLACES: base64.b64encode(zlib.compress(content, 6)).decode(),
            _SUMS: base64.b64encode(sums).decode(),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, str], spec: ShardSpec, where: object) -> ShardIndex:
        """The inverse of :meth:`as_document`.

        Args:
            document: from a receipt.
            spec: of the shard.
            where: the receipt, for the message.

        Raises:
            ShardError: it is not the index of a shard of ``spec``.
        """
        try:
            content = zlib.decompress(base64.b64decode(document[_PLACES], validate=True))
            count, slots, columns, kinds, text_bytes = _HEADER.unpack_from(content)
            if slots != spec.frames or columns != len(spec.small_columns) or min(count, kinds, text_bytes) < 0:
                raise ValueError("it is of other shards")
            cursor = _Cursor(content, _HEADER.size)
            lengths = cursor.take("<u4", count).astype(np.uint32)
            ids = Ids(cursor.take("u1", text_bytes).tobytes(), lengths)
            if lengths.sum(dtype=np.int64) != text_bytes:
                raise ValueError("its ids are cut")
            base = np.cumsum(cursor.take("<i8", count), dtype=np.int64)
            pattern = cursor.take("<i4", count).astype(np.int32)
            patterns = cursor.take("<i8", kinds * (1 + columns + slots)).astype(np.int64).reshape(kinds, -1)
            places = Places(base, pattern, patterns)
            used = np.arange(slots) < places.num_frames[:, None]
            checksums = np.zeros((count, slots), np.uint64)
            checksums[used] = np.frombuffer(base64.b64decode(document[_SUMS], validate=True), "<u8")
        except (KeyError, TypeError, ValueError, IndexError, binascii.Error, zlib.error, struct.error) as error:
            raise ShardError(f"{where} is damaged: its index cannot be read ({error})", "restore the file") from None
        return cls(ids, places, checksums)


class _Cursor:
    """Arrays, one after the other."""

    def __init__(self, content: bytes, position: int) -> None:
        self._content, self._position = content, position

    def take(self, dtype: str, count: int) -> NDArray[np.generic]:
        values = np.frombuffer(self._content, dtype, count, self._position)
        self._position += values.nbytes
        return values
