"""Reads shards: a mapping from video id to :class:`VideoRegions`, for any number of processes and threads.

In: a shard folder. Out: videos, or single frames of them. Only shards that have a receipt exist.

What is kept between reads is numbers (where each frame lies) and a few plain file descriptors that are only ever read
at explicit offsets. Neither minds a fork, and pickling leaves the descriptors out, so a reader made before the workers
of a loader start works in each of them, forked or spawned.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from regionvlp.errors import InputError, ShardError, nearest
from regionvlp.regions import VideoRegions
from regionvlp.shards.batch import RegionBatch
from regionvlp.shards.codec import check_counts, dequantise, video_regions
from regionvlp.shards.datafile import DataFile
from regionvlp.shards.formats import Layout, format_of
from regionvlp.shards.index import VideoIndex, build_index
from regionvlp.shards.schema import SCALE
from regionvlp.store.manifest import Manifest
from regionvlp.store.plan import PlanTable, read_plan
from regionvlp.store.receipts import Failure, read_receipts

_BATCH = {"features", SCALE, "boxes", "scores", "num_regions", "image_size"}


class UnknownVideoError(ShardError, KeyError):
    """A video id that the shards do not hold."""


class ShardReader(Mapping[str, VideoRegions]):
    """The videos of a shard folder. Made by :func:`open_shards`.

    Args:
        folder: the shard folder.
        max_open_files: data files kept open at a time in one process.
        shards: read only these; all by default.

    Attributes:
        manifest: what all shards have in common.
        failures: videos that have no rows, and why, in the order of their shards.
    """

    def __init__(self, folder: Path, max_open_files: int = 64, shards: Iterable[int] | None = None) -> None:
        assert max_open_files >= 1, "a reader needs a file to read from"
        self.manifest = Manifest.read(folder)
        self.failures: list[Failure] = []
        self._folder = folder
        self._max_open_files = max_open_files
        self._data: dict[int, str] = {}  # shard -> name of its data file
        for receipt in read_receipts(folder, shards):
            self.failures += receipt.failures
            if receipt.file is not None:
                self._data[receipt.shard] = receipt.file
        self._layouts: dict[int, Layout] = {}
        self._files: dict[int, DataFile] = {}

    @cached_property
    def video_ids(self) -> list[str]:
        """All ids, in the order of shards and rows."""
        return list(self._index)

    def __len__(self) -> int:
        return len(self._index)

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __contains__(self, video_id: object) -> bool:
        return isinstance(video_id, str) and self._index.find(video_id) is not None

    def __getitem__(self, video_id: str) -> VideoRegions:
        """Reads one video, as it was written; features of uint8 shards come as float32.

        Raises:
            UnknownVideoError: (a KeyError) no shard holds it. ShardError: its file is damaged or gone.
        """
        shard, row = self._find(video_id)
        frames = int(self._layout(shard).num_frames[row])
        return self._read(video_id, shard, row, 0, frames)

    def frame(self, video_id: str, slot: int) -> VideoRegions:
        """Reads frame ``slot`` of a video and nothing else, as a video of F = 1.

        Raises:
            IndexError: the video has no such frame. Otherwise as for a whole video.
        """
        shard, row = self._find(video_id)
        frames = int(self._layout(shard).num_frames[row])
        if not 0 <= slot < frames:
            raise IndexError(f"frame {slot} of {video_id!r}, which has {frames}")
        return self._read(video_id, shard, row, slot, slot + 1)

    def read(self, video_ids: Sequence[str], slots: ArrayLike) -> RegionBatch:
        """Reads F frames of each of B videos, file by file, neighbours in a file together.

        Args:
            video_ids: B ids; one may stand there more than once.
            slots: [B, F] integers, the frame slots of each video; or [F], the same for all.

        Raises:
            UnknownVideoError: (a KeyError) no shard holds a video. IndexError: a video has no such frame.
            ShardError: a file is damaged or gone.
        """
        ids = list(video_ids)
        wanted = np.asarray(slots, np.int64)
        assert wanted.ndim in (1, 2), "slots are [F] or [B, F]"
        wanted = np.broadcast_to(wanted, (len(ids), *wanted.shape[-1:]))
        places = np.array([self._find(video_id) for video_id in ids], np.int64).reshape(-1, 2)
        size = wanted.size
        columns = [column for name, column in self.manifest.column.items() if name in _BATCH]
        stored = {column.name: np.empty((size, *column.shape), column.dtype) for column in columns}
        for shard in np.unique(places[:, 0]).tolist():
            mine = np.flatnonzero(places[:, 0] == shard)
            rows, layout = places[mine, 1], self._layout(shard)
            bad = (wanted[mine] < 0) | (wanted[mine] >= layout.num_frames[rows, None])
            if bad.any():
                video, frame = np.argwhere(bad)[0]
                at = mine[video]
                raise IndexError(
                    f"frame {wanted[at, frame]} of {ids[at]!r}, which has {layout.num_frames[rows[video]]}"
                )
            each = np.arange(size).reshape(wanted.shape)[mine].ravel()
            rows = np.repeat(rows, wanted.shape[1])
            self._file(shard).read_frames(rows, wanted[mine].ravel(), stored, each.tolist())
        return self._unpacked(ids, stored, wanted.shape)

    def _unpacked(self, ids: list[str], stored: dict[str, NDArray[Any]], shape: tuple[int, ...]) -> RegionBatch:
        scale = stored.pop(SCALE, None)
        if scale is not None:
            stored["features"] = dequantise(stored["features"], scale)
        fields = {name: values.reshape(*shape, *values.shape[1:]) for name, values in stored.items()}
        check_counts(ids, fields["num_regions"], self.manifest)
        return RegionBatch(ids, **fields)

    def _read(self, video_id: str, shard: int, row: int, first: int, stop: int) -> VideoRegions:
        return video_regions(video_id, self._file(shard).read_video(row, first, stop), self.manifest)

    def num_frames(self, video_id: str) -> int:
        """F of a video, without reading it."""
        shard, row = self._find(video_id)
        return int(self._layout(shard).num_frames[row])

    def plan(self) -> PlanTable | None:
        """The plan of the folder; None where it has none."""
        return read_plan(self._folder)

    def close(self) -> None:
        """Closes the files; a later read opens them again."""
        self._files.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "_files": {}, "_layouts": {}}
        state.pop("video_ids", None)
        return state

    def __repr__(self) -> str:
        m = self.manifest
        size = f"[{m.frames}, {m.regions}, {m.feature_width}]"
        return f"<ShardReader {str(self._folder)!r}: {len(self._data)} shards, {m.format}, {m.dtype} {size} a video>"

    @cached_property
    def _index(self) -> VideoIndex:
        ids = format_of(self.manifest).read_ids
        index = build_index((shard, ids(self._path(shard), self.manifest)) for shard in self._data)
        for video_id, first, second in index.duplicates():
            raise ShardError(
                f"{video_id!r} is in shard {first} and in shard {second} of {self._folder}",
                f"run: regionvlp shards verify '{self._folder}'",
            )
        return index

    def _find(self, video_id: str) -> tuple[int, int]:
        place = self._index.find(video_id)
        if place is None:
            raise UnknownVideoError(f"{self._folder} holds no video {video_id!r}", self._hint(video_id))
        return place

    def _hint(self, video_id: str) -> str:
        failed = next((failure for failure in self.failures if failure.video_id == video_id), None)
        if failed:
            return f"its extraction failed: {failed.reason}"
        # Comparing with each of a million ids would take longer than the whole run.
        close = nearest(video_id, self) if len(self) <= 1000 else ""
        return close or "ids are paths below the folder that was extracted, extension included"

    def _path(self, shard: int) -> Path:
        return self._folder / self._data[shard]

    def _layout(self, shard: int) -> Layout:
        layout = self._layouts.get(shard)
        if layout is None:
            layout = format_of(self.manifest).read_layout(self._path(shard), self.manifest)
            self._layouts[shard] = layout
        return layout

    def _file(self, shard: int) -> DataFile:
        # The least recently used file is let go, not closed: a thread that is just reading from it still holds it.
        file = self._files.pop(shard, None) or DataFile(self._path(shard), self.manifest, self._layout(shard))
        self._files[shard] = file
        for idle in list(self._files)[: -self._max_open_files]:
            self._files.pop(idle, None)
        return file


def open_shards(path: str | os.PathLike[str], *, max_open_files: int = 64) -> ShardReader:
    """Opens a shard folder for reading.

    Args:
        path: the folder.
        max_open_files: data files kept open at a time in each process that reads.

    Raises:
        InputError: there is no such folder. ShardError: it is not a shard folder, or a receipt is damaged.
    """
    folder = Path(path).absolute()
    if not folder.is_dir():
        raise InputError(f"no shard folder at {path}", "check the path")
    return ShardReader(folder, max_open_files)
