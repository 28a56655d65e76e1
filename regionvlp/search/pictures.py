"""The frames of clips as pictures, for encoders that look: cached in a folder of frames, or decoded beside encoding.

In: clips. Out: :class:`Pictures` of each, in order, or the error why there are none. Shape letter: F frames.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from regionvlp.errors import VideoError
from regionvlp.video import DecodedVideo, DecodePool
from regionvlp.video.pool import usable_cpus

if TYPE_CHECKING:
    from regionvlp.search.clips import Clip
    from regionvlp.shards.pictures.reader import FrameReader

TIME_LIMIT = 120.0  # seconds for one clip
_AHEAD = 2  # clips that wait decoded for each process that decodes
_DECODING_SHARE = 4  # of so many processors one decodes, where the others encode


@dataclass(frozen=True)
class Pictures:
    """The frames of a clip.

    Attributes:
        frames: F pictures [h, w, 3] uint8 RGB; they may be smaller than the frames were.
        frame_index: [F] int64, positions in the file. frame_time: [F] float64, seconds as the container stamps them.
        frame_size: [F, 2] int32, (height, width) of the frames, in whose pixels boxes are given.
    """

    frames: tuple[NDArray[np.uint8], ...]
    frame_index: NDArray[np.int64]
    frame_time: NDArray[np.float64]
    frame_size: NDArray[np.int32]

    @classmethod
    def of(cls, decoded: DecodedVideo) -> Pictures:
        """What a reader of videos gave."""
        sizes = np.array([frame.shape[:2] for frame in decoded.frames], np.int32)
        return cls(tuple(decoded.frames), decoded.frame_index, decoded.frame_time, sizes)


class PictureSource(Protocol):
    """Where the frames of clips come from.

    Attributes:
        count: the most frames of a clip.
    """

    count: int

    def pictures(self, clips: Iterable[Clip]) -> Iterator[Pictures | VideoError]:
        """The frames of each clip, in order; an error for one that has none."""


class Decoding:
    """Decodes in processes of their own, a few clips ahead of whoever takes them. Use it as a context manager.

    Args:
        count: frames of a clip, spread evenly.
        beside: ``cuda`` or ``cpu``, what computes meanwhile: beside a GPU all processors decode, beside an encoder on
            the CPU a quarter of them do.
        fewer: frames of clips that have fewer, by id.
    """

    def __init__(self, count: int, beside: str = "cpu", fewer: Mapping[str, int] | None = None) -> None:
        self.count, self._fewer = count, fewer or {}
        workers = max(1, usable_cpus() // (_DECODING_SHARE if beside == "cpu" else 1))
        self._pool = DecodePool(workers, time_limit=TIME_LIMIT)

    def __enter__(self) -> Decoding:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.close()

    def pictures(self, clips: Iterable[Clip]) -> Iterator[Pictures | VideoError]:
        """See :class:`PictureSource`."""
        left, waiting = iter(clips), deque[Future[DecodedVideo] | VideoError]()
        for clip in left:
            waiting.append(self._asked(clip))
            if len(waiting) > _AHEAD * self._pool.workers:
                yield _taken(waiting.popleft())
        while waiting:
            yield _taken(waiting.popleft())

    def _asked(self, clip: Clip) -> Future[DecodedVideo] | VideoError:
        if not clip.path:
            message = f"the file of {clip.clip_id!r} is not where it was"
            return VideoError(message, stage="open", reason="missing-file", transient=True)
        end = clip.end if clip.end > clip.start else None
        count = self._fewer.get(clip.clip_id, self.count)
        return self._pool.submit(Path(clip.path), count, start=clip.start, end=end)


def _taken(found: Future[DecodedVideo] | VideoError) -> Pictures | VideoError:
    if isinstance(found, VideoError):
        return found
    try:
        return Pictures.of(found.result())
    except VideoError as error:
        return error


class CachedFrames:
    """Reads a folder that ``extract --what frames`` made.

    Args:
        reader: of the folder.
    """

    def __init__(self, reader: FrameReader) -> None:
        self.count = reader.manifest.frames
        self._reader = reader

    def pictures(self, clips: Iterable[Clip]) -> Iterator[Pictures | VideoError]:
        """See :class:`PictureSource`.

        Raises:
            ShardError: a file of the folder is damaged.
        """
        for clip in clips:
            cached = self._reader[clip.clip_id]
            yield Pictures(tuple(cached.frames()), cached.frame_index, cached.frame_time, cached.image_size)
