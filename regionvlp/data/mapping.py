"""Tables in files that are mapped into memory, called after their content, so that equal tables share one copy.

They lie in a folder of this user's own below the machine's temporary folder, and go when nobody has used them for two
weeks. Where there is no room, nothing is written, and everyone keeps their own copy.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa

log = logging.getLogger(__name__)

_KEPT = 14 * 24 * 3600  # seconds after its last use that a file is kept
_ROWS = 1 << 20  # rows of a piece


class _Hashed:
    """A file that knows the digest of what was written to it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.digest = file, hashlib.blake2b(digest_size=16)
        self.closed = False

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False


def written(tables: Sequence[pa.Table]) -> Path | None:
    """Writes tables into one file, unless it is there; None where they cannot be written."""
    try:
        folder = _folder()
        _remove_old(folder)
        handle, name = tempfile.mkstemp(".tmp", dir=folder)
    except OSError as error:
        log.debug("captions stay in memory: %s", error)
        return None
    try:
        with os.fdopen(handle, "wb") as file:
            hashed = _Hashed(file)
            for table in tables:
                with pa.ipc.new_stream(pa.PythonFile(cast(Any, hashed), "w"), table.schema) as stream:
                    stream.write_table(table.unify_dictionaries().combine_chunks(), max_chunksize=_ROWS)
        path = folder / f"{hashed.digest.hexdigest()}.arrow"
        os.replace(name, path)
        return path
    except (OSError, pa.ArrowException) as error:
        with contextlib.suppress(OSError):
            os.unlink(name)
        log.debug("captions stay in memory: %s", error)
        return None


def read(path: Path) -> list[pa.Table]:
    """Maps the tables of a file."""
    with contextlib.suppress(OSError):
        os.utime(path)
    source = pa.memory_map(os.fspath(path))
    size, tables = source.size(), []
    while source.tell() < size:
        tables.append(pa.ipc.open_stream(source).read_all())
    return tables


def _folder() -> Path:
    """The folder, which only this user can write to.

    Raises:
        OSError: there is none that could be.
    """
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(tempfile.gettempdir(), f"regionvlp-captions-{user}")
    folder.mkdir(mode=0o700, exist_ok=True)
    state = folder.lstat()
    if hasattr(os, "getuid") and (state.st_uid != user or state.st_mode & 0o077 or folder.is_symlink()):
        raise PermissionError(f"{folder} is not this user's own")
    return folder


def _remove_old(folder: Path) -> None:
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _KEPT:
                path.unlink()
