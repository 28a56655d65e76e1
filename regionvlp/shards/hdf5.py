"""Shards as HDF5: plain data sets that any HDF5 reader opens.

=============== ================== =======================================================================
``video_id``    [N] UTF-8          ids
``num_frames``  [N] int32          frames of each video; slots past it were never written and read as zeros
``features``    [N, S, R, C]       one unfiltered chunk per frame
small columns   [N, S, ...]        one unfiltered chunk per video, see :mod:`regionvlp.shards.schema`
=============== ================== =======================================================================

The attribute ``manifest`` of the file holds the manifest as JSON; no time stamps, so the same input gives the same
bytes. Chunks of one frame without a filter: gzip was measured 40 times slower to read at random for 19 % less space,
and automatic chunks 20 times slower for none. The chunks of a video are written one after the other, so that they lie
together: a frame is two places on the disk.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from regionvlp.shards.formats import Layout, check_embedded, unreadable
from regionvlp.shards.manifest import Manifest
from regionvlp.shards.schema import Column
from regionvlp.store.sink import Sink

_GROWTH = 64  # rows that the data sets grow by


class Hdf5Writer:
    """See :class:`regionvlp.shards.formats.DataWriter`. Holds the ids and one video at a time."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self._slots, self._columns = manifest.frames, manifest.column.values()
        self._small, self._features = manifest.small_columns, manifest.features
        self._ids: list[str] = []
        self._lengths: list[int] = []
        self._sink = Sink(path)
        # Newer than the oldest that HDF5 can write: its index of chunks is a third of the size and quicker to fill.
        self._file = h5py.File(path, "w", driver="fileobj", fileobj=self._sink, libver=("v110", "v110"))
        self._file.attrs["manifest"] = json.dumps(manifest.as_dict())
        self._data = {column.name: self._create(column) for column in self._columns}

    def _create(self, column: Column) -> Any:
        data = self._file.create_dataset(
            column.name,
            shape=(0, self._slots, *column.shape),
            maxshape=(None, self._slots, *column.shape),
            dtype=column.dtype,
            chunks=(1, 1 if column.name == "features" else self._slots, *column.shape),
        )
        data.attrs["about"] = column.about
        return data.id

    def add(self, video_id: str, columns: Mapping[str, NDArray[Any]]) -> None:
        row, frames = len(self._ids), len(columns["features"])
        with self._reporting():
            for column in self._small:
                values = columns[column.name]
                if frames < self._slots:
                    values = np.concatenate([values, np.zeros((self._slots - frames, *column.shape), column.dtype)])
                self._write(column, row, 0, values)
            for slot, frame in enumerate(columns["features"]):
                self._write(self._features, row, slot, frame)
        self._ids.append(video_id)
        self._lengths.append(frames)

    def _write(self, column: Column, row: int, slot: int, values: NDArray[Any]) -> None:
        data = self._data[column.name]
        if slot == 0 and row % _GROWTH == 0:
            data.set_extent((row + _GROWTH, self._slots, *column.shape))
        data.write_direct_chunk((row, slot, *(0 for _ in column.shape)), values)

    def close(self) -> None:
        with self._reporting():
            for column in self._columns:
                self._data[column.name].set_extent((len(self._ids), self._slots, *column.shape))
            self._file.create_dataset("video_id", data=self._ids, dtype=h5py.string_dtype())
            self._file.create_dataset("num_frames", data=np.array(self._lengths, "<i4"))
            self._file.close()
            self._sink.close()

    def abort(self) -> None:
        self._sink.drop()
        with suppress(OSError, RuntimeError):
            self._file.close()
        self._sink.close()

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        """Raises what the sink kept from HDF5, before anything that HDF5 may have stumbled over since."""
        try:
            yield
        except (OSError, RuntimeError) as error:
            self._sink.raise_error()
            raise OSError(str(error)) from error
        self._sink.raise_error()


open_writer = Hdf5Writer


def read_ids(path: Path, manifest: Manifest) -> list[str]:
    """See :class:`regionvlp.shards.formats.Format`."""
    with _reading(path, manifest) as file:
        ids: list[str] = file["video_id"].asstr()[:].tolist()
        return ids


def read_manifest(path: Path) -> dict[str, Any]:
    """See :class:`regionvlp.shards.formats.Format`."""
    with h5py.File(path, "r", locking=False) as file:
        values: dict[str, Any] = json.loads(file.attrs["manifest"])
        return values


def read_layout(path: Path, manifest: Manifest) -> Layout:
    """See :class:`regionvlp.shards.formats.Format`."""
    with _reading(path, manifest) as file:
        rows, slots = len(file["video_id"]), manifest.frames
        columns = {column.name: _offsets(path, file, column, (rows, slots), 1) for column in manifest.small_columns}
        features = _offsets(path, file, manifest.features, (rows, slots), slots)
        num_frames = file["num_frames"][:]
    starts = {name: offsets[:, 0] for name, offsets in columns.items()}
    if any((start < 0).any() for start in starts.values()):
        raise unreadable(path, "a column has no place for some videos")
    return Layout(num_frames, starts, features).check(path)


def _offsets(path: Path, file: Any, column: Column, size: tuple[int, int], chunks: int) -> NDArray[np.int64]:
    """[N, chunks] byte offsets of a column's chunks, of which a row has so many; -1 where one was never written."""
    data, (rows, slots) = file[column.name], size
    if (
        data.shape != (rows, slots, *column.shape)
        or data.dtype != column.dtype
        or data.id.get_create_plist().get_nfilters()
    ):
        raise unreadable(path, f"'{column.name}' is not stored as the schema says")
    start, row_bytes = data.id.get_offset(), slots * column.frame_bytes
    if start is not None and chunks == 1:  # the small columns of the first versions were contiguous
        return np.int64(start) + np.arange(rows, dtype=np.int64)[:, None] * row_bytes
    offsets = np.full((rows, chunks), -1, np.int64)

    def note(chunk: Any) -> None:
        if chunk.size == row_bytes // chunks:
            offsets[chunk.chunk_offset[0], chunk.chunk_offset[1] * chunks // slots] = chunk.byte_offset

    data.id.chunk_iter(note)
    return offsets


@contextmanager
def _reading(path: Path, manifest: Manifest) -> Iterator[Any]:
    """An open file that was written under ``manifest``; what h5py raises at a damaged one becomes a ShardError."""
    try:
        # The file never changes once it has its name, and locks fail on some network file systems.
        with h5py.File(path, "r", locking=False) as file:
            check_embedded(path, manifest, json.loads(file.attrs["manifest"]))
            yield file
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise unreadable(path, error) from error
