"""One data file open for reading: any frames of any of its videos, in as few system calls as they take.

It holds a plain file descriptor and a :class:`Layout`, and reads at explicit offsets only, so that neither threads nor
forked processes can disturb each other.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regionvlp.errors import ShardError
from regionvlp.shards.formats import Layout, unreadable
from regionvlp.shards.schema import ShardSpec

# What lies between two wanted pieces is read along with them up to here: cheaper than another call, and on a cold disk
# than another seek.
_GAP = 16 * 1024
_BUFFERS = 1000  # of one call; Linux and macOS take 1024
_BYTES = 1 << 30  # of one call; Linux reads no more than 2 GiB


class DataFile:
    """Opens the file at ``path``; it is closed when the last one who uses it lets go.

    Raises:
        ShardError: the file cannot be opened.
    """

    def __init__(self, path: Path, spec: ShardSpec, layout: Layout) -> None:
        self._descriptor = -1
        self._path, self._layout, self._spec = path, layout, spec
        self._gap = memoryview(bytearray(_GAP))
        try:
            self._descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise ShardError(f"cannot read {path}: {error.strerror}", "was the folder moved or changed?") from error

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def read_video(self, row: int, first: int, stop: int) -> dict[str, NDArray[Any]]:
        """All columns, as stored, of the frame slots ``first`` to ``stop`` (not included) of the video in ``row``.

        Raises:
            ShardError: the file is damaged or cannot be read.
        """
        values: dict[str, NDArray[Any]] = {}
        pieces: list[tuple[int, memoryview]] = []
        for column in self._spec.small_columns:
            values[column.name] = whole = np.empty((stop - first, *column.shape), column.dtype)
            start = self._layout.columns[column.name].item(row)
            pieces.append((start + first * column.frame_bytes, whole.reshape(-1).view(np.uint8).data))
        features = self._spec.features
        values["features"] = whole = np.empty((stop - first, *features.shape), features.dtype)
        for frame, slot in zip(whole, range(first, stop), strict=True):
            pieces.append((self._layout.features.item(row, slot), frame.reshape(-1).view(np.uint8).data))
        self._fill(pieces)
        return values

    def read_frames(
        self, rows: NDArray[np.int64], slots: NDArray[np.int64], into: Mapping[str, NDArray[Any]], places: Sequence[int]
    ) -> None:
        """Reads n frames, ``slots[i]`` of the video in ``rows[i]``, into ``array[places[i]]`` of some columns.

        Args:
            rows, slots: [n].
            into: column name -> C-contiguous array [..., as the column has it] in the stored dtype.
            places: n positions along the first axis of the arrays.

        Raises:
            ShardError: the file is damaged or cannot be read.
        """
        pieces: list[tuple[int, memoryview]] = []
        for name, array in into.items():
            size = self._spec.column[name].frame_bytes
            if name == "features":
                offsets = self._layout.features[rows, slots]
            else:
                offsets = self._layout.columns[name][rows] + slots * size
            memory = array.reshape(-1).view(np.uint8).data
            found = zip(offsets.tolist(), places, strict=True)
            pieces += [(offset, memory[place * size : (place + 1) * size]) for offset, place in found]
        self._fill(pieces)

    def _fill(self, pieces: list[tuple[int, memoryview]]) -> None:
        """Reads every piece (offset, memory); neighbours in the file share a call, with the gaps between them."""
        pieces.sort(key=_offset)
        start = end = 0
        buffers: list[memoryview] = []
        for offset, memory in pieces:
            gap = offset - end
            if not 0 <= gap <= _GAP or len(buffers) >= _BUFFERS or end - start >= _BYTES:
                self._read(buffers, start, end)
                start, buffers = offset, []
            elif gap:
                buffers.append(self._gap[:gap])
            buffers.append(memory)
            end = offset + len(memory)
        self._read(buffers, start, end)

    def _read(self, buffers: list[memoryview], start: int, end: int) -> None:
        if not buffers:
            return
        try:
            count = os.preadv(self._descriptor, buffers, start)
        except OSError as error:
            raise ShardError(f"cannot read {self._path}: {error.strerror}", "check the disk") from error
        if count != end - start:
            raise unreadable(self._path, "it ends too early")


def _offset(piece: tuple[int, memoryview]) -> int:
    return piece[0]
