"""Reads shards: a mapping from video id to :class:`VideoRegions`, for any number of processes and threads.

In: a shard folder. Out: videos, single frames of them, or frames of many videos at once. Only shards that have a
receipt exist.

What is kept between reads is numbers (where each frame lies, what its checksum is) and a few plain file descriptors
that are only ever read at explicit offsets. Neither minds a fork, and pickling leaves the descriptors out, so a reader
made before the workers of a loader start works in each of them, forked or spawned, and none of them looks into a file
again to find its way.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from regionvlp.errors import InputError, ShardError, nearest
from regionvlp.regions import VideoRegions
from regionvlp.shards.batch import RegionBatch
from regionvlp.shards.codec import bad_counts, dequantise, video_regions
from regionvlp.shards.datafile import Files, LocalFiles, LostFileError, open_file_limit
from regionvlp.shards.frames import DamagedFrameError, FrameReader
from regionvlp.shards.guarded import Guarded
from regionvlp.shards.index import VideoIndex, build_index
from regionvlp.shards.manifest import Manifest
from regionvlp.shards.places import Ids, ShardIndex
from regionvlp.shards.receipts import Receipt, read_receipts
from regionvlp.shards.remote import RemoteFiles, RemoteFolder, is_address
from regionvlp.shards.schema import SCALE
from regionvlp.shards.staging import Staging
from regionvlp.shards.table import FrameTable
from regionvlp.store.plan import PlanTable, read_plan
from regionvlp.store.receipts import Failure, receipt_path

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)
_told: set[str] = set()  # folders of which was said that they carry no checksums


class UnknownVideoError(ShardError, KeyError):
    """A video id that the shards do not hold."""


class BatchError(ShardError):
    """Some videos of a batch could not be read.

    Attributes:
        failed: position in the batch -> what is wrong with it.
        batch: the batch; the values of the others are good. None where the error came from another process.
    """

    failed: Mapping[int, ShardError] = {}
    batch: RegionBatch | None = None

    @classmethod
    def of(cls, failed: Mapping[int, ShardError], batch: RegionBatch) -> BatchError:
        """The error of a batch, in the words of the first video that failed."""
        first = failed[min(failed)]
        more = f" (and {len(failed) - 1} more of the batch)" if len(failed) > 1 else ""
        error = cls(first.message + more, first.hint)
        error.failed, error.batch = dict(failed), batch
        return error


class ShardReader(Mapping[str, VideoRegions]):
    """The videos of a shard folder. Made by :func:`open_shards`.

    Videos are numbered from 0 in the order of shards and rows: a loader that asks by number handles no strings.

    Args:
        folder: the shard folder.
        max_open_files: data files kept open at a time in one process; by default as many as its limit suggests.
        shards: read only these; all by default.
        checksums: compare the checksum of every frame that is read; see :attr:`checked`.
        remote: where the data files are if not in ``folder``, which is then looked at once, here.

    Attributes:
        manifest: what all shards have in common.
        failures: videos that have no rows, and why, in the order of their shards.
    """

    def __init__(
        self,
        folder: Path,
        max_open_files: int | None = None,
        shards: Iterable[int] | None = None,
        checksums: bool = True,
        remote: RemoteFolder | None = None,
    ) -> None:
        assert max_open_files is None or max_open_files >= 1, "a reader needs a file to read from"
        self.manifest = Manifest.read(folder)
        self.failures: list[Failure] = []
        self._folder, self._remote = folder, remote
        self._name = remote.address if remote else str(folder)
        self._receipts: list[Receipt] = []  # of the shards that have data, without what is kept elsewhere
        self._table = FrameTable(self.manifest)
        self._ids: list[Ids | None] = []
        self._guarded, self._looking = Guarded(self.manifest), threading.Lock()
        for receipt in read_receipts(folder, shards):
            self.failures += receipt.failures
            if receipt.file is not None:
                self._ids.append(self._noted(receipt))
                self._receipts.append(replace(receipt, index=None, failures=[], partial=[], versions={}, detector={}))
        self._files: Files
        if remote:
            self._files = RemoteFiles(remote, self._receipts)
        else:
            paths = [folder / str(receipt.file) for receipt in self._receipts]
            limit = max_open_files or open_file_limit()
            self._files = LocalFiles(paths, [receipt.bytes for receipt in self._receipts], limit)
        self._frames = FrameReader(self._table, self._files, check=checksums)
        if checksums:
            self._say_what_is_unchecked()

    def _noted(self, receipt: Receipt) -> Ids | None:
        """Notes what a receipt says of the inside of its data file; returns its ids, or None where it says nothing."""
        shard = self._table.add(receipt.videos)
        if receipt.index is None:
            return None
        index = ShardIndex.from_document(receipt.index, self.manifest, f"the receipt of shard {receipt.shard}")
        if len(index.ids) != receipt.videos:
            raise ShardError(f"the receipt of shard {receipt.shard} contradicts itself", verify_hint(self._name))
        self._table.fill(shard, index.places, index.checksums)
        return index.ids

    def _say_what_is_unchecked(self) -> None:
        without = len(self._receipts) - int(self._table.summed.sum())
        if without and self._name not in _told:
            _told.add(self._name)
            log.warning(
                "%d of %d shards in %s carry no checksums, so damage to them is not noticed while reading; "
                "'regionvlp shards convert' gives them some",
                without,
                len(self._receipts),
                self._name,
            )

    @property
    def checked(self) -> float:
        """Share of the shards whose frames have checksums, 0 to 1; 1 where there is no shard."""
        return float(self._table.summed.sum()) / len(self._receipts) if self._receipts else 1.0

    def prepare(self) -> None:
        """Looks up all that a read may need, so that worker processes started from here on find it done.

        Shards whose receipts say where everything lies need nothing; others are opened one by one, once.

        Raises:
            ShardError: a shard is damaged or gone, or a video is in two.
        """
        for place in range(len(self._receipts)):
            self._look_up(place)
        _ = self._index

    @cached_property
    def video_ids(self) -> list[str]:
        """All ids, in the order of shards and rows."""
        return list(self._index)

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __contains__(self, video_id: object) -> bool:
        return isinstance(video_id, str) and self._index.find(video_id) is not None

    def __getitem__(self, video_id: str) -> VideoRegions:
        """Reads one video, as it was written; features of uint8 shards come as float32.

        Raises:
            UnknownVideoError: (a KeyError) no shard holds it. ShardError: its file is damaged or gone.
        """
        row = self._find(video_id)
        return self._read(video_id, row, 0, self._count(row))

    def frame(self, video_id: str, slot: int) -> VideoRegions:
        """Reads frame ``slot`` of a video and nothing else, as a video of F = 1.

        Raises:
            IndexError: the video has no such frame. Otherwise as for a whole video.
        """
        row = self._find(video_id)
        frames = self._count(row)
        if not 0 <= slot < frames:
            raise IndexError(f"frame {slot} of {video_id!r}, which has {frames}")
        return self._read(video_id, row, slot, slot + 1)

    def read(self, video_ids: Sequence[str], slots: ArrayLike, out: RegionBatch | None = None) -> RegionBatch:
        """Reads F frames of each of B videos: :meth:`read_rows` by id.

        Raises:
            UnknownVideoError: (a KeyError) no shard holds a video. Otherwise as :meth:`read_rows`.
        """
        return self.read_rows(self.rows(video_ids), slots, out)

    def rows(self, video_ids: Sequence[str]) -> NDArray[np.int64]:
        """[B] int64, the numbers of B videos.

        Raises:
            UnknownVideoError: (a KeyError) no shard holds one; the first is named.
        """
        rows = self._index.find_all(video_ids)
        if (rows < 0).any():
            raise self._unknown(video_ids[int((rows < 0).argmax())])
        return rows

    def ids_as_arrow(self) -> pa.StringArray:
        """All ids in order, as an Arrow array of strings: for joins of millions."""
        return self._index.as_arrow().cast("string")

    def checksums_of(self, video_ids: Sequence[str]) -> list[str]:
        """The checksums of the data files that hold some videos, in the order of the shards.

        Raises:
            UnknownVideoError: (a KeyError) no shard holds one.
        """
        return [
            str(self._receipts[place].sha256)
            for place in np.unique(self._table.shards_of(self.rows(video_ids))).tolist()
        ]

    def checksum_of_each(self, video_ids: Sequence[str]) -> list[str]:
        """For each of some videos, the checksum of the data file that holds it.

        Raises:
            UnknownVideoError: (a KeyError) no shard holds one.
        """
        return [str(self._receipts[place].sha256) for place in self._table.shards_of(self.rows(video_ids)).tolist()]

    def video_id(self, row: int) -> str:
        """The id of a video by its number."""
        return self._index.id_of(row)

    def num_frames(self, video_id: str) -> int:
        """F of a video, without reading it."""
        return self._count(self._find(video_id))

    def num_frames_of(self, rows: ArrayLike) -> NDArray[np.int64]:
        """[B] int64, F of each of B videos by their numbers."""
        wanted = np.asarray(rows, np.int64)
        self._look_up_of(wanted)
        return self._table.num_frames(wanted)

    def read_rows(self, rows: ArrayLike, slots: ArrayLike, out: RegionBatch | None = None) -> RegionBatch:
        """Reads F frames of each of B videos, file by file, neighbours in a file together.

        Args:
            rows: [B] integers, numbers of the videos; one may stand there more than once.
            slots: [B, F] integers, the frame slots of each video; or [F], the same for all.
            out: a batch of that size to read into; a new one by default.

        Returns:
            The batch; ``out`` where that was given.

        Raises:
            IndexError: no video has such a number, or a video has no such frame. BatchError: videos could not be read.
        """
        wanted, chosen = np.asarray(rows, np.int64), np.asarray(slots, np.int64)
        assert wanted.ndim == 1, "rows are [B]"
        assert chosen.ndim in (1, 2), "slots are [F] or [B, F]"
        chosen = np.broadcast_to(chosen, (len(wanted), *chosen.shape[-1:]))
        if ((wanted < 0) | (wanted >= len(self))).any():
            raise IndexError(f"rows {wanted.min()} to {wanted.max()}, and there are {len(self)}")
        self._look_up_of(wanted)
        counts = self._table.num_frames(wanted)
        bad = (chosen < 0) | (chosen >= counts[:, None])
        if bad.any():
            at, frame = np.argwhere(bad)[0]
            raise IndexError(f"frame {chosen[at, frame]} of {self.video_id(wanted[at])!r}, which has {counts[at]}")
        batch = RegionBatch.empty(self.manifest, *chosen.shape)
        if out is not None:
            assert out.fits(batch), "a batch to read into must have the size of what is read"
            batch = out
        batch.rows[...] = wanted
        failed = self._fill(batch, chosen)
        if failed:
            raise BatchError.of({at: self._named(error, wanted[at]) for at, error in failed.items()}, batch)
        return batch

    def read_columns(self, names: Iterable[str], rows: ArrayLike, slots: ArrayLike) -> dict[str, NDArray[Any]]:
        """Some small columns (see :attr:`.ShardSpec.small_columns`) of F frames of each of B videos.

        The features are not read, and so nothing is checked.

        Args:
            names: of the columns.
            rows: [B], numbers of the videos.
            slots: [B, F], frames that they have.

        Returns:
            name -> [B, F, ...].

        Raises:
            ShardError: a file cannot be read.
        """
        wanted, chosen = np.asarray(rows, np.int64), np.asarray(slots, np.int64)
        self._look_up_of(wanted)
        columns = [self.manifest.column[name] for name in names]
        into = {column.name: np.empty((*chosen.shape, *column.shape), column.dtype) for column in columns}
        for error in self._frames.frames(wanted, chosen, into).values():
            raise error
        return into

    def _fill(self, batch: RegionBatch, slots: NDArray[np.int64]) -> dict[int, ShardError]:
        """Reads what ``batch.rows`` names; returns what is wrong with some of its videos."""
        into: dict[str, NDArray[Any]] = {name: values for name, values in vars(batch).items() if name != "rows"}
        if self.manifest.dtype == "uint8":
            into["features"] = np.empty(batch.features.shape, np.uint8)
            into[SCALE] = np.empty(batch.scores.shape, np.float32)
        failed = self._frames.frames(batch.rows, slots, into)
        if self.manifest.dtype == "uint8":
            with np.errstate(over="ignore", invalid="ignore"):  # what is damaged may be any number
                dequantise(into["features"], into[SCALE], out=batch.features)
        for at in np.flatnonzero(bad_counts(batch.num_regions, self.manifest)).tolist():
            failed.setdefault(at, DamagedFrameError("num_regions is out of range", ""))
        return failed

    def _read(self, video_id: str, row: int, first: int, stop: int) -> VideoRegions:
        try:
            columns = self._frames.video(row, first, stop)
        except ShardError as error:
            raise self._named(error, row) from None
        return video_regions(video_id, columns, self.manifest)

    def _named(self, error: ShardError, row: int) -> ShardError:
        """An error of a row, with all that can be said about it."""
        place = self._table.shard_of(row)
        file = self._receipts[place].file
        if isinstance(error, DamagedFrameError):
            message = f"{self.video_id(row)!r} in {self._name}/{file}: {error.message}"
            return DamagedFrameError(message, verify_hint(self._name))
        if self._remote is None:
            with suppress(ShardError):
                if Receipt.read(receipt_path(self._folder, self._receipts[place].shard)).file != file:
                    message = f"{self._name}/{file} was replaced since these shards were opened"
                    return LostFileError(message, "open the shards again")
        return error

    def plan(self) -> PlanTable | None:
        """The plan of the folder; None where it has none."""
        return self._remote.plan() if self._remote else read_plan(self._folder)

    def close(self) -> None:
        """Closes the files; a later read opens them again."""
        self._files.close()
        self._guarded.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        state.pop("video_ids", None)
        del state["_looking"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _looking=threading.Lock())

    def __repr__(self) -> str:
        m = self.manifest
        size = f"[{m.frames}, {m.regions}, {m.feature_width}]"
        return f"<ShardReader {self._name!r}: {len(self._receipts)} shards, {m.format}, {m.dtype} {size} a video>"

    @cached_property
    def _index(self) -> VideoIndex:
        index = build_index((receipt.shard, self._ids_of(place)) for place, receipt in enumerate(self._receipts))
        for video_id, first, second in index.duplicates():
            raise ShardError(
                f"{video_id!r} is in shard {first} and in shard {second} of {self._name}", verify_hint(self._name)
            )
        self._ids = [None] * len(self._ids)  # the index holds them now
        self._guarded.close()
        return index

    def _ids_of(self, place: int) -> Ids:
        self._look_up(place)
        ids = self._ids[place]
        assert ids is not None
        return ids

    @contextmanager
    def _local(self, place: int) -> Iterator[Path]:
        """The data file of the ``place``-th shard, for a library to read."""
        receipt = self._receipts[place]
        if self._remote is None:
            yield self._folder / str(receipt.file)
        else:
            with self._remote.local(receipt) as path:
                yield path

    def _find(self, video_id: str) -> int:
        row = self._index.find(video_id)
        if row is None:
            raise self._unknown(video_id)
        return row

    def _unknown(self, video_id: str) -> UnknownVideoError:
        return UnknownVideoError(f"{self._name} holds no video {video_id!r}", self._hint(video_id))

    def _hint(self, video_id: str) -> str:
        failed = next((failure for failure in self.failures if failure.video_id == video_id), None)
        if failed:
            return f"its extraction failed: {failed.reason}"
        # Comparing with each of a million ids would take longer than the whole run.
        close = nearest(video_id, self) if len(self) <= 1000 else ""
        return close or "ids are paths below the folder that was extracted, extension included"

    def _count(self, row: int) -> int:
        """F of a video by its number."""
        self._look_up(self._table.shard_of(row))
        return self._table.pattern_of(self._table.pattern.item(row)).frames

    def _look_up_of(self, rows: NDArray[np.int64]) -> None:
        if self._table.filled.sum() < len(self._receipts):
            for place in np.unique(self._table.shards_of(rows)).tolist():
                self._look_up(place)

    def _look_up(self, place: int) -> None:
        """Has the table know where everything lies in the ``place``-th shard."""
        if self._table.filled[place]:
            return
        receipt = self._receipts[place]
        with self._looking, self._local(place) as path:
            index = self._guarded.look_into(path)
            if len(index.ids) != receipt.videos:
                message = f"{self._name}/{receipt.file} is damaged: {len(index.ids)} videos"
                raise ShardError(f"{message}, the receipt says {receipt.videos}", verify_hint(self._name))
            self._table.fill(place, index.places, None)
            self._ids[place] = index.ids


def verify_hint(folder: str) -> str:
    """What helps where a shard is not what it should be."""
    return f"run: regionvlp shards verify '{folder}'"


def read_manifest(path: str | os.PathLike[str]) -> Manifest:
    """The manifest of a shard folder, or of one at an address; errors as :func:`open_shards`."""
    if not is_address(path):
        return Manifest.read(Path(path))
    with RemoteFolder(str(path)).described() as described:
        return Manifest.read(described)


def open_shards(
    path: str | os.PathLike[str],
    *,
    max_open_files: int | None = None,
    checksums: bool = True,
    staging: str | os.PathLike[str] | None = None,
    staging_bytes: int = 100 << 30,
) -> ShardReader:
    """Opens a shard folder for reading.

    Args:
        path: the folder; or its address on another file system, such as ``s3://bucket/shards``.
        max_open_files: data files kept open at a time in each process that reads; by default a quarter of what the
            process may open.
        checksums: compare the checksum of every frame that is read. Shards of version 0.1 carry none, which is said
            once; of those, numbers that are not finite are refused.
        staging: a local folder that takes copies of the data files of an address, whole and checked, as they are first
            read. Without it they are read by range. Several processes may share it.
        staging_bytes: how much it may hold; what was used longest ago makes room.

    Raises:
        InputError: there is no such folder, or nothing can open such an address. ShardError: it is not a shard folder,
            or a receipt is damaged.
    """
    if is_address(path):
        room = Staging(Path(staging).absolute(), staging_bytes) if staging is not None else None
        remote = RemoteFolder(str(path), room)
        with remote.described() as described:
            return ShardReader(described, checksums=checksums, remote=remote)
    if staging is not None:
        raise InputError(f"{path} is on this machine already", "give a staging folder with an address only")
    folder = Path(str(path).removeprefix("file://")).absolute()
    if not folder.is_dir():
        raise InputError(f"no shard folder at {path}", "check the path")
    return ShardReader(folder, max_open_files, checksums=checksums)
