"""The receipt of a shard of regions: what the store notes of every shard, and how many frames and regions there are.

In: what a worker knows when a shard is done. Out: ``shard-00000.json`` and back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from regionvlp.shards.schema import RECEIPT_VERSION
from regionvlp.store.receipts import BaseReceipt, read_receipts_as


@dataclass(frozen=True, kw_only=True)
class Receipt(BaseReceipt):
    """Proof that a shard of regions is done.

    Attributes:
        frames, regions: how many the data file holds.
        detector: identity of the detector, as in the manifest.
        renamed: ids that videos of this shard had before, by those that they have.
        index: ids, places and checksums of what the data file holds, see :mod:`regionvlp.shards.places`; None in
            receipts of the first version, and where there is no data file.
        schema_version: see :mod:`regionvlp.shards.schema`.
    """

    SCHEMA_VERSION: ClassVar = RECEIPT_VERSION
    COUNTS: ClassVar = ("videos", "frames", "regions")
    OPTIONAL: ClassVar = ("renamed", "index")  # left out where there is nothing to say, as before there were any
    ORDER: ClassVar = (
        *("shard", "file", "format", "bytes", "sha256", "videos", "frames", "regions"),
        *("failures", "partial", "versions", "detector", "timings", "created", "renamed", "index"),
    )

    frames: int
    regions: int
    detector: dict[str, Any]
    renamed: dict[str, str] = field(default_factory=dict)
    index: dict[str, str] | None = field(default=None, repr=False)
    schema_version: int = SCHEMA_VERSION


def read_receipts(folder: Path, shards: Iterable[int] | None = None) -> Iterator[Receipt]:
    """Yields the receipts of a folder in the order of their shards; by default of all that have one.

    Raises:
        ShardError: see :meth:`.BaseReceipt.read`.
    """
    return read_receipts_as(Receipt, folder, shards)
