"""Shards as HDF5: plain data sets that any HDF5 reader opens.

=============== ================== =======================================================================
``video_id``    [N] UTF-8          ids
``num_frames``  [N] int32          frames of each video; slots past it were never written and read as zeros
``features``    [N, S, R, C]       one unfiltered chunk per frame, in the file in the order of writing
small columns   [N, S, ...]        contiguous, see :mod:`regionvlp.shards.schema`
=============== ================== =======================================================================

The attribute ``manifest`` of the file holds the manifest as JSON; no time stamps, so the same input gives the same
bytes. Chunks of one frame without a filter: gzip was measured 40 times slower to read at random for 19 % less space,
and automatic chunks 20 times slower for none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from regionvlp.regions import VideoRegions
from regionvlp.shards.formats import Layout, check_embedded, unreadable
from regionvlp.shards.manifest import Manifest
from regionvlp.shards.sink import Sink


class Hdf5Writer:
    """See :class:`regionvlp.shards.formats.DataWriter`. Only the small columns are held in memory."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self._manifest = manifest
        self._ids: list[str] = []
        self._small: list[dict[str, NDArray[Any]]] = []
        self._sink = Sink(path)
        self._file = h5py.File(path, "w", driver="fileobj", fileobj=self._sink)
        self._file.attrs["manifest"] = json.dumps(manifest.as_dict())
        column, slots = manifest.features, manifest.frames
        self._features = self._file.create_dataset(
            "features",
            shape=(0, slots, *column.shape),
            maxshape=(None, slots, *column.shape),
            dtype=column.dtype,
            chunks=(1, 1, *column.shape),
        )
        self._features.attrs["about"] = column.about

    def add(self, regions: VideoRegions) -> None:
        row = len(self._ids)
        with self._reporting():
            self._features.resize(row + 1, axis=0)
            for slot, frame in enumerate(np.ascontiguousarray(regions.features)):
                self._features.id.write_direct_chunk((row, slot, 0, 0), frame)
        self._ids.append(regions.video_id)
        self._small.append(
            {column.name: getattr(regions, column.name).copy() for column in self._manifest.small_columns}
        )

    def close(self) -> None:
        with self._reporting():
            self._write_small()
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

    def _write_small(self) -> None:
        file, rows = self._file, len(self._ids)
        file.create_dataset("video_id", data=self._ids, dtype=h5py.string_dtype())
        lengths = [len(small["frame_index"]) for small in self._small]
        file.create_dataset("num_frames", data=np.array(lengths, "<i4"))
        for column in self._manifest.small_columns:
            values = np.zeros((rows, self._manifest.frames, *column.shape), column.dtype)
            for row, small in enumerate(self._small):
                values[row, : lengths[row]] = small[column.name]
            file.create_dataset(column.name, data=values).attrs["about"] = column.about


open_writer = Hdf5Writer


def read_ids(path: Path, manifest: Manifest) -> list[str]:
    """See :class:`regionvlp.shards.formats.Format`."""
    with _reading(path, manifest) as file:
        ids: list[str] = file["video_id"].asstr()[:].tolist()
        return ids


def read_layout(path: Path, manifest: Manifest) -> Layout:
    """See :class:`regionvlp.shards.formats.Format`."""
    with _reading(path, manifest) as file:
        rows, slots = len(file["video_id"]), manifest.frames
        columns = {}
        for column in manifest.small_columns:
            data = file[column.name]
            start = data.id.get_offset()
            if data.shape != (rows, slots, *column.shape) or data.dtype != column.dtype or start is None:
                raise unreadable(path, f"'{column.name}' is not stored as the schema says")
            columns[column.name] = start + np.arange(rows, dtype=np.int64) * (slots * column.frame_bytes)
        features = np.full((rows, slots), -1, np.int64)
        data = file["features"]
        wanted = manifest.features
        if data.shape != (rows, slots, *wanted.shape) or data.dtype != wanted.dtype:
            raise unreadable(path, "'features' is not stored as the schema says")

        def note(chunk: Any) -> None:
            if chunk.size == wanted.frame_bytes:
                features[chunk.chunk_offset[:2]] = chunk.byte_offset

        data.id.chunk_iter(note)
        return Layout(file["num_frames"][:], columns, features).check(path)


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
