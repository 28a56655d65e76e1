"""How far an extraction is, read from the plan and the receipts: there is no other truth."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from regionvlp.shards import inspect, lost_shards


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
        lost: shards with a receipt whose data file is gone or cut; the next extraction does them again.
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
    lost: int

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-ready values."""
        return asdict(self)


def folder_status(folder: Path) -> Status:
    """Counts what ``folder`` holds.

    Raises:
        InputError: there is no such folder. ShardError: it is no shard folder, or a file of it cannot be read.
    """
    summary = inspect(folder)
    done, failed = summary["videos"], summary["failed"]
    # A set that was imported rather than extracted has receipts and no plan.
    planned = summary["videos_planned"]
    videos = done + failed if planned is None else planned
    shards = summary["shards_planned"]
    return Status(
        videos=videos,
        done=done,
        failed=failed,
        left=videos - done - failed,
        partial=summary["partial"],
        frames=summary["frames"],
        regions=summary["regions"],
        bytes=summary["bytes"],
        shards=summary["shards_done"] if shards is None else shards,
        shards_done=summary["shards_done"],
        failures=summary["failures"],
        lost=len(lost_shards(folder)),
    )
