"""Which video goes into which shard, decided once.

In: the videos found now, and the plan so far. Out: what to add to the plan. Videos keep the shard they were given;
videos that were not there before go, sorted by id, into new shards after the last one, so nothing finished is touched.
All of it is done in columns: a list of millions of videos is no more than a table in memory.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from regionvlp.errors import ShardError
from regionvlp.shards import Claims, PlanTable, read_plan, write_plan
from regionvlp.store.claims import PLAN
from regionvlp.store.plan import UNKNOWN

log = logging.getLogger(__name__)

_POLL = 0.1  # seconds between two looks at whether another worker has finished the plan

_AT_ONCE = 1 << 18  # ids that are looked up at once

# What tells that a video is not the one that was planned.
_WATCHED = ("bytes", "mtime_ns", "offset", "start", "end")


@dataclass(frozen=True)
class PlanUpdate:
    """What the videos found now change about a plan.

    Attributes:
        added: rows for videos that were not planned yet, in new shards.
        changed: ids of planned videos whose size, time of change or stretch differs from when they were planned.
    """

    added: PlanTable
    changed: list[str]


def update_plan(planned: PlanTable | None, found: pa.Table, shard_size: int) -> PlanUpdate:
    """Assigns the videos of ``found`` that are not planned yet to new shards of ``shard_size``.

    Args:
        planned: the plan so far; None for a new folder.
        found: what a source's ``scan`` returns now: the columns of a plan but ``shard``, sorted by id.
        shard_size: videos per shard.

    Raises:
        ShardError: none of the planned videos is among those found, so these are other videos.
    """
    if planned is None or not len(planned):
        return PlanUpdate(PlanTable.from_videos(found, 0, shard_size), [])
    before = planned.table
    place = _places(found.column("video_id"), before.column("video_id"))
    known = pc.indices_nonzero(pc.is_valid(place))
    if not len(known):
        raise ShardError(
            f"the output folder was made from other videos: '{before.column('video_id')[0]}' and all others are not "
            "there now",
            "give the --videos it was made from, or another --out",
        )
    changed = known.filter(_differs(found, known, before, place.drop_null()))
    new = found.filter(pc.is_null(place))
    added = PlanTable.from_videos(new, planned.shards()[-1] + 1, shard_size)
    return PlanUpdate(added, found.column("video_id").take(changed).to_pylist())


def _places(ids: pa.ChunkedArray, planned: pa.ChunkedArray) -> pa.ChunkedArray:
    """For each of ``ids``, which are sorted, its row in ``planned``; null where it is not there."""
    pieces = []
    # A table of hashes of millions of texts is large: one stretch of the alphabet at a time.
    for start in range(0, len(ids), _AT_ONCE):
        piece = ids.slice(start, _AT_ONCE)
        inside = pc.indices_nonzero(
            pc.and_(pc.greater_equal(planned, piece[0]), pc.less_equal(planned, piece[len(piece) - 1]))
        )
        place = pc.index_in(piece, value_set=planned.take(inside).combine_chunks())
        pieces.append(inside.take(place.combine_chunks()))
    return pa.chunked_array(pieces)


def settle_plan(folder: Path, videos: pa.Table | Callable[[], pa.Table], shard_size: int, claims: Claims) -> PlanTable:
    """The plan of a folder. Of several workers at once one writes it, and the others wait for it.

    Args:
        folder: the shard folder.
        videos: what there is now (see :func:`update_plan`), by which a plan is extended; or what lists it, which is
            called only where there is no plan yet.
        shard_size: videos per shard.
        claims: the worker's.

    Raises:
        ShardError: see :func:`update_plan`; or the plan is damaged.
    """
    told = False
    while True:
        planned = read_plan(folder)
        if callable(videos):
            if planned is not None:
                return planned
        else:
            update = update_plan(planned, videos, shard_size)
            if update.changed and not told:
                _tell_changed(update.changed)
                told = True
            if planned is not None and not len(update.added):
                return planned
        claim = claims.take(PLAN)
        if claim is None:
            time.sleep(_POLL)
            continue
        with claim:
            found = videos() if callable(videos) else videos
            with claim.publishing():
                planned = read_plan(folder)  # another may have written it meanwhile
                added = update_plan(planned, found, shard_size).added
                if len(added):
                    write_plan(folder, added if planned is None else planned.followed_by(added))


def _tell_changed(video_ids: Sequence[str]) -> None:
    log.warning(
        "%d videos changed since they were planned (first: %s); their rows and failures are kept as they are. "
        "Extract into a new --out, or delete the receipts of their shards, to use the new files.",
        len(video_ids),
        video_ids[0],
    )


def _differs(found: pa.Table, now: pa.Array, planned: pa.Table, before: pa.ChunkedArray) -> pa.ChunkedArray:
    """For each video, whether it is another one than before; what was not looked at does not tell.

    Args:
        found: what there is now.
        now: the rows of the videos in ``found``.
        planned: the plan.
        before: their rows in ``planned``.
    """
    different = None
    for name in _WATCHED:
        # Unlike null, this compares equal to itself, and no size, time or stretch is it.
        one = pc.fill_null(found.column(name).take(now), UNKNOWN)
        other = pc.fill_null(planned.column(name).take(before), UNKNOWN)
        unlike = pc.not_equal(one, other)
        if name in ("bytes", "mtime_ns"):
            looked_at = pc.and_(pc.not_equal(one, UNKNOWN), pc.not_equal(other, UNKNOWN))
            unlike = pc.and_(unlike, looked_at)
        different = unlike if different is None else pc.or_(different, unlike)
    return different
