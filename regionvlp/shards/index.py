"""Where is a video? A lookup from id to (shard, row) in about 25 bytes a video besides the ids themselves.

A dictionary of two and a half million ids takes half a gigabyte, and in every forked worker again, since counting
references copies its pages. These arrays are shared by a fork and pickled fast.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

_MANY = 50_000  # ids, from which on it pays to hash all that are here


@dataclass(frozen=True)
class VideoIndex:
    """Ids of N videos in P shards, made by :func:`build_index`.

    Attributes:
        text: all ids as UTF-8, one after the other.
        ends: [N + 1] int64, where each id ends in ``text``, led by a 0.
        shards: [P] int64, shard numbers.
        starts: [P + 1] int64, position of each shard's first video, closed by N.
        hashes: [N] uint32, CRC-32 of the ids, ascending.
        order: [N] int64, position of the video that each hash belongs to.
    """

    text: bytes
    ends: NDArray[np.int64]
    shards: NDArray[np.int64]
    starts: NDArray[np.int64]
    hashes: NDArray[np.uint32]
    order: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[str]:
        """Ids in the order of shards and rows."""
        return (self._id(position).decode() for position in range(len(self)))

    def find(self, video_id: str) -> int | None:
        """Position of a video in the order of shards and rows, or None."""
        try:
            wanted = video_id.encode()
        except UnicodeEncodeError:
            return None
        return self._find(wanted, int(np.searchsorted(self.hashes, np.uint32(zlib.crc32(wanted)))))

    def find_all(self, video_ids: Sequence[str]) -> NDArray[np.int64]:
        """The position of each of B videos, -1 for one that is not here."""
        if len(video_ids) >= _MANY:
            import pyarrow as pa
            import pyarrow.compute as pc

            found = pc.index_in(pa.array(map(_text, video_ids), pa.large_string()), self.as_arrow())
            positions: NDArray[np.int64] = found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
            return positions
        wanted = [video_id.encode(errors="surrogatepass") for video_id in video_ids]
        hashes = np.array([zlib.crc32(one) for one in wanted], np.uint32)
        places = np.searchsorted(self.hashes, hashes)
        found = (self._find(one, place) for one, place in zip(wanted, places.tolist(), strict=True))
        return np.array([-1 if position is None else position for position in found], np.int64)

    def _find(self, wanted: bytes, place: int) -> int | None:
        """The position of an id whose hash would stand at ``place`` first."""
        value = zlib.crc32(wanted)
        while place < len(self) and self.hashes.item(place) == value:
            position = self.order.item(place)
            if self._id(position) == wanted:
                return position
            place += 1
        return None

    def id_of(self, position: int) -> str:
        """The id of a video by its position."""
        return self._id(position).decode()

    def as_arrow(self) -> pa.LargeStringArray:
        """All ids in order, as an Arrow array over the same memory: for joins of millions."""
        import pyarrow as pa

        return pa.LargeStringArray.from_buffers(len(self), pa.py_buffer(self.ends), pa.py_buffer(self.text))

    def duplicates(self) -> Iterator[tuple[str, int, int]]:
        """Yields (id, shard, shard) for every id met a second time."""
        repeated = np.flatnonzero(self.hashes[1:] == self.hashes[:-1])
        suspects = np.unique(self.order[np.concatenate([repeated, repeated + 1])])
        seen: dict[bytes, int] = {}
        for position in map(int, suspects):
            first = seen.setdefault(self._id(position), position)
            if first != position:
                yield self._id(position).decode(), self._place(first)[0], self._place(position)[0]

    def _id(self, position: int) -> bytes:
        return self.text[self.ends[position] : self.ends[position + 1]]

    def _place(self, position: int) -> tuple[int, int]:
        shard = int(np.searchsorted(self.starts, position, side="right")) - 1
        return int(self.shards[shard]), position - int(self.starts[shard])


def _text(video_id: str) -> str | None:
    """An id as Arrow takes it; None for one that no shard can hold."""
    try:
        video_id.encode()
    except UnicodeEncodeError:
        return None
    return video_id


def build_index(shards: Iterable[tuple[int, Iterable[str]]]) -> VideoIndex:
    """Indexes (shard number, ids of its rows) pairs, one shard at a time. Duplicate ids are kept, for the caller to
    ask for."""
    numbers, counts = [], []
    pieces, lengths, hashes = [], [], []
    for number, ids in shards:
        encoded = [video_id.encode() for video_id in ids]
        numbers.append(number)
        counts.append(len(encoded))
        pieces.append(b"".join(encoded))
        lengths.append(np.array([len(one) for one in encoded], np.int64))
        hashes.append(np.array([zlib.crc32(one) for one in encoded], np.uint32))
    values = np.concatenate([np.empty(0, np.uint32), *hashes])
    order = np.argsort(values, kind="stable")
    return VideoIndex(
        text=b"".join(pieces),
        ends=np.cumsum(np.concatenate([np.zeros(1, np.int64), *lengths])),
        shards=np.array(numbers, np.int64),
        starts=np.cumsum(np.array([0, *counts], np.int64)),
        hashes=values[order],
        order=order,
    )
