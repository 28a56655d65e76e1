"""Looking at frames when somebody asks: at results again, for finer boxes, and at files that the index does not hold.

In: clips, encoders. Out: what the encoders see in frames that are decoded for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from regionvlp.errors import InputError, VideoError
from regionvlp.search.clips import Clip, Evidence, VideoClips
from regionvlp.search.encoders.base import Encoder, Query, StoredTokens
from regionvlp.search.pictures import Decoding
from regionvlp.video.find import IMAGE_SUFFIXES

FRAMES = 8  # of a clip, where the index does not say
FINE = 12  # rows and columns of cells


def look_again(
    clips: Sequence[Clip], encoder: Encoder, frames: int, grid: int = FINE
) -> Iterator[tuple[Evidence, StoredTokens] | VideoError]:
    """The cells of a finer grid over the frames of each clip, with their vectors.

    Args:
        clips: of the index. encoder: one that looks and has tokens. frames: of a clip. grid: rows and columns.
    """
    with Decoding(frames) as source:
        for found in VideoClips(clips, source, grid).inputs(clips):
            if isinstance(found, VideoError):
                yield found
                continue
            seen = encoder.encode_clips([found])
            parts = (seen.tokens, seen.mask, seen.frames, seen.slots)
            tokens, mask, places, slots = (part[0] for part in parts if part is not None)
            yield found.evidence, StoredTokens(tokens.astype(np.float16), mask, places, slots)


def like_file(
    path: Path, seconds: float | None, encoders: Sequence[Encoder], frames: int, window: float
) -> list[Query]:
    """The queries by which clips like a file are found: empty ones for encoders that do not look.

    Args:
        path: of a video or picture. seconds: in the video; all of it otherwise.
        encoders: of the index. frames: of a clip. window: seconds around ``seconds``.

    Raises:
        InputError: the file cannot be read.
    """
    place, status = str(path.absolute()), os.stat(path)
    start, end = 0.0, -1.0
    if seconds is not None and path.suffix.lower() not in IMAGE_SUFFIXES:
        start, end = max(0.0, seconds - window / 2), seconds + max(window, 1.0) / 2
    clip = Clip(place, place, place, start, end, f"{status.st_size}-{status.st_mtime_ns}")
    with Decoding(frames) as source:
        (found,) = VideoClips([clip], source).inputs([clip])
    if isinstance(found, VideoError):
        raise InputError(f"cannot look at {path}: {found.message}", "name a video or picture that can be played")
    vectors = [encoder.encode_clips([found]).pooled if encoder.reads_pictures else None for encoder in encoders]
    return [Query("", None if vector is None else vector[0]) for vector in vectors]
