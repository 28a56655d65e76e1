"""Decodes planned rows: has each one's file brought here where it is not, and hands it to the decoding processes."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING

from regionvlp.errors import VideoError
from regionvlp.extract.sources.source import Source
from regionvlp.shards.plan import PlanRow

if TYPE_CHECKING:
    from regionvlp.video import DecodedVideo, DecodePool


class RowDecoder:
    """Decodes the videos of planned rows.

    Args:
        source: where the videos come from.
        pool: decodes them.
        frames: frames wanted of each.
    """

    def __init__(self, source: Source, pool: DecodePool, frames: int) -> None:
        self._source, self._pool, self._frames = source, pool, frames

    def submit(self, row: PlanRow) -> Future[DecodedVideo]:
        """Queues the video of a row; the future raises :class:`VideoError` where it gives no frames."""
        try:
            return self._pool.submit(self._source.path(row), self._frames, start=row.start, end=row.end)
        except VideoError as error:
            failed: Future[DecodedVideo] = Future()
            failed.set_exception(error)
            return failed
