"""Which frames to take: one of each of ``count`` equal segments, the middle one or where a draw says."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise


def uniform_indices(num_frames: int, count: int) -> list[int]:
    """Returns the frame in the middle of each of ``count`` equal segments of a video.

    Segment ``i`` covers the frames ``e_i <= frame < e_(i+1)`` with ``e_i = num_frames * i // k`` and
    ``k = min(count, num_frames)``; of two middle frames the earlier one is taken. A video shorter than ``count``
    gives each of its frames once.

    Args:
        num_frames: how many frames can be decoded, 0 or more.
        count: how many are wanted, at least 1.

    Returns:
        ``k`` strictly rising indices from 0.

    Raises:
        ValueError: ``num_frames`` is negative or ``count`` below 1.
    """
    if num_frames < 0 or count < 1:
        raise ValueError(f"cannot take {count} of {num_frames} frames")
    segments = min(count, num_frames)
    edges = [num_frames * i // segments for i in range(segments + 1)] if segments else [0]
    return [(start + end - 1) // 2 for start, end in pairwise(edges)]


@dataclass(frozen=True)
class FrameRule:
    """Which frames of a video, however many it turns out to have.

    Attributes:
        count: most frames wanted, at least 1; a video that has fewer gives each of them once.
        places: where in its segment each frame lies, ``count`` numbers from 0 up to, not including, 1; None for the
            middle, as :func:`uniform_indices` finds it.

    Raises:
        ValueError: the count is below 1, or places are not as many, or not within a segment.
    """

    count: int
    places: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"cannot take {self.count} frames")
        if self.places is not None and (len(self.places) != self.count or not all(0 <= at < 1 for at in self.places)):
            raise ValueError(f"{self.count} frames want as many places from 0 up to 1, not {self.places}")

    def indices(self, num_frames: int) -> list[int]:
        """Strictly rising indices from 0 of a video of ``num_frames``."""
        if self.places is None or not num_frames:
            return uniform_indices(num_frames, self.count)
        segments = min(self.count, num_frames)
        edges = [num_frames * i // segments for i in range(segments + 1)]
        spans = zip(pairwise(edges), self.places, strict=False)
        return [low + min(int(place * (high - low)), high - low - 1) for (low, high), place in spans]
