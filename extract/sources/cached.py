"""A folder of cached frames (``extract --what frames``) as a source: its videos are never decoded again."""

from __future__ import annotations

from concurrent.futures import Executor, Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from regionvlp.errors import ShardError, VideoError
from regionvlp.extract.sources import listing
from regionvlp.extract.sources.source import Source
from regionvlp.store.plan import UNKNOWN, PlanRow
from regionvlp.video.decoded import DecodedVideo
from regionvlp.video.sampling import uniform_indices

if TYPE_CHECKING:
    from regionvlp.shards.pictures import FrameReader


def how_cached(source: Source) -> dict[str, Any]:
    """How the frames of a source were read, sampled and stored: what a manifest of regions says of its video."""
    from regionvlp.shards.pictures import FrameManifest

    manifest = FrameManifest.read(Path(source.videos))
    stored = {"frames": manifest.frames, "longer_side": manifest.longer_side, "quality": manifest.quality}
    return {**manifest.video, "reader": "cached", "cached": {**stored, "reader": manifest.video.get("reader")}}


def scan(source: Source) -> pa.Table:
    """Lists the videos whose frames are there. Those that failed when frames were cached are not among them."""
    from regionvlp.shards.pictures import open_frames

    ids = sorted(open_frames(source.videos))
    return listing.finished(listing.from_rows((video_id, UNKNOWN, UNKNOWN) for video_id in ids))


class CachedDecoder:
    """Gives the frames of planned rows in the place of a decoder.

    Args:
        folder: of the frames. frames: wanted of each video. threads: that read them.
    """

    def __init__(self, folder: str, frames: int, threads: Executor) -> None:
        from regionvlp.shards.pictures import open_frames

        self._reader: FrameReader = open_frames(folder)
        self._frames, self._threads = frames, threads

    def submit(self, row: PlanRow) -> Future[DecodedVideo]:
        """See :meth:`~regionvlp.extract.sources.decoding.RowDecoder.submit`."""
        return self._threads.submit(self._read, row.video_id)

    def _read(self, video_id: str) -> DecodedVideo:
        try:
            video = self._reader[video_id].decoded()
        except KeyError as error:
            raise VideoError(str(error.args[0]), stage="open", reason="missing-file") from None
        except ShardError as error:
            raise VideoError(error.message, stage="open", reason="damaged", hint=error.hint) from None
        chosen = uniform_indices(len(video.frames), self._frames)
        return DecodedVideo(
            [video.frames[i] for i in chosen], video.frame_index[chosen], video.frame_time[chosen],
            video.frames_announced, video.frames_decoded, 0, len(chosen), video.reader,
        )  # fmt: skip
