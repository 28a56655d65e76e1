"""Decodes planned rows: has each one's file brought here where it is not, and hands it to the decoding processes."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING

from regionvlp.errors import VideoError
from regionvlp.extract.sources.cached import CachedDecoder
from regionvlp.extract.sources.scratch import Scratch
from regionvlp.extract.sources.source import Source
from regionvlp.store.plan import PlanRow

if TYPE_CHECKING:
    from regionvlp.extract.settings import VideoSettings
    from regionvlp.video import DecodedVideo, DecodePool


def open_pool(settings: VideoSettings) -> DecodePool:
    """The decoding processes of an extraction; see :class:`~regionvlp.video.pool.DecodePool`."""
    from regionvlp.video import DecodePool

    return DecodePool(
        settings.workers,
        reader=settings.decoder,
        time_limit=settings.time_limit,
        max_seconds=settings.max_seconds,
        memory_limit_mb=settings.memory_limit_mb,
    )


class RowDecoder:
    """Decodes the videos of planned rows. Use as a context manager.

    What is a file here is decoded where it lies. Anything else is copied here first, by threads that fetch while
    others decode, and the copy goes when its frames are out.

    Args:
        source: where the videos come from.
        pool: decodes them.
        frames: frames wanted of each.
        most_bytes: local copies that may exist at once, together; one alone may be of any size.
    """

    def __init__(self, source: Source, pool: DecodePool, frames: int, most_bytes: int = 4 << 30) -> None:
        self._source, self._pool, self._frames = source, pool, frames
        self._scratch = Scratch(most_bytes)
        # Each decoder is fed by one thread while another fetches.
        self._threads = ThreadPoolExecutor(2 * pool.workers, "fetch")
        self._cached = CachedDecoder(source.videos, frames, self._threads) if source.kind == "frames" else None

    def submit(self, row: PlanRow) -> Future[DecodedVideo]:
        """Queues the video of a row.

        The future raises :class:`~regionvlp.errors.VideoError` where it gives no frames, and another
        :class:`~regionvlp.errors.RegionVLPError` where no video can be had at all (the disk is full, say).
        """
        if self._cached is not None:
            return self._cached.submit(row)
        if not self._source.is_here(row):
            return self._threads.submit(self._fetched, row)
        try:
            return self._pool.submit(self._source.path(row), self._frames, start=row.start, end=row.end)
        except VideoError as error:
            failed: Future[DecodedVideo] = Future()
            failed.set_exception(error)
            return failed

    def close(self) -> None:
        """Gives up what is queued; copies in use go when their videos are decoded."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._scratch.close()

    def __enter__(self) -> RowDecoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _fetched(self, row: PlanRow) -> DecodedVideo:
        with self._source.local(row, self._scratch) as path:
            return self._pool.submit(path, self._frames, start=row.start, end=row.end).result()
