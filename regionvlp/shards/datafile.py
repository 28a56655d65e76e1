"""Data files open for reading: pieces of them, in as few system calls as they take.

What is kept is plain file descriptors that are read at explicit offsets only, so that neither threads nor forked
processes can disturb each other, and no more of them than the process may open.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple, Protocol

from regionvlp.errors import ShardError
from regionvlp.shards.formats import unreadable
from regionvlp.shards.table import GAP

_BUFFERS = 1000  # of one call; Linux and macOS take 1024
_BYTES = 1 << 30  # of one call; Linux reads no more than 2 GiB
_SPARE = memoryview(bytearray(GAP))  # takes what lies between two pieces; nobody reads it


class LostFileError(ShardError):
    """A data file that is not there as a whole: gone, cut short, or another one than its receipt tells of."""

    @classmethod
    def of(cls, error: ShardError) -> LostFileError:
        """The same words, of this kind."""
        return cls(error.message, error.hint)


class Piece(NamedTuple):
    """A part of a data file and the memory that takes it.

    Attributes:
        offset: in the file, in bytes.
        memory: as many bytes.
        tag: whatever tells the caller which piece it is.
    """

    offset: int
    memory: memoryview
    tag: int


class Files(Protocol):
    """Where a reader's pieces come from: a folder, or an object store."""

    def read(self, wanted: Mapping[int, list[Piece]]) -> Iterator[tuple[Sequence[Piece], ShardError | None]]:
        """Reads pieces of some files, by the number of the file.

        Yields:
            Pieces as they arrive, in any order, each once; with the error where they could not be read.
        """

    def close(self) -> None:
        """Lets go of what is open; a later read opens it again."""


class DataFile:
    """Opens the file at ``path``; it is closed when the last one who uses it lets go.

    Args:
        path: the file.
        size: what it must measure, in bytes; None: anything.

    Raises:
        LostFileError: the file cannot be opened, or measures something else.
    """

    def __init__(self, path: Path, size: int | None = None) -> None:
        self._descriptor = -1
        self._path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY)
            found = os.fstat(self._descriptor).st_size
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise  # says nothing of the file
            raise LostFileError(f"cannot read {path}: {error.strerror}", "was the folder moved or changed?") from error
        if size is not None and found != size:
            early = "it ends too early, at" if found < size else "it has"
            raise LostFileError.of(unreadable(path, f"{early} {found} bytes; the receipt says {size}"))

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def read(self, pieces: list[Piece]) -> Iterator[tuple[Sequence[Piece], ShardError | None]]:
        """Reads every piece; neighbours in the file share a call, with the gaps between them. Yields after each."""
        for run in runs_of(pieces, GAP):
            try:
                self._read(run)
            except ShardError as error:
                yield run, error
            else:
                yield run, None

    def _read(self, run: Sequence[Piece]) -> None:
        buffers: list[memoryview] = []
        end = start = run[0].offset
        for offset, memory, _ in run:
            if offset > end:
                buffers.append(_SPARE[: offset - end])
            buffers.append(memory)
            end = offset + len(memory)
        try:
            count = os.preadv(self._descriptor, buffers, start)
        except OSError as error:
            raise ShardError(f"cannot read {self._path}: {error.strerror}", "check the disk") from error
        if count != end - start:
            raise unreadable(self._path, "it ends too early")


def runs_of(pieces: list[Piece], gap: int) -> Iterator[Sequence[Piece]]:
    """Pieces of one file in runs that are read at once: in order, without overlaps, ``gap`` bytes apart at most."""
    pieces.sort(key=itemgetter(0))
    run: list[Piece] = []
    start = end = 0
    for piece in pieces:
        offset = piece.offset
        if run and (not 0 <= offset - end <= gap or 2 * len(run) >= _BUFFERS or end - start >= _BYTES):
            yield run
            run = []
        if not run:
            start = offset
        run.append(piece)
        end = offset + len(piece.memory)
    if run:
        yield run


def open_file_limit() -> int:
    """How many data files one process keeps open, unless told otherwise: a quarter of what it may."""
    if sys.platform == "win32":
        return 64
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 8192 if soft == resource.RLIM_INFINITY else max(8, min(8192, soft // 4))


class LocalFiles:
    """The data files of a folder, by number.

    Args:
        paths: of the files.
        sizes: what each must measure, in bytes; None: anything.
        most_open: how many are kept open at a time in one process.
    """

    def __init__(self, paths: Sequence[Path], sizes: Sequence[int | None], most_open: int) -> None:
        self._paths, self._sizes, self._most_open = paths, sizes, most_open
        self._open: dict[int, DataFile] = {}

    def read(self, wanted: Mapping[int, list[Piece]]) -> Iterator[tuple[Sequence[Piece], ShardError | None]]:
        """See :class:`Files`."""
        for number, pieces in wanted.items():
            try:
                file = self.file(number)
            except ShardError as error:
                yield pieces, error
            else:
                yield from file.read(pieces)

    def file(self, number: int) -> DataFile:
        """One of them, open.

        Raises:
            ShardError: see :class:`DataFile`.
        """
        # The least recently used file is let go, not closed: a thread that is just reading from it still holds it.
        file = self._open.pop(number, None) or self._opened(number)
        self._open[number] = file
        while len(self._open) > self._most_open:
            self._let_go()
        return file

    def _opened(self, number: int) -> DataFile:
        while True:
            try:
                return DataFile(self._paths[number], self._sizes[number])
            except OSError as error:  # this process, or the machine, has no descriptor left
                if not self._open:
                    raise ShardError(
                        f"cannot read {self._paths[number]}: {error.strerror}", "raise the limit: ulimit -n"
                    ) from error
                self._let_go()

    def _let_go(self) -> None:
        # Another thread may be at the same.
        for number in list(self._open)[:1]:
            self._open.pop(number, None)

    def close(self) -> None:
        """See :class:`Files`."""
        self._open.clear()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": {}}
