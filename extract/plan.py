"""Which video goes into which shard, decided once.

In: the videos found now, and the plan so far. Out: what to add to the plan. Videos keep the shard they were given;
videos that were not there before go, sorted by id, into new shards after the last one, so nothing finished is touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from regionvlp.errors import ShardError
from regionvlp.shards import PlanRow
from regionvlp.video import VideoFile


@dataclass(frozen=True)
class PlanUpdate:
    """What the videos found now change about a plan.

    Attributes:
        added: rows for videos that were not planned yet, in new shards.
        changed: ids of planned videos whose size or time of change differs from when they were planned.
    """

    added: list[PlanRow]
    changed: list[str]


def update_plan(planned: Iterable[PlanRow], found: Sequence[VideoFile], shard_size: int) -> PlanUpdate:
    """Assigns the videos of ``found`` that are not planned yet to new shards of ``shard_size``.

    Args:
        planned: rows of the plan so far, ascending by shard; empty for a new folder.
        found: what lies in the video folder now, sorted by id.
        shard_size: videos per shard.

    Raises:
        ShardError: none of the planned videos is among those found, so this is another folder of videos.
    """
    files = {video.video_id: video for video in found}
    example: str | None = None
    known, last_shard, changed = set(), -1, []
    for row in planned:
        example, last_shard = example or row.video_id, row.shard
        if video := files.get(row.video_id):
            known.add(row.video_id)
            if (video.bytes, video.mtime_ns) != (row.bytes, row.mtime_ns):
                changed.append(row.video_id)
    if example and not known:
        raise ShardError(
            f"the output folder was made from other videos: '{example}' and all others are not there now",
            "give the --videos it was made from, or another --out",
        )
    new = (video for video in found if video.video_id not in known)
    added = [
        PlanRow(last_shard + 1 + i // shard_size, video.video_id, video.bytes, video.mtime_ns)
        for i, video in enumerate(new)
    ]
    return PlanUpdate(added, changed)
