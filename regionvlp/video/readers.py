"""The one door to pictures: chooses the reader, the frames and the way to them.

``pyav`` is the default and decides what is true. ``decord`` and ``torchcodec`` are taken by choice and held to the same
contract: random access only for kinds of files on which it was compared with reading forward and found exact.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

from regionvlp.errors import InputError, nearest
from regionvlp.video.decoded import DecodedVideo
from regionvlp.video.find import IMAGE_SUFFIXES, looks_like_image
from regionvlp.video.sampling import FrameRule
from regionvlp.video.window import Window

READERS = ("auto", "pyav", "decord", "torchcodec")

# What every reader offers: (path, which frames, window, min_decoded) -> the frames.
Reader = Callable[[Path, FrameRule, Window, float], DecodedVideo]

_INSTALL = {
    "pyav": "pip install av",
    "decord": "pip install decord (Linux on x86-64 only)",
    "torchcodec": "pip install torchcodec in the version that fits this torch, and FFmpeg's shared libraries",
}


def read_frames(
    path: Path,
    count: int,
    *,
    places: Sequence[float] | None = None,
    reader: str = "auto",
    start: float | None = None,
    end: float | None = None,
    max_seconds: float | None = None,
    min_decoded: float = 0.25,
) -> DecodedVideo:
    """Reads ``count`` frames spread evenly over a video, or all of a shorter one; a still image gives one.

    Runs in the calling process, which a broken file can hang or crash: :class:`~regionvlp.video.pool.DecodePool` does
    the same behind a time limit.

    Args:
        path: the file. An image is known by its suffix, or by its first bytes if it has none.
        count: frames wanted, at least 1.
        places: where in its segment each of them lies, see :class:`~regionvlp.video.sampling.FrameRule`; by default
            in the middle.
        reader: ``auto`` (PyAV), ``pyav``, ``decord`` or ``torchcodec``.
        start, end: take the frames with ``start <= time < end`` only, in seconds from the first frame of the file.
            Their indices and times stay those of the whole file.
        max_seconds: use the first so many seconds of that only.
        min_decoded: a video of which less than this share of the announced frames can be decoded is damaged.

    Raises:
        VideoError: the file gives no usable frames; ``reason`` is a key of :data:`~regionvlp.video.failures.REASONS`.
        InputError: the reader is unknown or not installed.
        ValueError: ``start`` and ``end`` are no stretch of time, or ``places`` no places.
    """
    rule = FrameRule(count, None if places is None else tuple(places))
    read, window = load_reader(reader), Window.of(start, end, max_seconds)
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES or (not suffix and looks_like_image(path)):
        from regionvlp.video.images import read_image

        return read_image(path, window)
    return read(path, rule, window, min_decoded)


def load_reader(reader: str) -> Reader:
    """Imports a reader and returns the function that reads with it.

    Raises:
        InputError: the name is unknown, or the reader is not installed or cannot be loaded.
    """
    module = importlib.import_module(f"regionvlp.video.{check_reader(reader)}_reader")
    read: Reader = module.read
    return read


def check_reader(reader: str) -> str:
    """Returns the reader that a name stands for, without importing it.

    Raises:
        InputError: the name is unknown, or the reader is not installed.
    """
    if reader not in READERS:
        hint = nearest(reader, READERS) or f"choose one of {', '.join(READERS)}"
        raise InputError(f"there is no reader '{reader}'", hint)
    chosen = "pyav" if reader == "auto" else reader
    if importlib.util.find_spec("av" if chosen == "pyav" else chosen) is None:
        raise InputError(f"the reader '{chosen}' is not installed", _INSTALL[chosen])
    return chosen


def available_readers() -> dict[str, str]:
    """Returns for each reader its version, as in ``18.1.0 installed``, or how to install it. Imports none of them."""
    return {
        "pyav": _installed("av", ["av"]) or f"missing: {_INSTALL['pyav']}",
        "decord": _installed("decord", ["decord", "decord2", "eva-decord"]) or f"missing: {_INSTALL['decord']}",
        "torchcodec": _installed("torchcodec", ["torchcodec"]) or f"missing: {_INSTALL['torchcodec']}",
    }


def _installed(module: str, distributions: Sequence[str]) -> str:
    if importlib.util.find_spec(module) is None:
        return ""
    for name in distributions:
        try:
            return f"{metadata.version(name)} installed"
        except metadata.PackageNotFoundError:
            continue
    return "installed"
