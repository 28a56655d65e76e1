"""The file that HDF5 and Arrow write into, which never tells them that a write failed.

HDF5 cannot let go of a file whose last pieces it could not write: after a full disk it keeps the file in its caches,
tries again at every turn, and ends the process with a segmentation fault. So it is told that all went well, what it
writes from then on is dropped, and the caller raises the error that is kept here. Arrow would cope, but this way every
byte of a shard folder is written by calls of :mod:`os`, where tests make each of them fail in turn.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_SMALL = 8192  # bytes


class Sink:
    """A new file at ``path``, open for reading and writing; the methods are those that h5py and pyarrow ask of a file.

    Attributes:
        error: what the first failed call raised, None while all is well. An interrupt that arrives in the middle of a
            call is kept in the same way.
    """

    def __init__(self, path: Path) -> None:
        self.error: BaseException | None = None
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        self._position = 0
        self._waiting = bytearray()
        self._waits_at = -1  # where in the file
        self._dropping = False

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._descriptor < 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves to ``offset`` from the start, from here, or from the end of the file."""
        if whence == os.SEEK_END:
            self._write_waiting()
            offset += os.fstat(self._descriptor).st_size
        elif whence == os.SEEK_CUR:
            offset += self._position
        self._position = offset
        return self._position

    def tell(self) -> int:
        """The position in bytes."""
        return self._position

    def write(self, data: memoryview | bytes) -> int:
        """Writes all of ``data`` at the position, or drops it after an error.

        Small pieces wait for those that follow them in the file, and share a system call with them.
        """
        if len(data) > _SMALL:
            self._write_waiting()
            self._write_at(memoryview(data), self._position)
        else:
            if self._position != self._waits_at + len(self._waiting) or len(self._waiting) > 8 * _SMALL:
                self._write_waiting()
                self._waits_at = self._position
            self._waiting += data
        self._position += len(data)
        return len(data)

    def _write_waiting(self) -> None:
        if self._waiting:
            pieces, self._waiting = self._waiting, bytearray()
            self._write_at(memoryview(pieces), self._waits_at)
        self._waits_at = -1

    def _write_at(self, data: memoryview, place: int) -> None:
        def write() -> None:
            done = 0
            while done < len(data):
                done += os.pwrite(self._descriptor, data[done:], place + done)

        self._attempt(write)

    def readinto(self, data: memoryview) -> int:
        """Fills ``data`` from the position; what was never written reads as zeros, as everywhere in HDF5."""
        self._write_waiting()
        data[:] = bytes(len(data))
        self._attempt(lambda: os.preadv(self._descriptor, [data], self._position))
        self._position += len(data)
        return len(data)

    def truncate(self, size: int) -> int:
        """Sets the size of the file."""
        self._write_waiting()
        self._attempt(lambda: os.ftruncate(self._descriptor, size))
        return size

    def flush(self) -> None:
        """Nothing is held back here."""

    def close(self) -> None:
        """Writes what waits and closes the file, also after an error; a second time does nothing."""
        if not self.closed:
            self._write_waiting()
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            try:
                os.close(descriptor)
            except OSError as error:
                self.error = self.error or error

    def drop(self) -> None:
        """From here on nothing is written any more, as after an error."""
        self._dropping = True

    def raise_error(self) -> None:
        """Raises what went wrong, if anything did."""
        if self.error is not None:
            raise self.error

    def _attempt(self, call: Callable[[], object]) -> None:
        if self._dropping:
            return
        try:
            call()
        except BaseException as error:
            self.error, self._dropping = error, True


@contextmanager
def new_file(path: Path) -> Iterator[Sink]:
    """Yields a :class:`Sink` at ``path``, closes it, and raises what went wrong with it before anything else."""
    sink = Sink(path)
    try:
        yield sink
    except Exception:
        sink.raise_error()  # what a library stumbled over after a write failed says less than the failure
        raise
    finally:
        sink.close()
    sink.raise_error()
