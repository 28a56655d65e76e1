"""Files that appear whole or not at all, and JSON documents that notice when they were damaged.

A file is written under a temporary name in its own folder (``shard-00000.h5.HOST-PIDsSTARTnCOUNT.tmp``), flushed to
the disk, and renamed. What a killed process left behind is told by that name and removed when the same file is next
written.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from regionvlp.errors import ShardError
from regionvlp.store.owner import ProcessName, this_process

_TEMPORARY = re.compile(r"(?P<target>.+)\.(?P<owner>[A-Za-z0-9_-]*-\d+(?:s\d+)?)(?:n\d+)?\.tmp", re.DOTALL)
_COUNT = count()
ASIDE = "set-aside"


def temporary_path(path: Path) -> Path:
    """A name under which this process can write ``path`` before renaming it, another one at every call."""
    return path.with_name(f"{path.name}.{this_process()}n{next(_COUNT)}.tmp")


def is_temporary(name: str) -> bool:
    """True for a name of the form of :func:`temporary_path`, whoever made it."""
    return _TEMPORARY.fullmatch(name) is not None


def temporary_target(name: str) -> str | None:
    """Name of the file that a temporary one is to become; None for other names."""
    match = _TEMPORARY.fullmatch(name)
    return match["target"] if match else None


def in_use(name: str) -> bool:
    """True where the process that a temporary name belongs to is running on this machine."""
    owner = _owner(name)
    return owner is not None and owner.here and not owner.dead


def is_leftover(name: str) -> bool:
    """True where the process that a temporary name belongs to ran on this machine and is dead."""
    owner = _owner(name)
    return owner is not None and owner.dead


def _owner(name: str) -> ProcessName | None:
    match = _TEMPORARY.fullmatch(name)
    return ProcessName.parse(match["owner"]) if match else None


def remove_leftovers(folder: Path, target: str | None = None) -> list[Path]:
    """Removes temporary files and folders whose process on this machine is dead; those of others are left alone.

    Args:
        folder: where to look.
        target: only leftovers of the file or folder of this name; of any by default.

    Returns:
        What was removed.
    """
    removed = []
    # Of the names in a folder of thousands of shards, hardly any get beyond the first two tests.
    for name in os.listdir(folder):
        if not name.endswith(".tmp") or not name.startswith(target or ""):
            continue
        if is_leftover(name) and target in (None, temporary_target(name)):
            path = folder / name
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
            removed.append(path)
    return removed


def publish(temporary: Path, path: Path, *, flushed: bool = False) -> None:
    """Flushes ``temporary`` to the disk, unless it is, and renames it to ``path``; after a power cut either is."""
    if not flushed:
        flush(temporary)
    os.replace(temporary, path)
    _fsync_folder(path.parent)


def publish_new(temporary: Path, path: Path, *, flushed: bool = False) -> bool:
    """Flushes ``temporary`` to the disk (unless it is) and gives it the name ``path`` as well, unless that is taken.

    Returns:
        False where ``path`` exists, which is then untouched.

    Raises:
        OSError: among others (``EPERM``, ``ENOTSUP``) where the file system has no hard links.
    """
    if not flushed:
        flush(temporary)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    _fsync_folder(path.parent)
    return True


def has_no_links(error: OSError) -> bool:
    """True for the error of a file system without hard links (mounted cloud drives)."""
    return error.errno in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def set_aside(folder: Path, name: str) -> None:
    """Moves a file of a shard folder into :data:`ASIDE` below it, where nothing is replaced."""
    (folder / ASIDE).mkdir(exist_ok=True)
    places = (folder / ASIDE / (f"{name}.{again}" if again else name) for again in count())
    place = next(place for place in places if not place.exists())
    os.rename(folder / name, place)
    for changed in (folder / ASIDE, folder):
        _fsync_folder(changed)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path to write to; publishes it as ``path`` at the end, removes it on any exception."""
    remove_leftovers(path.parent, path.name)
    temporary = temporary_path(path)
    try:
        yield temporary
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def create_once(path: Path, text: str) -> bool:
    """Writes a new file whole; of several processes at once exactly one succeeds.

    Returns:
        False where ``path`` exists already, and is then untouched.
    """
    remove_leftovers(path.parent, path.name)
    temporary = temporary_path(path)
    try:
        temporary.write_text(text, encoding="utf-8")
        return publish_new(temporary, path)
    except OSError as error:
        if not has_no_links(error):
            raise
        return _create_without_links(path, text)
    finally:
        temporary.unlink(missing_ok=True)


def _create_without_links(path: Path, text: str) -> bool:
    """For file systems without hard links: exclusive, though not whole after a power cut."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    flush(path)
    return True


def document_text(values: dict[str, Any]) -> str:
    """``values`` as JSON with a digest of the rest as its last key."""
    plain = json.dumps(values, indent=2)
    return json.dumps({**values, "digest": hashlib.sha256(plain.encode()).hexdigest()}, indent=2) + "\n"


def read_document(
    path: Path, newest: int | None = None, check: Callable[[dict[str, Any]], None] = lambda values: None
) -> dict[str, Any]:
    """Reads what :func:`document_text` wrote, without the digest.

    Args:
        path: the file.
        newest: ``schema_version`` up to which it can be read; None: any.
        check: called with the values before anything is asked of their version or digest; may raise.

    Raises:
        ShardError: the file is missing, cannot be read, was written by a newer version, or changed since it was
            written.
    """
    hint = "restore the file; a shard whose receipt is deleted is done again"
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text)
    except OSError as error:
        raise ShardError(f"cannot read {path}: {error.strerror or error}", "check the path") from None
    except ValueError:
        raise ShardError(f"{path} is damaged: it is not JSON", hint) from None
    if not isinstance(values, dict):
        raise ShardError(f"{path} is damaged: it is not a JSON object", hint)
    check(values)
    version = values.get("schema_version")
    if newest is not None and isinstance(version, int) and version > newest:
        raise ShardError(
            f"{path} was written by a newer regionvlp (schema {version}, this one reads up to {newest})",
            "pip install --upgrade regionvlp",
        )
    values.pop("digest", None)
    # Compared as text, so that a flipped bit shows wherever it is, spaces and key names included.
    if document_text(values) != text:
        raise ShardError(f"{path} is damaged: it does not match its own digest", hint)
    return values


def sha256_of(path: Path) -> str:
    """SHA-256 of a file as hexadecimal digits, read once in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush_and_sum(path: Path) -> str:
    """Flushes a file to the disk and returns its SHA-256: the processor sums while the disk writes."""
    with ThreadPoolExecutor(1, thread_name_prefix="flush") as pool:
        flushing = pool.submit(flush, path)
        digest = sha256_of(path)
        flushing.result()
    return digest


def flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fsync_folder(folder: Path) -> None:
    try:
        flush(folder)
    except OSError as error:
        # Some network and user-space file systems cannot flush a folder; there is nothing more to be done on them.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
