"""Which of a video's frames a sample is made of, for many videos at once.

Segment i of k covers the frames from ``e_i`` up to, not including, ``e_(i+1)``, with ``e_i = num_frames * i // k``, and
one frame is taken of each. Shape letters: B videos, F frames of a sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from regionvlp.data.draws import Draws
from regionvlp.data.settings import Sampling
from regionvlp.errors import ConfigError

FRAME, CAPTION = 0, 1  # what is drawn of a sample, see :meth:`Draws.uniform`


@dataclass(frozen=True)
class FrameChoice:
    """How frames are chosen.

    Attributes:
        frames: F, frames of a sample.
        sampling: how they are drawn where they are drawn; ``legacy`` draws as the public DemoVLP does, which never
            reaches the last frame of a segment and cannot draw from a segment of one frame.
    """

    frames: int
    sampling: Sampling = "default"

    def slots(self, num_frames: ArrayLike, draws: Draws | None = None) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Chooses frames of B videos.

        Args:
            num_frames: [B], frames that each video has, at least 1.
            draws: draws within each segment, as training does; without, the middle frame is taken, as tests do (of two
                the earlier).

        Returns:
            [B, F] rising frame numbers, and [B, F] which of them are the video's: one shorter than F gives each of its
            frames once, and the last again for the rest.

        Raises:
            ConfigError: a legacy draw from a segment of one frame (where the public code takes another video instead).
        """
        count_B1 = np.asarray(num_frames, np.int64)[:, None]
        segments_B1, slot_1F = np.minimum(count_B1, self.frames), np.arange(self.frames)[None]
        real_BF = slot_1F < segments_B1
        slot_BF = np.minimum(slot_1F, segments_B1 - 1)
        low_BF, high_BF = count_B1 * slot_BF // segments_B1, count_B1 * (slot_BF + 1) // segments_B1
        if draws is None:
            return (low_BF + high_BF - 1) // 2, real_BF
        if self.sampling == "legacy":
            high_BF = high_BF - 1
            if (high_BF <= low_BF).any():
                least = int(count_B1[(high_BF <= low_BF).any(1)].min())
                message = f"sampling: legacy cannot draw {self.frames} of {least} frames"
                raise ConfigError(message, "extract more frames, or sampling: default")
        drawn_BF = draws.integers(FRAME, low_BF, high_BF)
        return np.take_along_axis(drawn_BF, slot_BF, axis=1), real_BF
