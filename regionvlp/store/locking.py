"""The lock of a shard folder, held for the few moments in which something is published or removed."""

from __future__ import annotations

import contextlib
import errno
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from regionvlp.store.names import MANIFEST_NAME

log = logging.getLogger(__name__)

_PATIENCE = 60.0
_POLL = 0.02
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EROFS}


@contextmanager
def folder_lock(folder: Path) -> Iterator[bool]:
    """Holds the folder's advisory lock for a moment; yields False where the file system has none.

    Nothing depends on it alone: where it does not work, or not across machines, windows of a few system calls stay
    open in which two workers may waste work. The lock is on the manifest, which is never replaced or removed.
    """
    locked = False
    with contextlib.ExitStack() as stack:
        for mode in ("rb", "r+b"):  # locks over a network are given to writers only
            try:
                locked = _locked(stack.enter_context((folder / MANIFEST_NAME).open(mode)))
                break
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
        yield locked


def _locked(file: IO[bytes]) -> bool:
    """Waits for the lock of a file; False where somebody holds on to it."""
    import fcntl

    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(_POLL)
    log.warning("somebody holds the lock of %s for a minute; going on without it", file.name)
    return False
