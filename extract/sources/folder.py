"""A folder of videos and images, or a single file: the id of a video is its path below the folder."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from regionvlp.extract.sources import listing
from regionvlp.extract.sources.source import Source
from regionvlp.video.find import walk_videos


def scan(source: Source) -> pa.Table:
    """Lists the folder; see :func:`~regionvlp.video.find.walk_videos` for what counts."""
    return listing.finished(listing.from_rows(walk_videos(Path(source.videos))))
