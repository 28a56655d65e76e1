"""Videos: found, probed, sampled, decoded, and decoded in killable child processes.

In: a folder, a path. Out: a few true RGB pictures of each video with their indices and times, or a
:class:`~regionvlp.errors.VideoError` whose ``reason`` stands in :data:`~regionvlp.video.failures.REASONS`.

Importing this package imports neither PyAV, decord, Pillow nor torch; each comes with its first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from regionvlp.video.decoded import DecodedVideo as DecodedVideo
    from regionvlp.video.failures import REASONS as REASONS
    from regionvlp.video.find import IMAGE_SUFFIXES as IMAGE_SUFFIXES
    from regionvlp.video.find import VIDEO_SUFFIXES as VIDEO_SUFFIXES
    from regionvlp.video.find import VideoFile as VideoFile
    from regionvlp.video.find import check_video_id as check_video_id
    from regionvlp.video.find import find_videos as find_videos
    from regionvlp.video.pool import DecodePool as DecodePool
    from regionvlp.video.readers import READERS as READERS
    from regionvlp.video.readers import available_readers as available_readers
    from regionvlp.video.readers import read_frames as read_frames
    from regionvlp.video.sampling import uniform_indices as uniform_indices
    from regionvlp.video.survey import VideoInfo as VideoInfo
    from regionvlp.video.survey import probe as probe

_HOME = {
    "DecodePool": "pool",
    "DecodedVideo": "decoded",
    "IMAGE_SUFFIXES": "find",
    "READERS": "readers",
    "REASONS": "failures",
    "VIDEO_SUFFIXES": "find",
    "VideoFile": "find",
    "VideoInfo": "survey",
    "available_readers": "readers",
    "check_video_id": "find",
    "find_videos": "find",
    "probe": "survey",
    "read_frames": "readers",
    "uniform_indices": "sampling",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"regionvlp.video.{_HOME[name]}"), name)
    raise AttributeError(f"module 'regionvlp.video' has no attribute '{name}'")
