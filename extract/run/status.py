"""How far an extraction is: what is done is read from plan and receipts, who is at work from the claims."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from regionvlp.shards import ClaimInfo, Claims, inspect
from regionvlp.store.claims import STALE_AFTER


@dataclass(frozen=True)
class InFlight:
    """A shard that a worker has claimed and not finished.

    Attributes:
        shard: its number.
        worker: what the worker calls itself.
        host, pid: where it runs.
        videos, of_videos: handled and planned in the shard.
        frames: written into the shard so far.
        frames_per_second: of this worker, over all that it did.
        seconds: since it began the shard, by its own clock.
        silent: seconds since it last said something.
        stale: it is taken for dead; another worker takes the shard over.
    """

    shard: int
    worker: str
    host: str
    pid: int
    videos: int
    of_videos: int
    frames: int
    frames_per_second: float
    seconds: float
    silent: float
    stale: bool


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
        in_flight: shards that workers are at, in order.
        stale: how many of these have a worker that is taken for dead.
        frames_per_second: of all living workers together.
        eta_seconds: until nothing is left at their speed; None where nobody works or nothing is left.
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
    in_flight: list[InFlight]
    stale: int
    frames_per_second: float
    eta_seconds: float | None

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-ready values."""
        return asdict(self)


def folder_status(folder: Path, stale_after: float = STALE_AFTER) -> Status:
    """Counts what ``folder`` holds, and who is at work on it.

    Args:
        folder: the shard folder.
        stale_after: see :class:`~regionvlp.store.claims.Claims`.

    Raises:
        InputError: there is no such folder. ShardError: it is no shard folder, or a file of it cannot be read.
    """
    claims = Claims(folder, stale_after=stale_after).all()  # before the receipts: what is done meanwhile counts once
    summary = inspect(folder)
    done, failed = summary["videos"], summary["failed"]
    # A set that was imported rather than extracted has receipts and no plan.
    planned = summary["videos_planned"]
    videos = done + failed if planned is None else planned
    shards = summary["shards_planned"]
    left = videos - done - failed
    living = [claim for claim in claims if not claim.stale and claim.shard is not None]
    in_flight = [flight for claim in claims if (flight := _in_flight(claim)) is not None]
    return Status(
        videos=videos,
        done=done,
        failed=failed,
        left=left,
        partial=summary["partial"],
        frames=summary["frames"],
        regions=summary["regions"],
        bytes=summary["bytes"],
        shards=summary["shards_done"] if shards is None else shards,
        shards_done=summary["shards_done"],
        failures=summary["failures"],
        lost=summary["lost"],
        in_flight=in_flight,
        stale=sum(flight.stale for flight in in_flight),
        frames_per_second=round(sum(claim.progress.frames_per_second for claim in living), 2),
        eta_seconds=_eta(left, living),
    )


def _in_flight(claim: ClaimInfo) -> InFlight | None:
    if claim.shard is None:
        return None
    return InFlight(
        shard=claim.shard,
        worker=claim.worker,
        host=claim.process.host if claim.process else "",
        pid=claim.process.pid if claim.process else 0,
        videos=claim.progress.videos,
        of_videos=claim.progress.of_videos,
        frames=claim.progress.frames,
        frames_per_second=claim.progress.frames_per_second,
        seconds=round(claim.seconds, 1),
        silent=round(claim.age, 1),
        stale=claim.stale,
    )


def _eta(left: int, living: list[ClaimInfo]) -> float | None:
    """Seconds for the videos without a receipt, of which those in flight are handled in part already."""
    speed = sum(claim.progress.videos_per_second for claim in living)
    handled = sum(claim.progress.videos for claim in living)
    if left <= 0 or speed <= 0:
        return None
    return round(max(left - handled, 0) / speed, 1)
