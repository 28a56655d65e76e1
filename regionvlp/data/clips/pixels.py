"""Clips of pixels, decoded from videos as they are asked for, or read from cached frames.

Shape letters: B clips, F frames, H x W pixels. In: numbers of clips. Out: ``pixels`` [B, F, 3, H, W] uint8,
red-green-blue, which the model normalises on its device; ``frame_mask`` [B, F] bool, True = real frame, those first.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import get_worker_info

from regionvlp.data.clips.frame_choice import FrameChoice
from regionvlp.data.clips.transforms import central_view, drawn_views, look
from regionvlp.data.draws import Draws
from regionvlp.data.settings import PixelClipSettings
from regionvlp.errors import ConfigError, RegionVLPError, ShardError, UnreadableItemsError, VideoError
from regionvlp.shards.pictures import FrameReader
from regionvlp.video import DecodedVideo, DecodePool
from regionvlp.video.pool import usable_cpus
from regionvlp.video.sampling import FrameRule

Frames = list[NDArray[np.uint8]]


class FrameSource(Protocol):
    """Videos that give chosen frames of many at once."""

    def read(self, video_ids: Sequence[str], choice: FrameChoice, draws: Draws | None) -> list[Frames | RegionVLPError]:
        """The frames of each, at most ``choice.frames`` and one at least, or why there are none."""


class PixelClips:
    """See :class:`regionvlp.data.clips.base.Clips`.

    Args:
        source: the videos.
        ids: which of them, in this order.
        settings: how large frames become, and how they are drawn.
        most_frames: that a video can give, where that is known.

    Raises:
        ConfigError: frames are to be drawn the old way, which has to know first how many there are.
    """

    keys = ("pixels", "frame_mask")

    def __init__(
        self,
        source: FrameSource,
        ids: Sequence[str],
        settings: PixelClipSettings,
        *,
        most_frames: int | None = None,
    ) -> None:
        if settings.sampling != "default":
            message = f"data.clips.sampling {settings.sampling} is for clips of regions"
            raise ConfigError(message, "leave it out: frames are drawn of whole segments")
        self.ids, self.settings, self._source, self._most_frames = ids, settings, source, most_frames

    def __len__(self) -> int:
        return len(self.ids)

    def most_frames(self) -> int | None:
        """See :meth:`regionvlp.data.clips.base.Clips.most_frames`."""
        return self._most_frames

    def read_batch(self, numbers: ArrayLike, choice: FrameChoice, draws: Draws | None = None) -> dict[str, Tensor]:
        """See :meth:`regionvlp.data.clips.base.Clips.read_batch`. F is that of the longest clip of the batch."""
        numbers_B = np.asarray(numbers).tolist()
        clips = self._source.read([self.ids[number] for number in numbers_B], choice, draws)
        failed = {at: clip.message for at, clip in enumerate(clips) if isinstance(clip, RegionVLPError)}
        if failed:
            raise UnreadableItemsError(failed)
        return self._tensors([clip for clip in clips if not isinstance(clip, RegionVLPError)], draws)

    def _tensors(self, clips: list[Frames], draws: Draws | None) -> dict[str, Tensor]:
        settings = self.settings
        sizes = [(frames[0].shape[0], frames[0].shape[1]) for frames in clips]
        if draws is None:
            views = [central_view(size, settings.size) for size in sizes]
        else:
            views = drawn_views(sizes, draws, settings.crop_area, settings.flip)
        longest = max(map(len, clips))
        pixels = torch.zeros(len(clips), longest, 3, *settings.size, dtype=torch.uint8)
        frame_mask = torch.zeros(len(clips), longest, dtype=torch.bool)
        for at, (frames, view) in enumerate(zip(clips, views, strict=True)):
            pixels[at, : len(frames)] = look(frames, view, settings.size, antialias=settings.antialias)
            frame_mask[at, : len(frames)] = True
        return {"pixels": pixels, "frame_mask": frame_mask}


class VideoFrames:
    """A :class:`FrameSource` of video files and pictures, decoded in processes that outlive what they decode.

    Every process that reads has decoding processes of its own, together as many as there are processors; they start
    with the first video and end with it.

    Args:
        paths: by video id.
        settings: which reader, and how long it may take.
    """

    def __init__(self, paths: Mapping[str, Path], settings: PixelClipSettings) -> None:
        self._paths, self._settings = paths, settings
        self._pool: DecodePool | None = None
        self._owner = 0

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "_pool": None, "_owner": 0}  # processes are not handed on

    def read(self, video_ids: Sequence[str], choice: FrameChoice, draws: Draws | None) -> list[Frames | RegionVLPError]:
        """See :meth:`FrameSource.read`."""
        pool = self._opened()
        places = [None] * len(video_ids) if draws is None else choice.places(draws).tolist()
        waiting = [
            pool.submit(self._paths[video_id], choice.frames, places=place)
            for video_id, place in zip(video_ids, places, strict=True)
        ]
        return [_frames_of(decoding) for decoding in waiting]

    def close(self) -> None:
        """Ends the decoding processes of this process; the next read starts new ones."""
        if self._pool is not None:
            self._pool.close()
        self._pool = None

    def _opened(self) -> DecodePool:
        # A fork holds a copy of its parent's pool, whose threads did not come along.
        if self._pool is None or self._owner != os.getpid():
            beside = get_worker_info()
            share = usable_cpus() // (beside.num_workers if beside else 1)
            self._pool = DecodePool(max(1, share), reader=self._settings.reader, time_limit=self._settings.time_limit)
            self._owner = os.getpid()
        return self._pool


def _frames_of(decoding: Future[DecodedVideo]) -> Frames | RegionVLPError:
    try:
        return decoding.result().frames
    except VideoError as error:
        return error


class CachedFrames:
    """A :class:`FrameSource` of a folder of cached frames: chosen among those that were cached; no video is decoded.

    Args:
        reader: the folder.
    """

    def __init__(self, reader: FrameReader) -> None:
        self._reader = reader

    def read(self, video_ids: Sequence[str], choice: FrameChoice, draws: Draws | None) -> list[Frames | RegionVLPError]:
        """See :meth:`FrameSource.read`."""
        return [self._one(at, video_id, choice, draws) for at, video_id in enumerate(video_ids)]

    def _one(self, at: int, video_id: str, choice: FrameChoice, draws: Draws | None) -> Frames | RegionVLPError:
        try:
            video = self._reader[video_id]
        except KeyError as error:
            return VideoError(str(error.args[0]), stage="open", reason="missing-file")
        except ShardError as error:
            return error
        places = None if draws is None else tuple(choice.places(draws)[at].tolist())
        return video.frames(FrameRule(choice.frames, places).indices(len(video.jpegs)))
