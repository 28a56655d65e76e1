"""Fills a shard folder with videos that come from somewhere else than a detector.

In: a plan, and a way to make the regions of one of its videos. Out: the same folder that an extraction leaves: shards,
receipts, failure rows. Run again, it does what is missing; several may run at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from regionvlp.errors import InputError, ShardError, VideoError
from regionvlp.regions import FrameRegions, VideoRegions
from regionvlp.shards.manifest import Manifest
from regionvlp.shards.schema import check_regions
from regionvlp.shards.writer import ShardWriter
from regionvlp.store.claims import Claim, Claims, claim_name
from regionvlp.store.files import remove_leftovers
from regionvlp.store.locking import folder_lock
from regionvlp.store.plan import VIDEO_SCHEMA, PlanRow, PlanTable, read_plan, write_plan
from regionvlp.store.receipts import Failure, receipt_path
from regionvlp.store.recovery import set_lost_aside


@dataclass
class Filled:
    """What one call of :func:`fill_shards` did.

    Attributes:
        videos: handled, failures included.
        failed: of these.
        frames: written.
        busy: shards left to other processes, which are at work on them.
    """

    videos: int = 0
    failed: int = 0
    frames: int = 0
    busy: int = 0


def first_width(rows: Sequence[PlanRow], read: Callable[[PlanRow], FrameRegions], tries: int = 20) -> int:
    """C, the feature width, of the first video that can be read.

    Args:
        rows: what was found.
        read: gives the regions of a video's first frame; raises VideoError.
        tries: videos after which it is given up.

    Raises:
        InputError: none of the first videos can be read; with what is wrong with the first.
    """
    first: VideoError | None = None
    for row in rows[:tries]:
        try:
            return int(read(row).features.shape[1])
        except VideoError as error:
            first = first or error
    assert first is not None, "nothing was found"
    raise InputError(
        f"none of the first videos or images can be read: {first.message}", "check the files and their layout"
    )


def extend_plan(folder: Path, found: list[PlanRow], shard_size: int) -> PlanTable:
    """The plan of the folder, with those of ``found`` that it lacks in new shards at its end.

    Args:
        folder: the shard folder; it has its manifest.
        found: what there is now, of distinct ids; the shard numbers in it do not count.
        shard_size: videos per new shard.

    Raises:
        ShardError: the plan is damaged, or none of its videos is among those found.
    """
    with folder_lock(folder):
        planned = read_plan(folder)
        columns = zip(*(row[1:] for row in found), strict=True) if found else [[] for _ in VIDEO_SCHEMA]
        arrays = [pa.array(values, field.type) for field, values in zip(VIDEO_SCHEMA, columns, strict=True)]
        table = pa.Table.from_arrays(arrays, schema=VIDEO_SCHEMA)
        if planned is None or not len(planned):
            plan = PlanTable.from_videos(table, 0, shard_size)
        else:
            known = pc.is_in(table.column("video_id"), value_set=planned.table.column("video_id").combine_chunks())
            if not pc.any(known).as_py():
                raise ShardError(
                    f"{folder} was filled from something else: '{planned.video_ids(0)[0]}' and all others are not "
                    "there now",
                    "give what it was made from, or another folder",
                )
            new = PlanTable.from_videos(table.filter(pc.invert(known)), planned.shards()[-1] + 1, shard_size)
            if not len(new):
                return planned
            plan = planned.followed_by(new)
        write_plan(folder, plan)
        return plan


def fill_shards(
    folder: Path,
    manifest: Manifest,
    plan: PlanTable,
    make: Callable[[PlanRow], VideoRegions],
    *,
    on_plan: Callable[[int, int], None] = lambda planned, left: None,
    on_video: Callable[[int], None] = lambda frames: None,
) -> Filled:
    """Makes and writes every shard of ``plan`` that has no receipt.

    Args:
        folder: the shard folder.
        manifest: its manifest.
        plan: its plan.
        make: the regions of one video; a :class:`VideoError` becomes a failure row.
        on_plan: called once, with the number of videos planned and of those still to do.
        on_video: called after each video with the number of frames written (0 for a failure).

    Raises:
        ShardError: the disk refuses, or a receipt is damaged.
    """
    filled = Filled()
    with Claims(folder) as claims:
        claims.sweep()
        remove_leftovers(folder)
        set_lost_aside(folder, claims)
        todo = [number for number in plan.shards() if not receipt_path(folder, number).exists()]
        on_plan(len(plan), sum(map(plan.count, todo)))
        for number in todo:
            rows = plan.rows(number)
            claim = claims.take(claim_name(number), of_videos=len(rows))
            if claim is None:
                filled.busy += 1
                continue
            with claim:
                if not receipt_path(folder, number).exists():
                    _fill(folder, number, manifest, rows, make, claim, filled, on_video)
    return filled


def _fill(
    folder: Path,
    number: int,
    manifest: Manifest,
    rows: list[PlanRow],
    make: Callable[[PlanRow], VideoRegions],
    claim: Claim,
    filled: Filled,
    on_video: Callable[[int], None],
) -> None:
    failures: list[Failure] = []
    reading = 0.0
    with ShardWriter(folder, number, manifest) as writer:
        for row in rows:
            started = time.perf_counter()
            try:
                regions = _made(row, make, manifest)
            except VideoError as error:
                failures.append(Failure.of(row.video_id, error))
                frames = 0
            else:
                reading += time.perf_counter() - started
                writer.add(regions)
                frames = regions.num_frames
            filled.videos += 1
            filled.frames += frames
            on_video(frames)
        writer.finish(failures=failures, timings={"read": round(reading, 3)}, publishing=claim.publishing())
    filled.failed += len(failures)


def _made(row: PlanRow, make: Callable[[PlanRow], VideoRegions], manifest: Manifest) -> VideoRegions:
    regions = make(row)
    try:
        check_regions(regions, manifest)
    except ShardError as error:
        raise VideoError(error.message, stage="write", reason="bad-numbers") from error
    return regions
