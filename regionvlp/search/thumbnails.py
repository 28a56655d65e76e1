"""Small pictures of clips, for pages and for looking: the frame in the middle, as JPEG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from regionvlp.errors import VideoError
from regionvlp.search.clips import Clip
from regionvlp.video import DecodedVideo, DecodePool

LONGER_SIDE = 240  # pixels
_QUALITY = 80


class Thumbnails:
    """Makes them in decoding processes. Use it as a context manager, and call it with clips.

    Args:
        workers: processes; one per CPU by default.
    """

    def __init__(self, workers: int | None = None) -> None:
        self._pool = DecodePool(workers, time_limit=60.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.close()

    def __call__(self, clips: Sequence[Clip]) -> list[bytes]:
        """A JPEG of each clip; nothing for one whose file is not there or cannot be read."""
        waiting = [self._asked(clip) for clip in clips]
        return [b"" if future is None else _made(future) for future in waiting]

    def _asked(self, clip: Clip) -> Future[DecodedVideo] | None:
        if not clip.path:
            return None
        end = clip.end if clip.end > clip.start else None
        return self._pool.submit(Path(clip.path), 1, start=clip.start, end=end)


def _made(future: Future[DecodedVideo]) -> bytes:
    try:
        return jpeg(future.result().frames[0])
    except VideoError:
        return b""


def jpeg(frame: NDArray[np.uint8], longer_side: int = LONGER_SIDE) -> bytes:
    """A [H, W, 3] uint8 RGB picture, made no larger than ``longer_side`` pixels, as JPEG."""
    from PIL import Image

    image = Image.fromarray(frame)
    image.thumbnail((longer_side, longer_side))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=_QUALITY)
    return buffer.getvalue()
