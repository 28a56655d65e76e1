"""How a file is cut into clips: overlapping windows of one length, so that an answer is a moment.

In: how long a file is. Out: stretches of it. A file that is hardly longer than a window is one clip.
"""

from __future__ import annotations

import re

from regionvlp.errors import InputError

Stretch = tuple[float, float | None]  # start and end in seconds from the first frame; None: to the end of the file

WHOLE: list[Stretch] = [(0.0, None)]
_SECONDS = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|min|m)?")
_UNITS = {None: 1.0, "s": 1.0, "ms": 1e-3, "m": 60.0, "min": 60.0}


def windows(duration: float | None, length: float, stride: float) -> list[Stretch]:
    """The windows of a file, each ``length`` seconds long and ``stride`` after the one before; the last may be shorter.

    No stretch of the file is left out; one that only the last window holds is longer than ``length - stride``, so no
    window is a mere scrap of the one before it.

    Args:
        duration: of the file in seconds; None where it is not known, and the file is then one clip.
    """
    if duration is None or duration <= length:
        return WHOLE
    cut: list[Stretch] = []
    start = 0.0
    while not cut or start + length - stride < duration - 1e-6:
        end = start + length
        cut.append((round(start, 3), None if end >= duration else round(end, 3)))
        start += stride
    return cut


def frames_in(stretch: Stretch, duration: float | None, length: float, frames: int) -> int:
    """How many frames stand for a window, so that it shares those of the windows that it overlaps.

    The last window of a file may be shorter. Spread over it, as many frames as over the others would all be new ones;
    as many as lie as far apart as theirs are the same, and need not be looked at twice.

    Args:
        duration: of the file. length: of a window. frames: of a whole window.
    """
    start, end = stretch
    if end is not None or duration is None or start == 0:
        return frames
    return max(1, min(frames, round(frames * (duration - start) / length)))


def parse_seconds(text: str, option: str) -> float:
    """Reads a length of time such as ``8s``, ``0.5``, ``500ms`` or ``2min``.

    Raises:
        InputError: it is none, or not more than 0.
    """
    match = _SECONDS.fullmatch(text.strip())
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not seconds > 0:
        raise InputError(f"{option} {text} is no length of time", "write seconds, such as 8s")
    return seconds


def check_cut(length: float, stride: float) -> None:
    """Refuses windows between which something would be lost.

    Raises:
        InputError: the stride is longer than the window.
    """
    if stride > length:
        raise InputError(
            f"windows of {length:g} s every {stride:g} s leave out what is between", "make --stride shorter"
        )
