"""Reads cached frames: a mapping from video id to :class:`CachedVideo`.

In: a frame folder. Out: JPEGs with their numbers and times; pictures when they are asked for. Only shards that have a
receipt exist, and every JPEG is compared with its checksum before it is decoded.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image
from xxhash import xxh3_64_intdigest

from regionvlp.errors import InputError, ShardError, nearest
from regionvlp.shards.pictures.format import COLUMNS, FrameManifest, FrameReceipt
from regionvlp.store.plan import PlanTable, read_plan
from regionvlp.store.receipts import Failure, read_receipts_as
from regionvlp.video.decoded import DecodedVideo


@dataclass(frozen=True)
class CachedVideo:
    """The cached frames of one video.

    Attributes:
        video_id: its id.
        frame_index: [F] int64, position of each frame in display order. frame_time: [F] float64, seconds.
        image_size: [F, 2] int32, (height, width) of the frames as decoded; the JPEGs may be smaller.
        jpegs: F JPEGs.
    """

    video_id: str
    frame_index: NDArray[np.int64]
    frame_time: NDArray[np.float64]
    image_size: NDArray[np.int32]
    jpegs: tuple[bytes, ...]

    def frames(self, slots: Iterable[int] | None = None) -> list[NDArray[np.uint8]]:
        """Pictures, uint8 [h, w, 3] RGB, of the size of the JPEGs: all F, or those of some slots."""
        jpegs = self.jpegs if slots is None else [self.jpegs[slot] for slot in slots]
        return [np.array(Image.open(io.BytesIO(jpeg)).convert("RGB")) for jpeg in jpegs]

    def decoded(self) -> DecodedVideo:
        """The same as a reader of videos gives it."""
        count = len(self.jpegs)
        return DecodedVideo(self.frames(), self.frame_index, self.frame_time, count, count, 0, count, "cached")


class FrameReader(Mapping[str, CachedVideo]):
    """The videos of a frame folder; made by :func:`open_frames`. It may be handed to other processes, or forked.

    Args:
        folder: absolute. shards: read only these; all by default.

    Attributes:
        manifest: what all shards have in common. failures: videos without frames, and why.
    """

    def __init__(self, folder: Path, shards: Iterable[int] | None = None) -> None:
        self.folder = folder
        self.manifest = FrameManifest.read(folder)
        self.failures: list[Failure] = []
        self._files: dict[int, str] = {}
        for receipt in read_receipts_as(FrameReceipt, folder, shards):
            self.failures += receipt.failures
            if receipt.file is not None:
                self._files[receipt.shard] = receipt.file

    @cached_property
    def _rows(self) -> dict[str, tuple[int, int]]:
        """Shard and row of each video."""
        rows: dict[str, tuple[int, int]] = {}
        for shard in self._files:
            with self._reading(shard) as file:
                for row, video_id in enumerate(file.read(columns=["video_id"]).column(0).to_pylist()):
                    rows[video_id] = (shard, row)
        return rows

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __contains__(self, video_id: object) -> bool:
        return video_id in self._rows

    def __getitem__(self, video_id: str) -> CachedVideo:
        """Reads one video.

        Raises:
            KeyError: no shard holds it, with the reason where its extraction failed. ShardError: its file is damaged.
        """
        if video_id not in self._rows:
            failed = next((failure.message for failure in self.failures if failure.video_id == video_id), "")
            close = nearest(video_id, self._rows) if len(self._rows) <= 1000 else ""
            raise KeyError(
                f"{self.folder} holds no frames of {video_id!r}" + (f": {failed or close}" if failed or close else "")
            )
        shard, number = self._rows[video_id]
        with self._reading(shard) as file:
            (row,) = file.read_row_group(number).to_pylist()
        bad = [
            i
            for i, pair in enumerate(zip(row["jpeg"], row["checksum"], strict=True))
            if xxh3_64_intdigest(pair[0]) != pair[1]
        ]
        if bad or row["video_id"] != video_id:
            what = f"frame {bad[0]} of {video_id!r} does not match its checksum" if bad else f"it has no {video_id!r}"
            raise self._damaged(shard, what)
        return CachedVideo(
            video_id,
            np.array(row["frame_index"], np.int64),
            np.array(row["frame_time"], np.float64),
            np.array(row["image_size"], np.int32).reshape(-1, 2),
            tuple(row["jpeg"]),
        )

    def checksums(self) -> dict[str, str]:
        """For each video, a checksum of its frames, in hexadecimal digits."""
        found = {}
        for shard in self._files:
            with self._reading(shard) as file:
                for row in file.read(columns=["video_id", "checksum"]).to_pylist():
                    found[row["video_id"]] = f"{xxh3_64_intdigest(np.array(row['checksum'], np.uint64).tobytes()):016x}"
        return found

    def plan(self) -> PlanTable | None:
        """The plan of the folder."""
        return read_plan(self.folder)

    def _reading(self, shard: int) -> Any:
        return _Reading(self, shard)

    def _damaged(self, shard: int, what: object) -> ShardError:
        hint = f"run: regionvlp shards repair '{self.folder}', then the command that made it, again"
        return ShardError(f"{self.folder / self._files[shard]} is damaged: {what}", hint)


class _Reading:
    """An open data file; what Arrow says of a damaged one becomes a ShardError."""

    def __init__(self, reader: FrameReader, shard: int) -> None:
        self._reader, self._shard = reader, shard

    def __enter__(self) -> pq.ParquetFile:
        try:
            self._file = pq.ParquetFile(self._reader.folder / self._reader._files[self._shard])
            if not self._file.schema_arrow.equals(COLUMNS):
                raise self._reader._damaged(self._shard, "its columns are not those of frames")
        except (OSError, pa.ArrowException) as error:
            raise self._reader._damaged(self._shard, error) from None
        return self._file

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._file.close()
        if isinstance(error, OSError | pa.ArrowException | ValueError):
            raise self._reader._damaged(self._shard, error) from None


def open_frames(folder: str | os.PathLike[str]) -> FrameReader:
    """Opens a folder of cached frames.

    Raises:
        InputError: there is no such folder. ShardError: it is none, or a receipt is damaged.
    """
    path = Path(folder).absolute()
    if not path.is_dir():
        raise InputError(f"no frame folder at {folder}", "check the path")
    return FrameReader(path)
