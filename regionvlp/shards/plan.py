"""The plan: which video belongs to which shard, as one Parquet table that stays small at millions of rows.

In: rows in the order of their shards. Out: ``plan.parquet`` and a :class:`PlanTable` over its columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from regionvlp.errors import ShardError
from regionvlp.shards.files import replacing

PLAN_NAME = "plan.parquet"

_SCHEMA = pa.schema(
    [
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("mtime_ns", pa.int64(), nullable=False),
    ]
)
_ROWS_AT_ONCE = 65536


class PlanRow(NamedTuple):
    """One video of the plan: its shard, its id, and size (bytes) and modification time (ns) of its file."""

    shard: int
    video_id: str
    bytes: int
    mtime_ns: int


class PlanTable:
    """The plan in columns: about 60 bytes a video, rows made on demand. Rows of one shard lie together."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self._shard = table.column("shard").to_numpy()

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[PlanRow]:
        for batch in self._table.to_batches(max_chunksize=_ROWS_AT_ONCE):
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

    def _slice(self, shard: int) -> pa.Table:
        first, last = np.searchsorted(self._shard, [shard, shard + 1])
        return self._table.slice(first, last - first)


def write_plan(folder: Path, rows: Iterable[PlanRow]) -> None:
    """Writes (or replaces) the plan of a folder, whole or not at all; ``rows`` is consumed piece by piece.

    Args:
        folder: the shard folder.
        rows: ascending by shard.
    """
    rows = iter(rows)
    last = -1
    with (
        replacing(folder / PLAN_NAME) as temporary,
        pq.ParquetWriter(temporary, _SCHEMA, compression="zstd", write_page_checksum=True) as writer,
    ):
        while piece := list(islice(rows, _ROWS_AT_ONCE)):
            values = zip(*piece, strict=True)
            columns = [pa.array(column, field.type) for column, field in zip(values, _SCHEMA, strict=True)]
            shards = columns[0].to_numpy()
            assert (np.diff(shards, prepend=last) >= 0).all(), "plan rows must be ascending by shard"
            last = shards[-1]
            writer.write_table(pa.Table.from_arrays(columns, schema=_SCHEMA))


def read_plan(folder: Path) -> PlanTable | None:
    """Reads the plan of a folder, checksums included; None where the folder has no plan (an imported set).

    Raises:
        ShardError: the plan is damaged.
    """
    path = folder / PLAN_NAME
    if not path.exists():
        return None
    try:
        table = pq.ParquetFile(path, page_checksum_verification=True).read()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ShardError(f"{path} is damaged: {error}", "restore the file") from None
    if not table.schema.equals(_SCHEMA):
        raise ShardError(f"{path} is not a plan: its columns differ", "restore the file")
    return PlanTable(table)
