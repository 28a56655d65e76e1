"""A local folder of bounded size with copies of data files that lie elsewhere, shared by all processes that read them.

In: a receipt, and what fetches its data. Out: the path of a copy, which is what the receipt says to the last bit. Room
is made by deleting what was used longest ago.
"""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from regionvlp.errors import InputError
from regionvlp.store.files import is_temporary, remove_leftovers, temporary_path, temporary_target
from regionvlp.store.receipts import Receipt

log = logging.getLogger(__name__)

_LOCK = ".lock"
_COPY = re.compile(r"[0-9a-f]{24}\.(?:h5|parquet)")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Staging:
    """Copies of data files in ``folder``.

    Args:
        folder: where; made if need be. Several readers and processes may share it.
        most_bytes: how many bytes of copies it may hold.

    Raises:
        InputError: the folder cannot be used.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self._folder, self._most = folder, most_bytes
        self._said = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(folder)
            (folder / _LOCK).touch()
        except OSError as error:
            raise InputError(f"cannot stage in {folder}: {error.strerror}", "choose another staging folder") from None

    def copy(self, receipt: Receipt, fetch: Callable[[Receipt, Path], None]) -> Path | None:
        """The copy of a receipt's data file, fetched if need be; None where there is no room for it, which is said
        once.

        Args:
            receipt: of the shard.
            fetch: writes the data to a path, and raises what it likes where it cannot.
        """
        assert receipt.file is not None
        assert receipt.sha256 is not None
        # Named by what is in it: shards that were made anew, or lie elsewhere under the same name, are other files.
        path = self._folder / f"{receipt.sha256[:24]}{Path(receipt.file).suffix}"
        if _size(path) == receipt.bytes:
            with suppress(OSError):
                os.utime(path)  # used just now
            return path
        temporary = temporary_path(path)
        try:
            if not self._reserve(temporary, receipt.bytes):
                self._say_full(f"{receipt.bytes} bytes are more than the {self._most} it may hold")
                return None
            fetch(receipt, temporary)
            os.replace(temporary, path)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            self._say_full(error.strerror or str(error))
            return None
        finally:
            temporary.unlink(missing_ok=True)
        return path

    def _say_full(self, why: str) -> None:
        if not self._said:
            self._said = True
            log.warning("no room in %s (%s): shards are read by range instead", self._folder, why)

    def _reserve(self, temporary: Path, size: int) -> bool:
        """Makes room for so many bytes and takes it, under the name of a file that is to be written."""
        with self._alone():
            sizes: dict[Path, tuple[float, int]] = {}
            for entry in os.scandir(self._folder):
                with suppress(FileNotFoundError):
                    # Nothing but copies, whatever else the folder holds.
                    if _COPY.fullmatch(temporary_target(entry.name) or entry.name):
                        sizes[Path(entry.path)] = entry.stat().st_mtime, entry.stat().st_size
            total = sum(held for _, held in sizes.values())
            for path, (_, held) in sorted(sizes.items(), key=lambda item: item[1][0]):
                if total + size <= self._most:
                    break
                if not is_temporary(path.name):  # somebody is just writing that
                    path.unlink(missing_ok=True)
                    total -= held
            if total + size > self._most:
                return False
            with temporary.open("wb") as file:
                file.truncate(size)
        return True

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While no other process makes room."""
        import fcntl

        with (self._folder / _LOCK).open("a") as lock:
            with suppress(OSError):  # where there are no locks, two may make room for one
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1
