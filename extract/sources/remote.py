"""Files on any file system that fsspec knows, named by URLs such as ``s3://bucket/a.mp4`` or ``memory://a.mp4``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from regionvlp.errors import InputError
from regionvlp.store.plan import UNKNOWN

# What the network libraries behind fsspec raise is not always an OSError.
ERRORS = (Exception,)
_PIECE = 1 << 20


def is_url(text: str) -> bool:
    """Whether a text names something on another file system; ``file://`` is this one, see :func:`plain_path`."""
    return "://" in text


def plain_path(text: str) -> str:
    """A ``file://`` URL as the path it stands for; everything else as it is."""
    return unquote(urlsplit(text).path) if text.startswith("file://") else text


def file_system(url: str) -> tuple[Any, str]:
    """The file system of a URL and the path within it.

    Raises:
        InputError: the protocol is unknown, or its package is not installed.
    """
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        words = str(error).strip().splitlines()[0]
        raise InputError(f"'{url}' cannot be opened: {words}", "install the fsspec package of this protocol") from None
    return system, path


def open_file(place: str) -> IO[bytes]:
    """Opens a file or URL for reading.

    Raises:
        InputError: it cannot be opened.
    """
    try:
        if not is_url(place):
            return open(place, "rb")
        system, path = file_system(place)
        file: IO[bytes] = system.open(path, "rb")
        return file
    except InputError:
        raise
    except ERRORS as error:
        words = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot read {place}: {words}", "check the path and the permissions") from None


def join(root: str, place: str) -> str:
    """``place`` below ``root``; absolute places and URLs stay as they are."""
    if is_url(place) or not is_url(root):
        return place if is_url(place) else os.path.join(root, place)
    return _with_slash(root) + place


def below(root: str, place: str) -> str:
    """``place`` relative to ``root``, if it lies below; else as it is."""
    return place.removeprefix(_with_slash(root))


def _with_slash(root: str) -> str:
    return root if root.endswith("/") else f"{root}/"


def size_of(url: str) -> int:
    """Bytes of a file on another file system; :data:`UNKNOWN` where it does not say."""
    system, path = file_system(url)
    size = system.info(path).get("size")
    return UNKNOWN if size is None else int(size)


def fetch(url: str, target: Path) -> None:
    """Copies a file from another file system."""
    system, path = file_system(url)
    system.get_file(path, os.fspath(target))


def cut(place: str, offset: int, size: int, target: Path) -> None:
    """Copies a stretch of a file, here or elsewhere; less where the file ends before."""
    if is_url(place):
        system, path = file_system(place)
        target.write_bytes(system.cat_file(path, offset, offset + size))
        return
    with open(place, "rb") as file, target.open("wb") as copy:
        file.seek(offset)
        while size > 0 and (piece := file.read(min(size, _PIECE))):
            copy.write(piece)
            size -= len(piece)
