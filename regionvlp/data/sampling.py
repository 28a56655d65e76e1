"""Which of a video's frames a sample is made of.

In: how many frames there are and how many are wanted. Out: rising indices. Segment i of k covers the frames from
``e_i`` up to, not including, ``e_(i+1)``, with ``e_i = num_frames * i // k``.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import numpy as np

from regionvlp.errors import ConfigError
from regionvlp.video.sampling import uniform_indices

Sampling = Literal["default", "legacy"]


def choose_frames(
    num_frames: int, count: int, rng: np.random.Generator | None = None, sampling: Sampling = "default"
) -> list[int]:
    """Chooses one frame of each of ``count`` equal segments.

    Args:
        num_frames: frames that the video has, at least 1.
        count: frames wanted, at least 1; a shorter video gives each of its frames once.
        rng: draws within each segment, as training does; without it the middle frame is taken, as tests do.
        sampling: ``legacy`` draws as the public DemoVLP does, which never reaches the last frame of a segment and
            cannot draw from a segment of one frame. It makes no difference without ``rng``.

    Returns:
        ``min(count, num_frames)`` indices.

    Raises:
        ConfigError: a legacy draw from a segment of one frame (where the public code takes another video instead).
    """
    if rng is None:
        return uniform_indices(num_frames, count)
    segments = min(count, num_frames)
    edges = [num_frames * i // segments for i in range(segments + 1)]
    spare = 1 if sampling == "legacy" else 0
    if any(end - start <= spare for start, end in pairwise(edges)):
        raise ConfigError(
            f"sampling: legacy cannot draw {count} of {num_frames} frames", "extract more frames, or sampling: default"
        )
    return [int(rng.integers(start, end - spare)) for start, end in pairwise(edges)]
