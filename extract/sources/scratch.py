"""Local copies of what lies elsewhere, for as long as they are needed, and never too many bytes of them at once.

They lie in one folder of the system's temporary folder, named after this process; what a killed process left is told
by that name, and removed by the next one.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from regionvlp.errors import InputError
from regionvlp.store.files import remove_leftovers, temporary_path

_NAME = "regionvlp-clips"
DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


@dataclass
class _Copy:
    path: Path
    size: int
    users: int = 1
    done: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None


class Scratch:
    """Room for local copies. Safe to use from several threads.

    Args:
        most_bytes: copies are made only while all of them together stay below this, except that one alone may be of
            any size.
        folder: where; by default the system's temporary folder.
    """

    def __init__(self, most_bytes: int, folder: Path | None = None) -> None:
        self._most = most_bytes
        self._parent = folder or Path(tempfile.gettempdir())
        self._folder: Path | None = None
        self._kept = self._made = 0
        self._copies: dict[str, _Copy] = {}
        self._room = threading.Condition()

    @contextmanager
    def copy(self, key: str, size: int, suffix: str, fill: Callable[[Path], None]) -> Iterator[Path]:
        """A local copy of what ``key`` names, until the block ends; who asks for the same meanwhile shares it.

        Args:
            key: names the original.
            size: its bytes, as far as known; they count until the copy is there and tells by itself.
            suffix: of the file's name.
            fill: writes it to the path that it is given.

        Raises:
            InputError: there is no room on the disk.
        """
        copy, mine = self._reserve(key, size, suffix)
        try:
            if mine:
                self._fill(copy, fill)
            copy.done.wait()
            if copy.error:
                raise copy.error
            yield copy.path
        finally:
            self._give_back(key, copy)

    def close(self) -> None:
        """Removes the folder and whatever is still in it."""
        with self._room:
            if self._folder:
                shutil.rmtree(self._folder, ignore_errors=True)
                self._folder = None

    def _reserve(self, key: str, size: int, suffix: str) -> tuple[_Copy, bool]:
        with self._room:
            while True:
                if copy := self._copies.get(key):
                    copy.users += 1
                    return copy, False
                if not self._copies or self._kept + size <= self._most:
                    break
                self._room.wait()
            self._made += 1
            copy = self._copies[key] = _Copy(self._own_folder() / f"{self._made}{suffix}", size)
            self._kept += size
            return copy, True

    def _fill(self, copy: _Copy, fill: Callable[[Path], None]) -> None:
        try:
            fill(copy.path)
        except OSError as error:
            copy.error = error
            if error.errno in DISK_FULL:
                words = f"cannot keep a copy in {copy.path.parent}: {error.strerror}"
                copy.error = InputError(words, "free space there, or set TMPDIR to a larger disk")
        except BaseException as error:
            copy.error = error
        finally:
            with self._room, contextlib.suppress(OSError):
                real = copy.path.stat().st_size
                self._kept += real - copy.size
                copy.size = real
            copy.done.set()

    def _give_back(self, key: str, copy: _Copy) -> None:
        with self._room:
            copy.users -= 1
            if copy.users:
                return
            copy.path.unlink(missing_ok=True)
            del self._copies[key]
            self._kept -= copy.size
            self._room.notify_all()

    def _own_folder(self) -> Path:
        if self._folder is None:
            remove_leftovers(self._parent, _NAME)
            self._folder = temporary_path(self._parent / _NAME)
            self._folder.mkdir(mode=0o700)
        return self._folder
