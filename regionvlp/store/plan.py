"""The plan: which video belongs to which shard, as one Parquet table that stays small at millions of rows.

In: rows in the order of their shards. Out: ``plan.parquet`` and a :class:`PlanTable` over its columns. A row says all
that a worker needs to find its video below the root of the source, so that workers on other machines list nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from regionvlp.errors import ShardError
from regionvlp.store.files import replacing
from regionvlp.store.sink import new_file

PLAN_NAME = "plan.parquet"
UNKNOWN = -1  # bytes or time of change of a file that nobody looked at yet: a list of millions is planned unopened

VIDEO_SCHEMA = pa.schema(
    [
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("mtime_ns", pa.int64(), nullable=False),
        # Null in most rows; a column that is null in all of them is not written.
        pa.field("location", pa.string()),
        pa.field("member", pa.string()),
        pa.field("offset", pa.int64()),
        pa.field("start", pa.float64()),
        pa.field("end", pa.float64()),
    ]
)
_SCHEMA = pa.schema([pa.field("shard", pa.int32(), nullable=False), *VIDEO_SCHEMA])
_ROWS_AT_ONCE = 65536
_DIGEST_KEY = b"regionvlp.sha256"
_NO_DIGEST = b"0" * 64  # SHA-256 in hexadecimal digits


class PlanRow(NamedTuple):
    """One video of the plan.

    Attributes:
        shard: its shard.
        video_id: its id.
        bytes: size of its file (or member of a tar); :data:`UNKNOWN` where nobody looked.
        mtime_ns: modification time of the file in ns; :data:`UNKNOWN` where nobody looked.
        location: its file, relative to the root of the source, absolute, or a URL; None: the id is the location.
        member: its name in the tar that ``location`` names.
        offset: where its bytes begin in that tar.
        start, end: the stretch of the file that is this video, in seconds from its first frame; None: from its
            beginning, to its end.
    """

    shard: int
    video_id: str
    bytes: int
    mtime_ns: int
    location: str | None = None
    member: str | None = None
    offset: int | None = None
    start: float | None = None
    end: float | None = None


class PlanTable:
    """The plan in columns: tens of bytes a video, rows made on demand. Rows of one shard lie together.

    Args:
        table: the columns of :class:`PlanRow`, ascending by shard.
    """

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self._shard = table.column("shard").to_numpy()

    @classmethod
    def from_rows(cls, rows: Iterable[PlanRow]) -> PlanTable:
        """A plan of rows, ascending by shard."""
        columns = zip(*rows, strict=True)
        arrays = [pa.array(values, field.type) for field, values in zip(_SCHEMA, columns, strict=False)]
        return cls(pa.Table.from_arrays(arrays, schema=_SCHEMA) if arrays else _SCHEMA.empty_table())

    @classmethod
    def from_videos(cls, videos: pa.Table, first_shard: int, shard_size: int) -> PlanTable:
        """Puts videos, given in the columns of :data:`VIDEO_SCHEMA`, into shards of ``shard_size`` in their order."""
        shard = (first_shard + np.arange(len(videos)) // shard_size).astype(np.int32)
        return cls(pa.Table.from_arrays([pa.chunked_array([shard]), *videos.columns], schema=_SCHEMA))

    def followed_by(self, other: PlanTable) -> PlanTable:
        """This plan and then another, whose shards come after."""
        return PlanTable(pa.concat_tables([self.table, other.table]))

    def is_ascending(self) -> bool:
        """Whether the rows of one shard lie together, and the shards in order."""
        return bool((np.diff(self._shard) >= 0).all())

    def repeated_id(self) -> str | None:
        """An id that stands in more than one row, or None."""
        ids = self.table.column("video_id")
        if pc.count_distinct(ids).as_py() == len(ids):
            return None
        counts = pc.value_counts(ids.combine_chunks())
        repeated: str = counts.field("values").filter(pc.greater(counts.field("counts"), 1))[0].as_py()
        return repeated

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[PlanRow]:
        for batch in self.table.to_batches(max_chunksize=_ROWS_AT_ONCE):
            yield from map(PlanRow, *(column.to_pylist() for column in batch.columns))

    def shards(self) -> list[int]:
        """Numbers of the planned shards, ascending."""
        return [int(number) for number in np.unique(self._shard)]

    def rows(self, shard: int) -> list[PlanRow]:
        """The rows of one shard, in order; empty where the plan has no such shard."""
        return list(map(PlanRow, *(column.to_pylist() for column in self._slice(shard).columns)))

    def video_ids(self, shard: int) -> list[str]:
        """The ids of one shard, in order."""
        ids: list[str] = self._slice(shard).column("video_id").to_pylist()
        return ids

    def count(self, shard: int) -> int:
        """How many videos a shard has."""
        return len(self._slice(shard))

    def _slice(self, shard: int) -> pa.Table:
        first, last = np.searchsorted(self._shard, [shard, shard + 1])
        return self.table.slice(first, last - first)


def write_plan(folder: Path, plan: PlanTable | Iterable[PlanRow]) -> None:
    """Writes (or replaces) the plan of a folder, whole or not at all.

    Args:
        folder: the shard folder.
        plan: a plan, or its rows, ascending by shard.
    """
    plan = plan if isinstance(plan, PlanTable) else PlanTable.from_rows(plan)
    assert plan.is_ascending(), "plan rows must be ascending by shard"
    table = plan.table
    used = [field.name for field in _SCHEMA if not field.nullable or table.column(field.name).null_count < len(table)]
    table = table.select(used)
    memory = pa.BufferOutputStream()
    with pq.ParquetWriter(memory, table.schema, compression="zstd", store_schema=False) as writer:
        writer.write_table(table, row_group_size=_ROWS_AT_ONCE)
        writer.add_key_value_metadata({_DIGEST_KEY: _NO_DIGEST})
    content = bytearray(memory.getvalue())
    place, digest = _digest(content)
    content[place : place + len(digest)] = digest
    with replacing(folder / PLAN_NAME) as temporary, new_file(temporary) as sink:
        sink.write(memoryview(content))


def read_plan(folder: Path) -> PlanTable | None:
    """Reads the plan of a folder, checksum included; None where the folder has no plan.

    Raises:
        ShardError: the plan is damaged, or was written by a newer version.
    """
    path = folder / PLAN_NAME
    if not path.exists():
        return None
    try:
        content = path.read_bytes()
        # The first plans had Arrow's schema inside, and checksums of their pages only.
        if b"ARROW:schema" not in content:
            place, digest = _digest(content)
            if content[place : place + len(digest)] != digest:
                raise ValueError("its checksum is not the one inside it")
        file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
        table = file.read().replace_schema_metadata(None)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ShardError(f"{path} is damaged: {error}", "restore the file") from None
    wanted = [field for field in _SCHEMA if not field.nullable or field.name in table.column_names]
    if not table.schema.equals(pa.schema(wanted)):
        raise ShardError(f"{path} is not a plan: its columns differ", "restore the file, or upgrade regionvlp")
    columns = [
        table.column(field.name) if field in wanted else pa.chunked_array([pa.nulls(len(table), field.type)])
        for field in _SCHEMA
    ]
    plan = PlanTable(pa.Table.from_arrays(columns, schema=_SCHEMA))
    if not plan.is_ascending():
        raise ShardError(f"{path} is damaged: its shards are out of order", "restore the file")
    return plan


def _digest(content: bytes | bytearray) -> tuple[int, bytes]:
    """Where in the footer of a plan its checksum stands, and what it has to be: SHA-256 of the file with that blank.

    Parquet's own checksums cover the pages and not the footer. Inside, plan and checksum change at one moment.

    Raises:
        ValueError: the file has no place for it.
    """
    key = content.rfind(_DIGEST_KEY)
    # Between key and value thrift writes the value's field header and length.
    place = key + len(_DIGEST_KEY) + 2
    if key < 0 or place + len(_NO_DIGEST) > len(content):
        raise ValueError("it holds no checksum")
    whole = memoryview(content)
    summed = hashlib.sha256(whole[:place])
    summed.update(_NO_DIGEST)
    summed.update(whole[place + len(_NO_DIGEST) :])
    return place, summed.hexdigest().encode()
