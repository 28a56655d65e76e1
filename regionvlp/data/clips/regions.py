"""Clips of regions, read from shards.

Shape letters: B clips, F frames, R regions per frame, C feature width, P width of the location vector.
In: numbers of clips. Out: ``features`` [B, F, R, C] float16 or float32 as they are stored, ``location`` [B, F, R, P]
float32, ``region_mask`` [B, F, R] bool (True = real).
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from regionvlp.data.clips.frame_choice import FrameChoice
from regionvlp.data.draws import Draws
from regionvlp.data.settings import RegionClipSettings
from regionvlp.errors import InputError, ShardError, UnreadableItemsError
from regionvlp.regions import VideoRegions, location_vectors
from regionvlp.shards.batch import RegionBatch
from regionvlp.shards.datafile import LostFileError
from regionvlp.shards.reader import BatchError

EXAMPLES = 3  # ids that an error names


class RegionSource(Protocol):
    """Videos that give frames of many at once, as :class:`regionvlp.shards.ShardReader` does."""

    def rows(self, video_ids: Sequence[str]) -> NDArray[np.int64]: ...

    def num_frames_of(self, rows: ArrayLike) -> NDArray[np.int64]: ...

    def read_rows(self, rows: ArrayLike, slots: ArrayLike) -> RegionBatch: ...

    def __getitem__(self, video_id: str) -> VideoRegions: ...

    def __contains__(self, video_id: object) -> bool: ...


class RegionClips:
    """See :class:`regionvlp.data.clips.base.Clips`.

    Args:
        source: the videos; shards, or any mapping from id to regions, which is then copied.
        ids: which of them, in this order.
        settings: regions, location width and padding of a clip.
        trim: leave out the region slots that are padding throughout a batch.

    Raises:
        InputError: the source does not hold some of the videos.
    """

    keys = ("features", "location", "region_mask")

    def __init__(
        self,
        source: RegionSource | Mapping[str, VideoRegions],
        ids: Sequence[str],
        settings: RegionClipSettings,
        *,
        trim: bool = False,
    ) -> None:
        if not hasattr(source, "read_rows") or settings.in_memory:
            _refuse_missing(ids, source)
            source = RegionsInMemory(source, ids)
        self.ids, self.settings, self.trim = ids, settings, trim
        self._source: RegionSource = source  # type: ignore[assignment]
        try:
            self._rows = self._source.rows(self.ids)
        except KeyError:
            _refuse_missing(ids, source)
            raise

    def __len__(self) -> int:
        return len(self.ids)

    def read_batch(self, numbers: ArrayLike, choice: FrameChoice, draws: Draws | None = None) -> dict[str, Tensor]:
        """See :meth:`regionvlp.data.clips.base.Clips.read_batch`."""
        rows_B = self._rows[np.asarray(numbers)]
        slots_BF, shown_BF = choice.slots(self._source.num_frames_of(rows_B), draws)
        try:
            batch = self._source.read_rows(rows_B, slots_BF)
        except BatchError as error:
            # A file that is gone takes all its clips along: more than a run should leave out one by one.
            for found in error.failed.values():
                if isinstance(found, LostFileError):
                    raise found from None
            raise UnreadableItemsError({at: found.message for at, found in error.failed.items()}) from None
        return self._tensors(batch, shown_BF)

    def most_frames(self) -> int:
        """Frames of the longest clip."""
        return int(self._source.num_frames_of(self._rows).max())

    def stored(self, number: int, choice: FrameChoice) -> VideoRegions:
        """What is stored of the frames that a clip is made of, boxes and frame numbers included.

        A short video has fewer than F frames here, and the slots are those of the source.
        """
        regions = self._source[self.ids[number]]
        (slots_F,), (shown_F,) = choice.slots([regions.num_frames])
        return regions.of_frames(slots_F[shown_F])

    def _tensors(self, batch: RegionBatch, shown_BF: NDArray[np.bool_]) -> dict[str, Tensor]:
        """A batch as the models read it, with R slots of the settings'."""
        count_BF = np.minimum(batch.num_regions, self.settings.regions)
        mask_BFR = (np.arange(self.settings.regions) < count_BF[..., None]) & shown_BF[..., None]
        width = self._width(count_BF)
        mask_BFR = mask_BFR[..., :width]
        features, boxes = self._padded(batch.features, count_BF, width), self._padded(batch.boxes, count_BF, width)
        location = location_vectors(boxes, batch.image_size, self.settings.loc_dim)
        # Padding holds zeros; of a frame without regions the edge has none to repeat.
        beyond = np.arange(width) >= count_BF[..., None]
        blank = beyond if self.settings.padding == "zeros" else count_BF[..., None] == 0
        location[np.broadcast_to(blank, location.shape[:-1])] = 0
        found = {"features": features, "location": location, "region_mask": mask_BFR}
        return {key: torch.from_numpy(np.ascontiguousarray(values)) for key, values in found.items()}

    def _width(self, count_BF: NDArray[np.int32]) -> int:
        """Slots of the batch; one stays, so that a batch without any region keeps its shape."""
        return max(1, int(count_BF.max())) if self.trim else self.settings.regions

    def _padded(self, values: NDArray[Any], count_BF: NDArray[np.int32], width: int) -> NDArray[Any]:
        """[B, F, S, ...] with ``width`` slots: zeros beyond the real ones, as stored, or the last of them again."""
        if self.settings.padding == "edge":
            edge_BFR = np.minimum(np.arange(width), np.maximum(count_BF[..., None] - 1, 0))
            return np.take_along_axis(values, edge_BFR.reshape(*edge_BFR.shape, *[1] * (values.ndim - 3)), axis=2)
        extra = [(0, 0)] * values.ndim
        extra[2] = (0, max(0, width - values.shape[2]))
        return np.pad(values[:, :, :width], extra) if extra[2][1] else values[:, :, :width]


def _refuse_missing(ids: Sequence[str], source: Container[str]) -> None:
    missing = [video_id for video_id in ids if video_id not in source]
    if missing:
        names = ", ".join(missing[:EXAMPLES]) + (", ..." if len(missing) > EXAMPLES else "")
        raise InputError(f"{len(missing)} of {len(ids)} videos are not in the shards: {names}", "extract them")


class RegionsInMemory:
    """A :class:`RegionSource` of videos that are read once, into arrays over all their frames.

    A video that cannot be read, or holds values that are no numbers, says so when it is asked for.

    Args:
        source: the videos.
        ids: which of them.
    """

    def __init__(self, source: Mapping[str, VideoRegions] | RegionSource, ids: Sequence[str]) -> None:
        self._ids = list(dict.fromkeys(ids))
        self._row = {video_id: row for row, video_id in enumerate(self._ids)}
        self._bad: dict[int, ShardError] = {}
        found = [self._read(source, row, video_id) for row, video_id in enumerate(self._ids)]
        good = next((video for video in found if video is not None), None)
        if good is None:
            raise next(iter(self._bad.values()))
        videos = [video or good for video in found]
        self._num_frames = np.array([video.num_frames for video in videos], np.int64)
        self._first = np.concatenate([[0], np.cumsum(self._num_frames)])
        arrays = [name for name, value in vars(good).items() if isinstance(value, np.ndarray)]
        self._all = {name: np.concatenate([getattr(video, name) for video in videos]) for name in arrays}

    def _read(self, source: Any, row: int, video_id: str) -> VideoRegions | None:
        try:
            video: VideoRegions = source[video_id]
        except ShardError as error:
            self._bad[row] = error
            return None
        features = torch.from_numpy(video.features)  # numpy tests halves one by one, in software
        if bool(torch.isfinite(features).all()) and np.isfinite(video.boxes).all():
            return video
        message = f"the regions of {video_id} hold values that are no numbers"
        self._bad[row] = ShardError(message, "extract the video again")
        return None

    def __getitem__(self, video_id: str) -> VideoRegions:
        row = self._row[video_id]
        if row in self._bad:
            raise self._bad[row]
        frames = slice(self._first[row], self._first[row + 1])
        return VideoRegions(video_id=video_id, **{name: values[frames] for name, values in self._all.items()})

    def __contains__(self, video_id: object) -> bool:
        return video_id in self._row

    def rows(self, video_ids: Sequence[str]) -> NDArray[np.int64]:
        return np.array([self._row[video_id] for video_id in video_ids], np.int64)

    def num_frames_of(self, rows: ArrayLike) -> NDArray[np.int64]:
        found: NDArray[np.int64] = self._num_frames[np.asarray(rows)]
        return found

    def read_rows(self, rows: ArrayLike, slots: ArrayLike) -> RegionBatch:
        rows_B = np.asarray(rows)
        at_BF = self._first[rows_B][:, None] + np.asarray(slots)
        names = ("features", "boxes", "scores", "num_regions", "image_size")
        batch = RegionBatch(rows=rows_B, **{name: self._all[name][at_BF] for name in names})
        failed = {at: self._bad[row] for at, row in enumerate(rows_B.tolist()) if row in self._bad}
        if failed:
            raise BatchError.of(failed, batch)
        return batch
