"""The way a player shows a picture: the display matrix that a container or a stream carries with it.

In: a decoded frame. Out: RGB pixels, turned and mirrored. A matrix is more than an angle: the front camera of a phone
writes one that mirrors, which the angle alone (FFmpeg's ``rotation``) cannot tell from a turn.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from regionvlp.errors import VideoError
from regionvlp.video.decoded import MAX_PIXELS
from regionvlp.video.failures import ffmpeg_words, out_of_memory

_MATRIX = "DISPLAYMATRIX"


def upright_rgb(frame: VideoFrame, path: Path) -> NDArray[np.uint8]:
    """Converts a frame to RGB uint8 ``[height, width, 3]``, turned and mirrored as a player shows it.

    Raises:
        VideoError: the picture is too large, or cannot be turned into RGB.
    """
    if frame.width * frame.height > MAX_PIXELS:
        raise VideoError(f"'{path}' has a picture of {frame.width}x{frame.height}", stage="decode", reason="too-large")
    try:
        # One thread: the default starts one per core for every picture.
        picture = np.asarray(frame.to_ndarray(format="rgb24", threads=1), dtype=np.uint8)
        return np.ascontiguousarray(shown(picture, matrix_of(frame)))
    except MemoryError as error:
        raise out_of_memory(path, stage="decode") from error
    except (av.FFmpegError, ValueError) as error:
        words = ffmpeg_words(error) if isinstance(error, av.FFmpegError) else str(error)
        raise VideoError(
            f"'{path}' has a picture that cannot be turned into RGB: {words}", stage="decode", reason="damaged"
        ) from error


def matrix_of(frame: VideoFrame) -> tuple[int, int, int, int] | None:
    """The part (a, b, c, d) of a frame's display matrix that turns and mirrors, in 1/65536; None where it has none.

    ISO/IEC 14496-12, 8.3.2: a pixel at (x, y) is shown at (a x + c y, b x + d y), up to a shift.
    """
    data: Any = frame.side_data.get(_MATRIX) if len(frame.side_data) else None
    if data is None:
        return None
    a, b, _, c, d = np.frombuffer(data, dtype=np.int32)[:5].tolist()
    return a, b, c, d


def shown(picture: NDArray[np.uint8], matrix: tuple[int, int, int, int] | None) -> NDArray[np.uint8]:
    """A view of ``picture`` ``[height, width, ...]`` turned to the nearest right angle as a matrix says."""
    if matrix is None:
        return picture
    a, b, c, d = matrix
    if abs(a) + abs(d) < abs(b) + abs(c):
        picture, across, down = picture.swapaxes(0, 1), c, b
    else:
        across, down = a, d
    return picture[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]


def is_mirrored(matrix: tuple[int, int, int, int] | None) -> bool:
    """Whether a display matrix mirrors, so that no turn alone gives the picture."""
    if matrix is None:
        return False
    a, b, c, d = matrix
    return a * d - b * c < 0
