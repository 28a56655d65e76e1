"""Frames of videos as JPEG, and moments cut out: made on demand, in processes that may die."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future, TimeoutError
from pathlib import Path

from regionvlp.errors import InputError, VideoError
from regionvlp.search.answers import Result
from regionvlp.search.clips import Clip
from regionvlp.search.cut import cut
from regionvlp.search.page import stretches_at
from regionvlp.search.server.desk import BusyError
from regionvlp.search.server.settings import LONGEST_CUT
from regionvlp.search.thumbnails import jpeg
from regionvlp.video import DecodedVideo, DecodePool

LONGER_SIDE = 720  # pixels of a frame on the page
TIME_LIMIT = 20.0  # seconds for one frame
WORKERS = 2
MOST_WAITING = 64
REMEMBERED_BYTES = 32_000_000
_Key = tuple[str, int, float]  # path, time of its last change, seconds


class Frames:
    """Decodes frames, and remembers the last ones. Close it at the end."""

    def __init__(self) -> None:
        self._pool = DecodePool(WORKERS, time_limit=TIME_LIMIT)
        self._remembered: OrderedDict[_Key, bytes] = OrderedDict()
        self._bytes = 0
        self._lock, self._waiting = threading.Lock(), threading.BoundedSemaphore(MOST_WAITING)
        self._cutting = threading.BoundedSemaphore(WORKERS)

    def close(self) -> None:
        """Ends the processes."""
        self._pool.close()

    def warm(self, path: Path) -> None:
        """Starts the processes, which takes a second, and waits for nothing."""
        for _ in range(WORKERS):
            self._pool.submit(path, 1)

    def frame(self, path: Path, seconds: float) -> bytes:
        """The frame at a time, counted from the file's first frame, as JPEG.

        Raises:
            VideoError: the file has none there, or cannot be read. BusyError: too many are waiting.
        """
        try:
            key = (str(path), path.stat().st_mtime_ns, round(seconds, 3))
        except OSError:
            raise VideoError(f"{path.name} is gone", stage="open", reason="missing") from None
        with self._lock:
            if key in self._remembered:
                self._remembered.move_to_end(key)
                return self._remembered[key]
        if not self._waiting.acquire(blocking=False):
            raise BusyError("too many pictures are being made", "ask again in a moment")
        try:
            made = jpeg(self._decoded(path, seconds).frames[0], LONGER_SIDE)
        finally:
            self._waiting.release()
        self._remember(key, made)
        return made

    def _decoded(self, path: Path, seconds: float) -> DecodedVideo:
        *first, last = stretches_at(seconds)
        for start, end in first:
            try:
                return _result(self._pool.submit(path, 1, start=start, end=end))
            except VideoError as error:
                if error.reason != "no-frames":
                    raise
        return _result(self._pool.submit(path, 1, start=last[0], end=last[1]))

    def _remember(self, key: _Key, made: bytes) -> None:
        with self._lock:
            if key not in self._remembered:
                self._remembered[key] = made
                self._bytes += len(made)
            while self._bytes > REMEMBERED_BYTES:
                _, old = self._remembered.popitem(last=False)
                self._bytes -= len(old)

    def cut_out(self, clip: Clip, path: Path, start: float, end: float, folder: Path) -> Path:
        """A moment of a file, not encoded anew, as a file of a folder.

        Raises:
            InputError: there is nothing to cut there. BusyError: too many are being cut.
        """
        if not 0 <= start <= end or end - start > LONGEST_CUT:
            raise InputError(f"{start:g} to {end:g} s cannot be cut", f"ask for at most {LONGEST_CUT:g} seconds")
        if not self._cutting.acquire(blocking=False):
            raise BusyError("too many clips are being cut", "ask again in a moment")
        try:
            result = Result(clip.video_id, str(path), start, end, 0.0)
            files, faults = cut([result], folder)
        finally:
            self._cutting.release()
        if not files:
            raise InputError(faults[0], "open the file itself")
        return files[0]


def _result(future: Future[DecodedVideo]) -> DecodedVideo:
    try:
        return future.result(3 * TIME_LIMIT)
    except TimeoutError:
        raise VideoError("it took too long", stage="decode", reason="timeout", transient=True) from None
