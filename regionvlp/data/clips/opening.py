"""Opens the video side of a source: shards of regions, a folder of videos, or a folder of cached frames.

In: where the videos lie, and what a clip is made of. Out: :class:`Material`, from which captions choose their clips.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from regionvlp.data.clips.base import Clips
from regionvlp.data.clips.pixels import CachedFrames, PixelClips, VideoFrames
from regionvlp.data.clips.regions import RegionClips
from regionvlp.data.settings import ClipSettings, PixelClipSettings, RegionClipSettings, SourceSettings
from regionvlp.errors import ConfigError
from regionvlp.shards import ShardReader, open_shards
from regionvlp.shards.pictures import FrameReader, open_frames
from regionvlp.shards.pictures.format import holds_frames
from regionvlp.video import find_videos

log = logging.getLogger(__name__)


class Material(Protocol):
    """The videos of a source.

    Attributes:
        ids: of all of them. failures: of those that were to be there, why they are not.
    """

    @property
    def ids(self) -> pa.Array: ...

    @property
    def failures(self) -> Mapping[str, str]: ...

    def clips(self, ids: Sequence[str], *, trim: bool) -> Clips:
        """Those of some videos; ``trim`` leaves out what is padding throughout a batch."""

    def marks(self, ids: Sequence[str]) -> Sequence[object]:
        """What tells the content of some videos from other content of the same names."""


def open_material(source: SourceSettings, settings: ClipSettings) -> Material:
    """Opens what a source names.

    Raises:
        ConfigError: the model reads another kind. InputError, ShardError: it cannot be read.
    """
    if isinstance(settings, RegionClipSettings):
        if source.shards is None:
            message = f"the source of {source.captions} names videos, and this model reads regions"
            raise ConfigError(message, "extract them, and name the shards: {captions: FILE, shards: FOLDER}")
        return RegionMaterial(source.shards, settings)
    assert isinstance(settings, PixelClipSettings), "clips are of regions or of pixels"
    if source.videos is None:
        message = f"the source of {source.captions} names shards of regions, and this model reads pixels"
        raise ConfigError(message, "name the videos, or frames cached by 'extract --what frames': {videos: FOLDER}")
    return open_pixels(source.videos, settings)


def open_pixels(folder: Path, settings: PixelClipSettings) -> Material:
    """Opens a folder of videos, or of cached frames.

    Raises:
        InputError, ShardError: it is missing, holds neither, or cannot be read.
    """
    if holds_frames(folder):
        return FrameMaterial(open_frames(folder), settings)
    return VideoMaterial(folder, settings)


class RegionMaterial:
    """See :class:`Material`: shards of regions."""

    def __init__(self, place: str, settings: RegionClipSettings) -> None:
        self._settings = settings
        self._shards: ShardReader = open_shards(
            place, checksums=settings.checksums, staging=settings.staging,
            staging_bytes=int(settings.staging_gb * 1e9),
        )  # fmt: skip
        self.ids = self._shards.ids_as_arrow()
        self.failures = {failure.video_id: failure.reason for failure in self._shards.failures}

    def clips(self, ids: Sequence[str], *, trim: bool) -> RegionClips:
        return RegionClips(self._shards, ids, self._settings, trim=trim)

    def marks(self, ids: Sequence[str]) -> Sequence[object]:
        return self._shards.checksums_of(ids)


class VideoMaterial:
    """See :class:`Material`: a folder of videos and pictures, decoded as they are read."""

    def __init__(self, folder: Path, settings: PixelClipSettings) -> None:
        found = find_videos(folder)
        self._settings, self._bytes = settings, {video.video_id: video.bytes for video in found}
        self._source = VideoFrames({video.video_id: video.path for video in found}, settings)
        self.ids = pa.array([video.video_id for video in found], pa.string())
        self.failures: Mapping[str, str] = {}

    def clips(self, ids: Sequence[str], *, trim: bool) -> PixelClips:
        return PixelClips(self._source, ids, self._settings, most_frames=None)

    def marks(self, ids: Sequence[str]) -> Sequence[object]:
        return [self._bytes[video_id] for video_id in ids]


class FrameMaterial:
    """See :class:`Material`: a folder of cached frames."""

    def __init__(self, reader: FrameReader, settings: PixelClipSettings) -> None:
        self._settings, self._reader = settings, reader
        self.ids = pa.array(list(reader), pa.string())
        self.failures = {failure.video_id: failure.reason for failure in reader.failures}
        kept, wanted = reader.manifest.longer_side, max(settings.size)
        if kept < wanted:
            log.warning("%s holds frames of at most %d pixels: a model of %d sees them enlarged",
                        reader.folder, kept, wanted)  # fmt: skip

    def clips(self, ids: Sequence[str], *, trim: bool) -> PixelClips:
        most = self._reader.manifest.frames
        return PixelClips(CachedFrames(self._reader), ids, self._settings, most_frames=most)

    def marks(self, ids: Sequence[str]) -> Sequence[object]:
        known = self._reader.checksums()
        return [known[video_id] for video_id in ids]
