"""The stretch of a video that is asked for, and which of its frames lie in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from regionvlp.video.decoded import frame_times
from regionvlp.video.sampling import FrameRule

# Seconds by which a frame may miss an edge that it stands on: sums of binary fractions are not exact.
_EPSILON = 1e-6


@dataclass(frozen=True)
class Window:
    """The frames with ``start <= time < end``; times in seconds, counted from the first frame of the file.

    Attributes:
        start: 0 or more.
        end: more than ``start``; None: to the end of the file.

    Raises:
        ValueError: it is no stretch of time.
    """

    start: float = 0.0
    end: float | None = None

    def __post_init__(self) -> None:
        if not (self.start >= 0 and (self.end is None or self.end > self.start)):
            raise ValueError(f"there is no time from {self.start} s to {self.end} s")

    @classmethod
    def of(cls, start: float | None, end: float | None, max_seconds: float | None) -> Window:
        """The stretch from ``start`` to ``end``, of which only the first ``max_seconds`` count."""
        start = start or 0.0
        ends = [edge for edge in (end, None if max_seconds is None else start + max_seconds) if edge is not None]
        return cls(start, min(ends, default=None))

    def __str__(self) -> str:
        """In words to follow a noun; empty for a whole file."""
        since = f" from {self.start:g} s" if self.start else ""
        return since if self.end is None else f"{since} to {self.end:g} s"


@dataclass(frozen=True)
class Span:
    """The frames of a window by their position in display order: ``first <= position < last``."""

    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first

    def sample(self, rule: FrameRule) -> list[int]:
        """The positions that a rule takes of these."""
        return [self.first + index for index in rule.indices(len(self))]


def find_span(window: Window, stamps: Sequence[float | None], fps: float, lasts: float = 0.0) -> Span:
    """Which frames of a file lie in a window.

    Where none does because a picture from before is still shown when the window begins (slides, screen recordings),
    that picture is the answer.

    Args:
        window: the stretch asked for.
        stamps: seconds of each frame in display order; those after the window may be missing. Where a frame has no
            time, or times do not rise, ``index / fps`` counts instead.
        fps: frames per second.
        lasts: seconds for which the last of these frames is shown; infinite where another follows it.
    """
    first, last = 0, len(stamps)
    if last and (window.start or window.end is not None):
        clock = frame_times(range(last), stamps, fps)
        clock -= clock[0]
        first = int(np.searchsorted(clock, window.start - _EPSILON))
        if window.end is not None:
            last = int(np.searchsorted(clock, window.end - _EPSILON))
        if first >= last and first and (first < len(clock) or window.start < clock[-1] + lasts - _EPSILON):
            return Span(first - 1, first)
    return Span(first, max(first, last))
