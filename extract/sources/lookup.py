"""Looks a listed name up on the disk: as it is, or else with another extension.

An extension may be in capitals (cameras write IMG_1.MP4), and an accent composed otherwise than in the list (macOS
stores letter and accent apart): such names look the same to people.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from regionvlp.errors import VideoError
from regionvlp.extract.sources import remote
from regionvlp.video.find import IMAGE_SUFFIXES, VIDEO_SUFFIXES

_SUFFIXES = (".mp4", *sorted((VIDEO_SUFFIXES | IMAGE_SUFFIXES) - {".mp4"}))


def find_file(root: str, location: str) -> Path:
    """The file of a listed name: the name itself, or else the one file that differs from it in its extension.

    Raises:
        VideoError: there is no such file (``missing-file``), or there are several (``ambiguous-file``), or the root
            itself is gone (``io-error``, transient).
    """
    exact = os.path.join(root, location)
    if os.path.isfile(exact):
        return Path(exact)
    found: dict[tuple[int, int], str] = {}  # by what the file is: to some disks, a.MP4 and a.mp4 are one
    for candidate in _candidates(root, location):
        if os.path.isfile(candidate):
            state = os.stat(candidate)
            found.setdefault((state.st_dev, state.st_ino), candidate)
    if len(found) == 1:
        return Path(*found.values())
    if found:
        names = " and ".join(os.path.basename(path) for path in found.values())
        raise VideoError(f"'{location}' may be {names}", stage="open", reason="ambiguous-file")
    if not os.path.isdir(root):
        raise VideoError(f"the folder '{root}' is gone", stage="open", reason="io-error", transient=True)
    raise VideoError(f"'{location}' is not below '{root}'", stage="open", reason="missing-file")


def _candidates(root: str, location: str) -> Iterator[str]:
    """Every name that may be meant, in an order that does not matter."""
    forms = {location}
    if not location.isascii():
        forms |= {unicodedata.normalize("NFC", location), unicodedata.normalize("NFD", location)}
    for form in sorted(forms):
        path = os.path.join(root, form)
        stem = stem_of(path)
        yield path
        yield stem
        for suffix in _SUFFIXES:
            yield from (stem + suffix, stem + suffix.upper(), stem + suffix.title())


def find_url(url: str) -> str:
    """The same for a URL; to spare requests, the first of several files counts.

    Raises:
        VideoError: there is no such file.
    """
    system, path = remote.file_system(url)
    stem = stem_of(path)
    for candidate in (path, *(stem + suffix for suffix in _SUFFIXES)):
        if system.isfile(candidate):
            return str(system.unstrip_protocol(candidate))
    raise VideoError(f"'{url}' does not exist", stage="open", reason="missing-file")


def stem_of(path: str) -> str:
    """A path without the extension of a video or picture, or a dot in its place (DiDeMo has such names)."""
    stem, suffix = os.path.splitext(path)
    return stem if suffix == "." or suffix.lower() in _SUFFIXES else path


def is_there(root: str, location: str) -> bool:
    """Whether a listed name leads to a file, or to several."""
    place = remote.join(root, location)
    try:
        find_url(place) if remote.is_url(place) else find_file(root, location)
    except VideoError as error:
        return error.reason == "ambiguous-file"
    return True
