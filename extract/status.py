"""How far an extraction is, read from the plan and the receipts: there is no other truth."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from regionvlp.shards import Manifest, finished_shards, read_plan, read_receipt


@dataclass(frozen=True)
class Status:
    """Counts over a shard folder.

    Attributes:
        videos: planned videos.
        done: videos with regions on disk.
        failed: videos with a failure row.
        left: videos neither done nor failed yet.
        partial: videos among ``done`` of which only a part could be decoded.
        frames: frames on disk.
        regions: regions on disk.
        bytes: size of the finished shard files.
        shards: planned shards.
        shards_done: shards with a receipt.
        failures: number of failures by reason.
    """

    videos: int
    done: int
    failed: int
    left: int
    partial: int
    frames: int
    regions: int
    bytes: int
    shards: int
    shards_done: int
    failures: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-ready values."""
        return asdict(self)


def folder_status(folder: Path) -> Status:
    """Counts what ``folder`` holds.

    Raises:
        ShardError: the folder is no shard folder, or a receipt cannot be read.
    """
    Manifest.read(folder)
    plan = read_plan(folder)
    receipts = [read_receipt(folder, number) for number in finished_shards(folder)]
    done = sum(receipt.videos for receipt in receipts)
    failures = Counter(failure.reason for receipt in receipts for failure in receipt.failures)
    failed = sum(failures.values())
    # A set that was imported rather than extracted has receipts and no plan.
    videos = len(plan) or done + failed
    return Status(
        videos=videos,
        done=done,
        failed=failed,
        left=videos - done - failed,
        partial=sum(len(receipt.partial) for receipt in receipts),
        frames=sum(receipt.frames for receipt in receipts),
        regions=sum(receipt.regions for receipt in receipts),
        bytes=sum(receipt.bytes for receipt in receipts),
        shards=len({row.shard for row in plan}) or len(receipts),
        shards_done=len(receipts),
        failures=dict(sorted(failures.items())),
    )
