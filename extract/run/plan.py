"""Which video goes into which shard, decided once.

In: the videos found now, and the plan so far. Out: what to add to the plan. Videos keep the shard they were given;
videos that were not there before go, sorted by id, into new shards after the last one, so nothing finished is touched.
All of it is done in columns: a list of millions of videos is no more than a table in memory.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from regionvlp.errors import ShardError
from regionvlp.extract.settings import DEFAULT_SHARD_SIZE
from regionvlp.shards import Claims, PlanTable, read_plan, write_plan
from regionvlp.store.claims import PLAN
from regionvlp.store.plan import UNKNOWN

log = logging.getLogger(__name__)

_POLL = 0.1  # seconds between two looks at whether another worker has finished the plan

_AT_ONCE = 1 << 18  # ids that are looked up at once

# What tells that a video is not the one that was planned: of its file, and of the part of the file that it is.
_FILE = ("bytes", "mtime_ns")
_PART = ("offset", "start", "end")


@dataclass(frozen=True)
class PlanUpdate:
    """What the videos found now change about a plan.

    Attributes:
        added: rows for videos that were not planned yet, in new shards.
        changed: ids of planned videos whose size, time of change or stretch differs from when they were planned.
        gone: planned videos that are not among those found.
    """

    added: PlanTable
    changed: list[str]
    gone: int


def size_for(videos: int, workers: int) -> int:
    """Videos per shard, where nobody said: at most 512, and fewer where ``workers`` would have nothing to do.

    A shard is what one worker takes at a time. There are to be four for each, so that the slowest does not hold up the
    end; and some for the worker that another machine may bring.
    """
    least = 16 if workers == 1 else max(1, min(4, videos // workers))
    return max(least, min(DEFAULT_SHARD_SIZE, -(-videos // (4 * max(workers, 2)))))


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
        return PlanUpdate(PlanTable.from_videos(found, 0, shard_size), [], 0)
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
    return PlanUpdate(added, found.column("video_id").take(changed).to_pylist(), len(before) - len(known))


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


def settle_plan(
    folder: Path, videos: pa.Table | Callable[[], pa.Table], size_of: Callable[[int], int], claims: Claims
) -> tuple[PlanTable, list[str]]:
    """The plan of a folder. Of several workers at once one writes it, and the others wait for it.

    Args:
        folder: the shard folder.
        videos: what there is now (see :func:`update_plan`), by which a plan is extended; or what lists it, which is
            called only where there is no plan yet.
        size_of: the videos per shard for a number of new videos.
        claims: the worker's.

    Returns:
        The plan, and the planned videos that are others now.

    Raises:
        ShardError: see :func:`update_plan`; or the plan is damaged.
    """
    while True:
        planned = read_plan(folder)
        if callable(videos):
            if planned is not None:
                return planned, []
        else:
            update = update_plan(planned, videos, _size(size_of, planned, videos))
            if planned is not None and not len(update.added):
                if update.gone:
                    log.warning(
                        "%d planned videos are not in --videos any more; what is there of them stays", update.gone
                    )
                return planned, update.changed
        claim = claims.take(PLAN)
        if claim is None:
            time.sleep(_POLL)
            continue
        with claim:
            found = videos() if callable(videos) else videos
            with claim.publishing():
                planned = read_plan(folder)  # another may have written it meanwhile
                added = update_plan(planned, found, _size(size_of, planned, found)).added
                if len(added):
                    write_plan(folder, added if planned is None else planned.followed_by(added))


def _size(size_of: Callable[[int], int], planned: PlanTable | None, found: pa.Table) -> int:
    return size_of(max(1, len(found) - (0 if planned is None else len(planned))))


def _differs(found: pa.Table, now: pa.Array, planned: pa.Table, before: pa.ChunkedArray) -> pa.ChunkedArray:
    """For each video, whether it is another one than before; what was not looked at does not tell.

    Args:
        found: what there is now.
        now: the rows of the videos in ``found``.
        planned: the plan.
        before: their rows in ``planned``.
    """

    def pair(name: str) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
        one, other = found.column(name).take(now), planned.column(name).take(before)
        # Unlike null, these compare equal to themselves, and no size, time, stretch or name is one of them.
        nothing = "" if pa.types.is_string(one.type) else UNKNOWN
        return pc.fill_null(one, nothing), pc.fill_null(other, nothing)

    different, all_looked_at = None, None
    for name in _FILE:
        one, other = pair(name)
        looked_at = pc.and_(pc.not_equal(one, UNKNOWN), pc.not_equal(other, UNKNOWN))
        unlike = pc.and_(pc.not_equal(one, other), looked_at)
        different = unlike if different is None else pc.or_(different, unlike)
        all_looked_at = looked_at if all_looked_at is None else pc.and_(all_looked_at, looked_at)
    for name in _PART:
        different = pc.or_(different, pc.not_equal(*pair(name)))
    # A file of the same size and time is the same in another place; where nobody looked, another place is another file.
    moved = pc.and_not(pc.not_equal(*pair("location")), all_looked_at)
    return pc.or_(different, moved)
