"""Where every frame of a folder lies: the layouts of all its shards in a few arrays.

About 12 bytes a video, and 8 a frame of checksums. Rows are numbered through, shard after shard, so that a loader needs
no string for a sample; the arrays are shared by forked workers, since nothing in them is counted or written to.

Shape letters: N rows of the folder, P shards, Q patterns, S frame slots, C small columns.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from regionvlp.shards.places import Places
from regionvlp.shards.schema import ShardSpec

# Small columns with no more than so much between them are read in one piece.
GAP = 16 * 1024
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
    """The places of all rows. Shards can be filled in one by one; a row of another shard must not be asked for.

    Args:
        spec: of the folder.
        videos: number of rows of each of the P shards.

    Attributes:
        starts: [P + 1] int64, first row of each shard, closed by N.
        filled: [P] bool, whether a shard's places are known.
        summed: [P] bool, whether a shard has checksums.
        base: [N] int64, lowest byte offset of each row in its file.
        pattern: [N] int32, which pattern each row follows.
        checksums: [N, S] uint64; [0, S] where no shard has any.
    """

    def __init__(self, spec: ShardSpec, videos: Sequence[int]) -> None:
        self.spec = spec
        self.starts = np.cumsum([0, *videos], dtype=np.int64)
        self._starts: list[int] = self.starts.tolist()
        self.filled = np.zeros(len(videos), bool)
        self.summed = np.zeros(len(videos), bool)
        self.base = np.zeros(len(self), np.int64)
        self.pattern = np.zeros(len(self), np.int32)
        self.checksums = np.zeros((0, spec.frames), np.uint64)
        self._rows = np.zeros((0, 1 + len(spec.small_columns) + spec.frames), np.int64)
        self._numbers: dict[bytes, int] = {}
        self._patterns: dict[int, Pattern] = {}

    def __len__(self) -> int:
        return self._starts[-1]

    def fill(self, shard: int, places: Places, checksums: NDArray[np.uint64] | None) -> None:
        """Notes the places of the ``shard``-th shard, and its checksums where it has any."""
        mine = slice(self._starts[shard], self._starts[shard + 1])
        numbers = [self._number(row) for row in places.patterns]
        self.base[mine] = places.base
        self.pattern[mine] = np.array(numbers, np.int32)[places.pattern]
        if checksums is not None:
            if not len(self.checksums):
                self.checksums = np.zeros((len(self), self.spec.frames), np.uint64)
            self.checksums[mine] = checksums
            self.summed[shard] = True
        self.filled[shard] = True

    def _number(self, row: NDArray[np.int64]) -> int:
        key = row.tobytes()
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._numbers)
            if number >= len(self._rows):  # doubled, so that many patterns do not copy many times
                grown = np.zeros((max(16, 2 * number), self._rows.shape[1]), np.int64)
                grown[:number] = self._rows[:number]
                self._rows = grown
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
