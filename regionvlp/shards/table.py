"""Where every frame of a folder lies: the layouts of all its shards in a few arrays.

About 12 bytes a video, and 8 a frame of checksums. Rows are numbered through, shard after shard, so that a loader needs
no string for a sample; the arrays are shared by forked workers, since nothing in them is counted or written to.

Shape letters: N rows of the folder, P shards, Q patterns, S frame slots, C small columns.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from regionvlp.shards.places import Places
from regionvlp.shards.schema import ShardSpec

# Small columns with no more than so much between them are read in one piece.
GAP = 16 * 1024
Scalar = TypeVar("Scalar", bound=np.generic)
_MOST_PATTERNS = 4096  # kept as objects


@dataclass(frozen=True)
class Pattern:
    """How a row is laid out; offsets are bytes from the row's base.

    Attributes:
        frames: how many the row has.
        segments: (offset, bytes, place in the block) of the pieces in which the small columns are read; the block is
            the memory that takes them.
        block_bytes: size of the block.
        columns: (place in the block, bytes of a frame) of each small column, in the order of the spec.
        features: offset of each frame's features.
    """

    frames: int
    segments: tuple[tuple[int, int, int], ...]
    block_bytes: int
    columns: tuple[tuple[int, int], ...]
    features: tuple[int, ...]

    @classmethod
    def of(cls, row: NDArray[np.int64], spec: ShardSpec) -> Pattern:
        """The pattern of one row of :attr:`.Places.patterns`."""
        frames, *offsets = row.tolist()
        small = spec.small_columns
        segments: list[tuple[int, int, int]] = []
        place = {}
        for offset, number in sorted((offsets[number], number) for number in range(len(small))):
            size = frames * small[number].frame_bytes
            start, length, at = segments[-1] if segments else (0, 0, 0)
            gap = offset - start - length
            if segments and 0 <= gap <= GAP:
                segments[-1] = (start, length + gap + size, at)
            else:
                segments.append((offset, size, at + length))
            start, length, at = segments[-1]
            place[number] = at + offset - start
        columns = tuple((place[number], column.frame_bytes) for number, column in enumerate(small))
        features = tuple(offsets[len(small) : len(small) + frames])
        return cls(frames, tuple(segments), sum(length for _, length, _ in segments), columns, features)

    def parts(self, slot: int) -> Callable[[memoryview], tuple[memoryview, ...]]:
        """What takes the values of one frame's small columns out of a block, in the order of the spec."""
        return self._parts[slot]

    @cached_property
    def _parts(self) -> list[Callable[[memoryview], tuple[memoryview, ...]]]:
        starts = [[(at + slot * size, size) for at, size in self.columns] for slot in range(self.frames)]
        return [itemgetter(*(slice(at, at + size) for at, size in places)) for places in starts]


class FrameTable:
    """The places of all rows. A shard can be added before anybody looked where its rows lie; until :meth:`fill` says
    so, its rows must not be asked for.

    Args:
        spec: of the folder.

    Attributes:
        filled: [P] bool, whether a shard's places are known.
        summed: [P] bool, whether a shard has checksums.
        base: [N] int64, lowest byte offset of each row in its file.
        pattern: [N] int32, which pattern each row follows.
        checksums: [N, S] uint64; [0, S] where no shard has any. Like the others it may be longer than that.
    """

    def __init__(self, spec: ShardSpec) -> None:
        self.spec = spec
        self._starts = [0]
        self._starts_P = np.zeros(1, np.int64)
        self.filled = np.zeros(0, bool)
        self.summed = np.zeros(0, bool)
        self.base = np.zeros(0, np.int64)
        self.pattern = np.zeros(0, np.int32)
        self.checksums = np.zeros((0, spec.frames), np.uint64)
        self._rows = np.zeros((0, 1 + len(spec.small_columns) + spec.frames), np.int64)
        self._numbers: dict[bytes, int] = {}
        self._patterns: dict[int, Pattern] = {}

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def starts(self) -> NDArray[np.int64]:
        """[P + 1] int64, first row of each shard, closed by N."""
        if len(self._starts_P) != len(self._starts):
            self._starts_P = np.array(self._starts, np.int64)
        return self._starts_P

    def add(self, videos: int) -> int:
        """Adds a shard of so many rows, and returns which it is, from 0."""
        shard, rows = len(self._starts) - 1, len(self) + videos
        self._starts.append(rows)
        self.filled, self.summed = _grown(self.filled, shard + 1), _grown(self.summed, shard + 1)
        self.base, self.pattern = _grown(self.base, rows), _grown(self.pattern, rows)
        if len(self.checksums):
            self.checksums = _grown(self.checksums, rows)
        return shard

    def fill(self, shard: int, places: Places, checksums: NDArray[np.uint64] | None) -> None:
        """Notes the places of the ``shard``-th shard, and its checksums where it has any."""
        mine = slice(self._starts[shard], self._starts[shard + 1])
        numbers = [self._number(row) for row in places.patterns]
        self.base[mine] = places.base
        self.pattern[mine] = np.array(numbers, np.int32)[places.pattern]
        if checksums is not None:
            self.checksums = _grown(self.checksums, len(self))
            self.checksums[mine] = checksums
            self.summed[shard] = True
        self.filled[shard] = True

    def __getstate__(self) -> dict[str, Any]:
        # Without the room to grow.
        shards, rows = len(self._starts) - 1, len(self)
        lengths = {"filled": shards, "summed": shards, "base": rows, "pattern": rows, "checksums": rows}
        return {**self.__dict__, **{name: getattr(self, name)[:length] for name, length in lengths.items()}}

    def _number(self, row: NDArray[np.int64]) -> int:
        key = row.tobytes()
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._numbers)
            self._rows = _grown(self._rows, number + 1)
            self._rows[number] = row
        return number

    def shard_of(self, row: int) -> int:
        """Which shard a row is in, counted from 0."""
        return bisect_right(self._starts, row) - 1

    def shards_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which shard each of some rows is in, counted from 0."""
        found: NDArray[np.int64] = np.searchsorted(self.starts, rows, side="right") - 1
        return found

    def num_frames(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """F of each of some rows."""
        frames: NDArray[np.int64] = self._rows[self.pattern[rows], 0]
        return frames

    def pattern_of(self, number: int) -> Pattern:
        """A pattern by its number in :attr:`pattern`."""
        pattern = self._patterns.get(number)
        if pattern is None:
            if len(self._patterns) >= _MOST_PATTERNS:
                self._patterns = {}
            pattern = self._patterns[number] = Pattern.of(self._rows[number], self.spec)
        return pattern

    def feature_offsets(self, rows: NDArray[np.int64], slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Byte offset in its file of the features of each (row, slot), in the shape of both together."""
        first = 1 + len(self.spec.small_columns)
        offsets: NDArray[np.int64] = self.base[rows] + self._rows[self.pattern[rows], first + slots]
        return offsets


def _grown(array: NDArray[Scalar], length: int) -> NDArray[Scalar]:
    """An array of at least that length with the same beginning; twice as long as before, so that a folder of thousands
    of shards is not copied thousands of times. What is not in use yet are pages of zeros, which take no memory."""
    if length <= array.shape[0]:
        return array
    grown: NDArray[Scalar] = np.zeros((max(length, 2 * array.shape[0]), *array.shape[1:]), array.dtype)
    grown[: array.shape[0]] = array
    return grown
