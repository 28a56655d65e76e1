"""Which frames to take: the middle one of each of ``count`` equal segments."""

from __future__ import annotations

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
