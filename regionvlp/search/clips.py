"""What is indexed: clips, with the regions that were found in them, or their frames as pictures, or both.

In: shard folders of the same videos, by one detector each; where frames come from. Out: :class:`ClipInput`, one per
clip. Where no detector looked, the cells of a grid over each frame stand for regions.
Shape letters: F frames, R region slots, n regions of a clip over all its frames and detectors.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import Self, cast

import numpy as np
from numpy.typing import NDArray

from regionvlp.errors import ShardError, VideoError
from regionvlp.regions import VideoRegions
from regionvlp.search.pictures import Pictures, PictureSource
from regionvlp.shards import ShardReader, open_shards
from regionvlp.shards.pictures.reader import FrameReader
from regionvlp.shards.vocabulary import Vocabulary, read_vocabulary

# A region's attribute counts as a word from this probability on; a class, for what a clip is described by, from the
# next. Below it detectors name everything that they can.
ATTRIBUTE_SCORE = 0.2
MISSING_EXAMPLES = 3
STAMP_SLACK = 0.5  # seconds
GRID = 4  # rows and columns of cells in a frame; 8 x 576 patches would be 4.7 MB of tokens a clip
_STAMP = 12  # hexadecimal digits of a checksum

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Clip:
    """A stretch of a file.

    Attributes:
        clip_id: unique in an index.
        video_id: of the file, as people name it.
        path: where the file lies, absolute; empty where that is not known.
        start, end: seconds from the file's first frame; equal for a picture.
        stamp: changes whenever the clip has to be encoded anew.
    """

    clip_id: str
    video_id: str
    path: str
    start: float
    end: float
    stamp: str


@dataclass(frozen=True)
class Evidence:
    """The regions of a clip, frame by frame and detector by detector: what words can point at.

    Attributes:
        frame_time: [F] float64, seconds, as the container stamps the frames.
        frame_size: [F, 2] int32, (height, width) in pixels.
        frame: [n] int16, in which of the F frames a region lies.
        slot: [n] int16, its slot in the shards; -1 for those of any but the first detector.
        boxes: [n, 4] float32, ``x1 y1 x2 y2`` in pixels of the frame.
        scores: [n] float32, the detector's.
        labels: n texts such as ``white dog``; empty where class names are not known.
    """

    frame_time: NDArray[np.float64]
    frame_size: NDArray[np.int32]
    frame: NDArray[np.int16]
    slot: NDArray[np.int16]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: Sequence[str]

    def without(self, regions: Collection[int]) -> Evidence:
        """The same frames, some regions never seen."""
        kept = [i for i in range(len(self.labels)) if i not in regions]
        parts = {name: getattr(self, name)[kept] for name in ("frame", "slot", "boxes", "scores")}
        return replace(self, **parts, labels=[self.labels[i] for i in kept])


def first_stamp(evidence: Evidence, clip: Clip) -> float:
    """What the container stamps the first frame of a clip's file with, in seconds: 0 but for a few files.

    Those are known by stamps that lie outside of the clip. Of them it is estimated: the frames of a clip lie in the
    middles of its equal parts.
    """
    times = evidence.frame_time
    if not len(times) or (times[0] >= clip.start - STAMP_SLACK and times[-1] <= clip.end + (times[-1] - times[0])):
        return 0.0
    return float(times[0] - clip.start - (clip.end - clip.start) / (2 * len(times)))


@dataclass(frozen=True)
class ClipInput:
    """A clip with what encoders read of it.

    Attributes:
        clip: what it is.
        regions: its regions by each detector, the first first; all have the same frames. None without a detector.
        vocabularies: the class names of each, None where they are not known.
        thumbnail: a small JPEG, or nothing.
        pictures: its frames, the same as those of ``regions``; None where no encoder looks.
        most: the most frames that a clip of this index has, and the most regions (or cells) of a frame.
        grid: rows and columns of the cells that stand for regions.
    """

    clip: Clip
    regions: tuple[VideoRegions, ...]
    vocabularies: tuple[Vocabulary | None, ...]
    thumbnail: bytes = b""
    pictures: Pictures | None = None
    most: tuple[int, int] = (0, 0)
    grid: int = GRID

    @cached_property
    def evidence(self) -> Evidence:
        """All regions, those of the first detector first; without a detector the cells of a grid, row by row."""
        if not self.regions:
            assert self.pictures is not None, "a clip has regions or pictures"
            return _cells(self.pictures, self.grid)
        first = self.regions[0]
        parts = [_flat(regions) for regions in self.regions]
        labels = [
            label
            for regions, vocabulary, (frame, slot) in zip(self.regions, self.vocabularies, parts, strict=True)
            for label in _labels(regions, vocabulary, frame, slot)
        ]
        slots = [slot if number == 0 else np.full_like(slot, -1) for number, (_, slot) in enumerate(parts)]
        chosen = list(zip(self.regions, parts, strict=True))
        return Evidence(
            frame_time=first.frame_time,
            frame_size=first.image_size,
            frame=np.concatenate([frame for frame, _ in parts]).astype(np.int16),
            slot=np.concatenate(slots).astype(np.int16),
            boxes=np.concatenate([regions.boxes[place] for regions, place in chosen]),
            scores=np.concatenate([regions.scores[place] for regions, place in chosen]),
            labels=labels,
        )


def names(evidence: Evidence, least: float) -> dict[str, float]:
    """What a clip shows by name: each label with its weight, the surest first.

    In a frame a name is as sure as its surest region, of any detector; over the frames the squares add up, so that
    what is seen throughout comes before what is seen once.

    Args:
        least: regions with a smaller score do not count.
    """
    best: dict[tuple[int, str], float] = {}
    for frame, score, label in zip(evidence.frame.tolist(), evidence.scores.tolist(), evidence.labels, strict=True):
        if label and score >= least:
            best[frame, label] = max(best.get((frame, label), 0.0), score)
    total: dict[str, float] = {}
    for (_, label), score in best.items():
        total[label] = total.get(label, 0.0) + score**2
    ordered = sorted(total, key=lambda label: (-total[label], label))
    return {label: total[label] ** 0.5 for label in ordered}


def _cells(pictures: Pictures, grid: int) -> Evidence:
    frames, cells = len(pictures.frames), grid * grid
    boxes = [grid_boxes(grid, grid, (int(height), int(width))) for height, width in pictures.frame_size]
    return Evidence(
        frame_time=pictures.frame_time,
        frame_size=pictures.frame_size,
        frame=np.repeat(np.arange(frames, dtype=np.int16), cells),
        slot=np.tile(np.arange(cells, dtype=np.int16), frames),
        boxes=np.concatenate(boxes),
        scores=np.ones(frames * cells, np.float32),
        labels=[""] * (frames * cells),
    )


def grid_boxes(rows: int, columns: int, size: tuple[int, int]) -> NDArray[np.float32]:
    """[rows * columns, 4] float32: the cells of a grid over a frame of (height, width), row by row."""
    height, width = size
    y, x = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    corners = np.stack([x / columns, y / rows, (x + 1) / columns, (y + 1) / rows], -1).reshape(-1, 4)
    boxes: NDArray[np.float32] = (corners * np.array([width, height, width, height])).astype(np.float32)
    return boxes


def _flat(regions: VideoRegions) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    frame, slot = np.nonzero(regions.mask())
    return frame, slot


def _labels(
    regions: VideoRegions, vocabulary: Vocabulary | None, frame: NDArray[np.intp], slot: NDArray[np.intp]
) -> Iterator[str]:
    if vocabulary is None:
        yield from [""] * len(frame)
        return
    classes = regions.class_ids[frame, slot].tolist()
    attributes = np.where(regions.attribute_scores >= ATTRIBUTE_SCORE, regions.attribute_ids, -1)[frame, slot].tolist()
    for of_class, attribute in zip(classes, attributes, strict=True):
        name = vocabulary.object_name(of_class)
        yield f"{vocabulary.attribute_name(attribute)} {name}" if attribute >= 0 else name


class ShardClips:
    """The clips of one or more folders of regions and cached frames: those that all of them hold.

    Args:
        folders: of the same videos, one detector each. videos: where the files lie, if that is known.
        vocabularies: class names by folder, for folders that hold none.
        cached: a folder of frames of the same videos; needed where there are no ``folders``.
        pictures: where frames come from; none are read without.

    Attributes:
        missing: ids that only some of the folders hold.
        most: see :class:`ClipInput`.

    Raises:
        ShardError: a folder is damaged, or no video is in all of them.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        videos: Path | None = None,
        vocabularies: Mapping[Path, Vocabulary] | None = None,
        *,
        cached: FrameReader | None = None,
        pictures: PictureSource | None = None,
    ) -> None:
        assert folders or cached is not None, "clips come from somewhere"
        known = vocabularies or {}
        self._pictures = pictures
        self.folders = list(folders)
        self.readers: list[ShardReader] = [open_shards(folder) for folder in folders]
        self.vocabularies = tuple(read_vocabulary(folder) or known.get(folder) for folder in folders)
        self._root = videos
        held = [reader.video_ids for reader in self.readers] + ([list(cached)] if cached is not None else [])
        ids = [set(one) for one in held]
        shared = set.intersection(*ids)
        self.missing = sorted(set.union(*ids) - shared)
        self.ids = [video_id for video_id in held[0] if video_id in shared]
        if self.missing and not self.ids:
            raise ShardError(
                "no video is in all of the shard folders", "give folders that were made of the same videos"
            )
        if self.missing:
            names = ", ".join(self.missing[:MISSING_EXAMPLES]) + (
                ", ..." if len(self.missing) > MISSING_EXAMPLES else ""
            )
            log.warning("%d videos are not in all shard folders and are left out: %s", len(self.missing), names)
        folder: ShardReader | FrameReader = self.readers[0] if self.readers else cast(FrameReader, cached)
        self._places = {row.video_id: row for row in folder.plan() or () if row.location or row.start}
        self.failures = folder.failures
        self._stamps = _stamps(self.readers, cached)
        self.most = (
            max(self.readers[0].manifest.frames if self.readers else 0, pictures.count if pictures else 0),
            self.readers[0].manifest.regions if self.readers else GRID * GRID,
        )

    def only(self, ids: Iterable[str]) -> Self:
        """The same folders, of which no other videos count; itself."""
        wanted = set(ids)
        self.ids = [video_id for video_id in self.ids if video_id in wanted]
        return self

    def clips(self) -> list[Clip]:
        """All clips, by id. Nothing large is read; the end of a clip that is a whole file is not known yet (-1)."""
        return [self._clip(video_id) for video_id in sorted(self.ids)]

    def inputs(self, clips: Sequence[Clip]) -> Iterator[ClipInput | VideoError]:
        """Some clips, in order, with all that is read of them; an error for one whose frames cannot be read.

        Raises:
            ShardError: a file is damaged, or the folders and videos hold different frames.
        """
        seen = repeat(None) if self._pictures is None else self._pictures.pictures(clips)
        for clip, pictures in zip(clips, seen, strict=False):
            yield pictures if isinstance(pictures, VideoError) else self.read(clip, pictures)

    def read(self, clip: Clip, pictures: Pictures | None = None) -> ClipInput:
        """The clip with its regions; where its end was not known, that of its last frame counts.

        Raises:
            ShardError: its file is damaged, or the folders hold other frames of it.
        """
        regions = tuple(reader[clip.clip_id] for reader in self.readers)
        looked: list[VideoRegions | Pictures] = [*regions, *([pictures] if pictures is not None else [])]
        for other in looked[1:]:
            if not np.array_equal(other.frame_index, looked[0].frame_index):
                raise ShardError(
                    f"the shard folders, or the videos, hold different frames of {clip.clip_id!r}",
                    "extract with the same number of frames and the same decoder, from the videos as they are now",
                )
        return ClipInput(
            ended(clip, looked[0].frame_time), regions, self.vocabularies, pictures=pictures, most=self.most
        )

    def _clip(self, clip_id: str) -> Clip:
        row = self._places.get(clip_id)
        video_id = row.location if row and row.location and row.start is not None else clip_id
        path = "" if self._root is None else str(self._root / (row.location if row and row.location else clip_id))
        if path and not os.path.exists(path):
            path = ""
        start, end = (row.start or 0.0, -1.0 if row.end is None else row.end) if row else (0.0, -1.0)
        return Clip(clip_id, video_id, path, start, end, self._stamps[clip_id])


class VideoClips:
    """Clips that are listed, with their frames and nothing else.

    Args:
        clips: all of them. source: of their frames. grid: see :class:`ClipInput`.

    Attributes:
        most: see :class:`ClipInput`.
    """

    def __init__(self, clips: Sequence[Clip], source: PictureSource, grid: int = GRID) -> None:
        self._clips, self._source, self._grid = list(clips), source, grid
        self.most = (source.count, grid * grid)

    def clips(self) -> list[Clip]:
        """All clips."""
        return self._clips

    def inputs(self, clips: Sequence[Clip]) -> Iterator[ClipInput | VideoError]:
        """Some clips, in order, with their frames; an error for one that has none."""
        for clip, pictures in zip(clips, self._source.pictures(clips), strict=True):
            if isinstance(pictures, VideoError):
                yield pictures
            else:
                known = ended(clip, pictures.frame_time)
                yield ClipInput(known, (), (), pictures=pictures, most=self.most, grid=self._grid)


def ended(clip: Clip, frame_time: NDArray[np.float64]) -> Clip:
    """A clip whose end is known: where it was not, half the usual gap after its last frame; of a picture, its start."""
    if clip.end >= 0:
        return clip
    times = frame_time - frame_time[0]
    length = float(times[-1] + (times[-1] / (len(times) - 1) / 2 if len(times) > 1 else 0.0))
    return replace(clip, end=clip.start + length)


def _stamps(readers: Sequence[ShardReader], cached: FrameReader | None) -> dict[str, str]:
    """For each video, the beginnings of the checksums of what holds it."""
    stamps: dict[str, str] = {}
    for reader in readers:
        for video_id, checksum in zip(reader.video_ids, reader.checksum_of_each(reader.video_ids), strict=True):
            before = f"{stamps[video_id]}+" if video_id in stamps else ""
            stamps[video_id] = before + checksum[:_STAMP]
    for video_id, checksum in cached.checksums().items() if cached is not None else ():
        before = f"{stamps[video_id]}+" if video_id in stamps else ""
        stamps[video_id] = before + checksum[:_STAMP]
    return stamps
