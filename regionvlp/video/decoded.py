"""What a reader returns: the pictures that were asked for, and where in the video they stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from regionvlp.errors import VideoError

# A picture of more pixels is refused before memory is asked for: 2**27 pixels are 400 MB of RGB.
MAX_PIXELS = 2**27


@dataclass(frozen=True)
class DecodedVideo:
    """The sampled frames of one video. F is the number of frames, at least 1 and at most the number asked for.

    Attributes:
        frames: F pictures, uint8 ``[height, width, 3]`` RGB, upright as a player shows them. Sizes may differ.
        frame_index: int64 [F], the position of each frame in display order, from 0, strictly rising.
        frame_time: float64 [F], seconds as the container stamps them (the first frame need not be at 0).
        frames_announced: what the file promises of the stretch asked for: the larger of its header's count and its
            packets.
        frames_decoded: how many frames of that stretch really come out; the indices are spread over this many. Where
            only the neighbourhood of key frames was decoded, every packet outside it counts as one frame.
        packets_skipped: packets that the decoder refused, in the pass that gave the pictures.
        frames_read: how many frames were decoded to get these, over all passes, as far as the reader tells.
        reader: ``pyav``, ``decord``, ``torchcodec`` or ``pillow``.
    """

    frames: list[NDArray[np.uint8]]
    frame_index: NDArray[np.int64]
    frame_time: NDArray[np.float64]
    frames_announced: int
    frames_decoded: int
    packets_skipped: int
    frames_read: int
    reader: str


def frame_times(indices: Sequence[int], stamps: Sequence[float | None], fps: float) -> NDArray[np.float64]:
    """Returns the time of each sampled frame in seconds, float64 [F].

    Args:
        indices: [F] positions in display order.
        stamps: [F] seconds that the container gives for these frames, None where it gives none.
        fps: used as ``index / fps`` for all frames if a stamp is missing or they do not rise, as in old AVI files.
    """
    known = [stamp for stamp in stamps if stamp is not None]
    if len(known) == len(indices) and all(a < b for a, b in pairwise(known)):
        return np.asarray(known, dtype=np.float64)
    return np.asarray(indices, dtype=np.float64) / fps


def check_enough(
    path: Path, decoded: int, announced: int, min_decoded: float, faults: Sequence[str] = (), window: object = ""
) -> None:
    """Refuses a video that gives no frames, or too small a share of those it announces.

    Args:
        path: for the message.
        decoded: frames that come out.
        announced: frames that the file promises.
        min_decoded: the smallest share that is accepted, 0 to 1.
        faults: what the decoder said about packets it refused; the first is repeated in the message.
        window: the stretch asked for, for the message.

    Raises:
        VideoError: stage ``decode``, reason ``no-frames`` or ``damaged``.
    """
    if announced == 0 and decoded == 0:
        raise VideoError(f"'{path}' holds no frame{window}", stage="decode", reason="no-frames")
    if decoded == 0 or decoded < min_decoded * announced:
        said = f": {faults[0]}" if faults else ""
        raise VideoError(
            f"only {decoded} of {announced} frames of '{path}'{window} can be decoded{said}",
            stage="decode",
            reason="damaged",
        )
