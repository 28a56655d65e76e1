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

FRAME, CAPTION, CROP, FLIP = range(4)  # what is drawn of a sample, see :meth:`Draws.uniform`


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

    def places(self, draws: Draws) -> NDArray[np.float64]:
        """[B, F] where in its segment each frame lies, 0 up to 1, for who does not know yet how many frames there are.

        The same draws as those of :meth:`slots`, with default sampling.
        """
        return draws.uniform(FRAME, self.frames)

    def slots(
        self, num_frames: ArrayLike, draws: Draws | None = None, starts: ArrayLike | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Chooses frames of B videos.

        Args:
            num_frames: [B], frames that each video has, at least 1.
            draws: draws within each segment, as training does; without, the middle frame is taken, as tests do (of two
                the earlier).
            starts: [B], how far into its segment each frame lies, instead: see :func:`window_starts`. What lies beyond
                the video is its last frame.

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
        if starts is not None:
            return np.minimum(low_BF + np.asarray(starts, np.int64)[:, None], count_B1 - 1), real_BF
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


def window_starts(num_frames: int, frames: int, stride: int) -> list[int]:
    """Where the windows begin whose embeddings a test averages over (Frozen in Time's sliding window).

    Args:
        num_frames: of the video. frames: F of a window. stride: frames from one start to the next.

    Returns:
        One start or more: those of the public code, which divides by F + 1, and so leaves out the last ones that fit.
    """
    reach = num_frames // (min(frames, num_frames) + 1)
    return list(range(0, max(reach, 1), stride))
