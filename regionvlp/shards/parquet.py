"""Shards as Parquet: one row and one row group per video, everything uncompressed, that any Parquet reader opens.

=================== ================ ==========================================================================
``video_id``        string           id
``num_frames``      int32            F
small columns       list of numbers  the values of F frames in a row; ``boxes`` has F * R * 4, ``scores`` F * R
``features_0`` ...  binary           R * C little-endian numbers of that frame; null past the video's last frame
=================== ================ ==========================================================================

The schema's metadata holds the manifest (key ``manifest``) and dtype, shape of one frame, and meaning of each column
(key ``columns``), both as JSON. One page a column and row group, and plain encoding, put the values at the very end of
each column's bytes: that is how :func:`read_layout` finds them, and why a single frame can be read without decoding.
Lists of features, row groups of many videos and zstd were measured 3 to 19 times slower.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from regionvlp.shards.formats import Layout, check_embedded, unreadable
from regionvlp.shards.manifest import Manifest
from regionvlp.shards.schema import Column
from regionvlp.store.sink import Sink

# Larger than any column of one video, so that a column is never split into pages.
_PAGE_BYTES = 2**30


class ParquetWriter:
    """See :class:`regionvlp.shards.formats.DataWriter`. Holds one video at a time."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self._manifest = manifest
        self._schema = _schema(manifest)
        self._kinds = [_list_of(column) for column in manifest.small_columns]
        self._sink = Sink(path)
        self._writer = pq.ParquetWriter(
            self._sink,
            self._schema,
            compression="none",
            use_dictionary=False,
            write_statistics=False,
            data_page_size=_PAGE_BYTES,
        )

    def add(self, video_id: str, columns: Mapping[str, NDArray[Any]]) -> None:
        features = columns["features"]
        arrays = [pa.array([video_id], pa.string()), pa.array([len(features)], pa.int32())]
        # Arrow's arrays are made around the memory as it lies: the ways that look at the values take longer than
        # writing them.
        for column, kind in zip(self._manifest.small_columns, self._kinds, strict=True):
            values = columns[column.name]
            inner = pa.Array.from_buffers(kind.value_type, values.size, [None, pa.py_buffer(values)])
            arrays.append(pa.Array.from_buffers(kind, 1, [None, _ends(values.size)], children=[inner]))
        ends = _ends(self._manifest.features.frame_bytes)
        for frame in features:
            arrays.append(pa.Array.from_buffers(pa.binary(), 1, [None, ends, pa.py_buffer(frame)]))
        arrays += [pa.nulls(1, pa.binary())] * (self._manifest.frames - len(features))
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema), row_group_size=1)
        self._sink.raise_error()

    def close(self) -> None:
        self._writer.close()
        self._sink.close()
        self._sink.raise_error()

    def abort(self) -> None:
        self._sink.drop()
        with suppress(OSError, pa.ArrowException):
            self._writer.close()
        self._sink.close()


open_writer = ParquetWriter


def read_ids(path: Path, manifest: Manifest) -> list[str]:
    """See :class:`regionvlp.shards.formats.Format`."""
    with _reading(path, manifest) as file:
        ids: list[str] = file.read(columns=["video_id"], use_threads=False).column(0).to_pylist()
        return ids


def read_manifest(path: Path) -> dict[str, Any]:
    """See :class:`regionvlp.shards.formats.Format`."""
    values: dict[str, Any] = json.loads(pq.read_schema(path).metadata[b"manifest"])
    return values


def read_layout(path: Path, manifest: Manifest) -> Layout:
    """See :class:`regionvlp.shards.formats.Format`."""
    with _reading(path, manifest) as file:
        num_frames = file.read(columns=["num_frames"], use_threads=False).column(0).to_numpy()
        small, slots = manifest.small_columns, manifest.frames
        ends = _column_ends(path, file.metadata, skip=2, columns=len(small) + slots)
        columns = {
            column.name: ends[:, place] - num_frames * np.int64(column.frame_bytes)
            for place, column in enumerate(small)
        }
        features = ends[:, len(small) :] - manifest.features.frame_bytes
        features[np.arange(slots) >= num_frames[:, None]] = -1
        return Layout(num_frames, columns, features).check(path)


def _column_ends(path: Path, metadata: Any, skip: int, columns: int) -> NDArray[np.int64]:
    """[N, columns] int64: where the bytes of each column of each row group end, the first ``skip`` columns left out."""
    ends = np.empty((metadata.num_row_groups, columns), np.int64)
    if metadata.num_rows != metadata.num_row_groups:
        raise unreadable(path, "it does not have one row group per video")
    for row in range(metadata.num_row_groups):
        group = metadata.row_group(row)
        for place in range(columns):
            chunk = group.column(skip + place)
            ends[row, place] = chunk.data_page_offset + chunk.total_compressed_size
    return ends


def _schema(manifest: Manifest) -> pa.Schema:
    frame_columns = [(f"features_{slot}", manifest.features) for slot in range(manifest.frames)]
    described = {
        name: {"dtype": column.dtype.name, "shape": list(column.shape), "about": column.about}
        for name, column in [(column.name, column) for column in manifest.small_columns] + frame_columns
    }
    fields = [pa.field("video_id", pa.string(), nullable=False), pa.field("num_frames", pa.int32(), nullable=False)]
    fields += [pa.field(column.name, _list_of(column), nullable=False) for column in manifest.small_columns]
    fields += [pa.field(name, pa.binary()) for name, _ in frame_columns]
    return pa.schema(fields, metadata={"manifest": json.dumps(manifest.as_dict()), "columns": json.dumps(described)})


def _ends(size: int) -> pa.Buffer:
    """The offsets of one list, or one piece of bytes, of ``size`` elements."""
    return pa.py_buffer(np.array([0, size], np.int32))


def _list_of(column: Column) -> pa.DataType:
    return pa.list_(pa.field("element", pa.from_numpy_dtype(column.dtype), nullable=False))


@contextmanager
def _reading(path: Path, manifest: Manifest) -> Iterator[Any]:
    """An open file that was written under ``manifest``; what Arrow raises at a damaged one becomes a ShardError."""
    try:
        # Without read-ahead: what is wanted of each row group is a few bytes.
        with pa.OSFile(str(path)) as source, pq.ParquetFile(source, pre_buffer=False) as file:
            metadata = file.schema_arrow.metadata or {}
            check_embedded(path, manifest, json.loads(metadata[b"manifest"]))
            if not file.schema_arrow.equals(_schema(manifest)):
                raise unreadable(path, "its columns are not stored as the schema says")
            yield file
    except (OSError, LookupError, ValueError, TypeError, AttributeError, pa.ArrowException) as error:
        raise unreadable(path, error) from error
