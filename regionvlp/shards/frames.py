"""Frames out of data files: read, checked, and taken apart into columns.

In: which frames, and a table of where they lie. Out: their columns as stored. Both formats store values without
filters at known places, so this is all the reading there is; neither HDF5 nor Arrow takes part.

Shape letters: B samples of F frames each, K bytes of small columns a frame.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regionvlp.errors import ShardError
from regionvlp.shards.checksums import xxh3
from regionvlp.shards.datafile import Files, LocalFiles, Piece
from regionvlp.shards.places import ShardIndex
from regionvlp.shards.schema import ShardSpec, all_finite
from regionvlp.shards.table import FrameTable

Columns = dict[str, NDArray[Any]]


class DamagedFrameError(ShardError):
    """What was read of a frame is not what was written."""


class FrameReader:
    """Reads frames by row and slot.

    Args:
        table: where they lie; the rows asked for must be filled in.
        files: the data files, by the numbers that the table has for shards.
        check: whether checksums are compared; where a shard has none, whether its numbers are finite.
    """

    def __init__(self, table: FrameTable, files: Files, *, check: bool = True) -> None:
        self._table, self._files, self._check = table, files, check
        self._spec = table.spec
        self._small = table.spec.small_columns
        sizes = [column.frame_bytes for column in self._small]
        ends = np.cumsum(sizes).tolist()
        # Where in a record, the values of one frame's small columns one after the other, each of them stands.
        self._places = {c.name: slice(end - size, end) for c, size, end in zip(self._small, sizes, ends, strict=True)}
        self._record_bytes = ends[-1]

    def video(self, row: int, first: int, stop: int) -> Columns:
        """All columns of the frame slots ``first`` to ``stop`` (not included) of one row.

        Raises:
            DamagedFrameError: a frame is not what was written. ShardError: the file cannot be read.
        """
        table, spec = self._table, self._spec
        shard, base = table.shard_of(row), table.base.item(row)
        pattern = table.pattern_of(table.pattern.item(row))
        block = np.empty(pattern.block_bytes, np.uint8)
        small = block.data
        features = np.empty((stop - first, *spec.features.shape), spec.features.dtype)
        pieces = [Piece(base + start, small[at : at + size], -1) for start, size, at in pattern.segments]
        size, memory = spec.features.frame_bytes, features.reshape(-1).view(np.uint8).data
        for number, slot in enumerate(range(first, stop)):
            pieces.append(Piece(base + pattern.features[slot], memory[number * size : (number + 1) * size], number))
        check = self._check and table.summed[shard]
        sums = [0] * (stop - first)
        for run, error in self._files.read({shard: pieces}):
            if error is not None:
                raise error
            if check:
                for _, frame, number in run:
                    if number >= 0:  # now, while the processor still has it at hand
                        sums[number] = xxh3(frame)
        if check:
            for number, slot in enumerate(range(first, stop)):
                if xxh3(b"".join(pattern.parts(slot)(small)), sums[number]) != table.checksums.item(row, slot):
                    raise changed(slot)
        columns: Columns = {}
        for column, (at, size) in zip(self._small, pattern.columns, strict=True):
            values = block[at + first * size : at + stop * size]
            # Copied, since in the block they may lie at any address.
            columns[column.name] = np.array(values.view(column.dtype)).reshape(-1, *column.shape)
        columns["features"] = features
        if self._check and not check:
            check_finite(columns)
        return columns

    def frames(
        self, rows: NDArray[np.int64], slots: NDArray[np.int64], into: Mapping[str, NDArray[Any]]
    ) -> dict[int, ShardError]:
        """Reads F frames of each of B rows.

        Args:
            rows: [B].
            slots: [B, F], frames that the rows have.
            into: some of the columns, by name: C-contiguous [B, F, ...] in the stored dtype. Without ``features`` they
                are not read, and nothing is checked.

        Returns:
            What is wrong with those of the B samples that could not be read, or are not what was written. Their values
            mean nothing.
        """
        table, (count, each) = self._table, slots.shape
        shards, bases = table.shards_of(rows), table.base[rows].tolist()
        patterns = [table.pattern_of(number) for number in table.pattern[rows].tolist()]
        blocks = np.empty((count, max((p.block_bytes for p in patterns), default=0)), np.uint8)
        wanted: dict[int, list[Piece]] = defaultdict(list)
        features = into.get("features")
        frame_bytes = self._spec.features.frame_bytes
        if features is not None:
            memory = features.reshape(-1).view(np.uint8).data
            offsets = table.feature_offsets(rows[:, None], slots).tolist()
        for sample, shard in enumerate(shards.tolist()):
            base, pattern, block = bases[sample], patterns[sample], blocks[sample].data
            mine = wanted[shard]
            mine += [
                Piece(base + start, block[at : at + size], ~(sample * each)) for start, size, at in pattern.segments
            ]
            if features is not None:
                start = sample * each * frame_bytes
                for number, offset in enumerate(offsets[sample], sample * each):
                    mine.append(Piece(offset, memory[start : start + frame_bytes], number))
                    start += frame_bytes
        check = self._check and features is not None
        sums = [0] * (count * each)
        failed: dict[int, ShardError] = {}
        for pieces, error in self._files.read(wanted):
            if error is not None:
                for piece in pieces:
                    tag = piece.tag
                    failed.setdefault((tag if tag >= 0 else ~tag) // each, error)
            elif check:
                for _, frame, tag in pieces:
                    if tag >= 0:
                        sums[tag] = xxh3(frame)
        records = self._records(blocks, table.pattern[rows], slots)
        self._take_apart(records, into)
        if check:
            self._check_frames(rows, slots, shards, records, sums, into, failed)
        return failed

    def _records(
        self, blocks: NDArray[np.uint8], numbers: NDArray[np.int32], slots: NDArray[np.int64]
    ) -> NDArray[np.uint8]:
        """[B, F, K] the values of each frame's small columns, one after the other."""
        records = np.empty((*slots.shape, self._record_bytes), np.uint8)
        for number in np.unique(numbers).tolist():
            mine = np.flatnonzero(numbers == number)
            pattern = self._table.pattern_of(number)
            every = np.arange(len(mine))[:, None]
            of_mine = blocks[mine] if len(mine) < len(blocks) else blocks
            for (at, size), place in zip(pattern.columns, self._places.values(), strict=True):
                values = of_mine[:, at : at + pattern.frames * size].reshape(len(mine), pattern.frames, size)
                records[mine, :, place] = values[every, slots[mine]]
        return records

    def _take_apart(self, records: NDArray[np.uint8], into: Mapping[str, NDArray[Any]]) -> None:
        for name, array in into.items():
            if name != "features":
                values = records[..., self._places[name]]
                array.reshape(-1).view(np.uint8).reshape(values.shape)[...] = values

    def _check_frames(
        self,
        rows: NDArray[np.int64],
        slots: NDArray[np.int64],
        shards: NDArray[np.int64],
        records: NDArray[np.uint8],
        sums: list[int],
        into: Mapping[str, NDArray[Any]],
        failed: dict[int, ShardError],
    ) -> None:
        table, each = self._table, slots.shape[1]
        summed = table.summed[shards]
        if not summed.all():
            for sample in np.flatnonzero(~summed).tolist():
                try:
                    check_finite({name: values[sample] for name, values in into.items()})
                except ShardError as error:
                    failed.setdefault(sample, error)
        if not summed.any():
            return
        flat = records.reshape(-1, self._record_bytes)
        found = np.array([xxh3(record.data, seed) for record, seed in zip(flat, sums, strict=True)], np.uint64)
        wrong = (found.reshape(slots.shape) != table.checksums[rows[:, None], slots]) & summed[:, None]
        for place in np.flatnonzero(wrong).tolist():
            sample, frame = divmod(place, each)
            failed.setdefault(sample, changed(slots[sample, frame]))


def frame_reader(path: Path, index: ShardIndex, spec: ShardSpec, *, check: bool) -> FrameReader:
    """Reads the frames of one data file."""
    table = FrameTable(spec)
    table.fill(table.add(len(index.ids)), index.places, index.checksums)
    return FrameReader(table, LocalFiles([path], [None], 1), check=check)


def changed(slot: int) -> DamagedFrameError:
    """The error for a frame whose checksum is another one; the caller says of which video."""
    return DamagedFrameError(f"frame {slot} is not what was written: its checksum differs", "")


def check_finite(columns: Mapping[str, NDArray[Any]]) -> None:
    """For what has no checksum to vouch that it was looked at before it was stored.

    Raises:
        DamagedFrameError: a column holds numbers that are not finite.
    """
    for name, values in columns.items():
        if values.dtype.kind == "f" and not all_finite(values):
            raise DamagedFrameError(f"{name} holds numbers that are not finite", "")
