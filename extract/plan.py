"""Which video goes into which shard, decided once.

In: the videos found now, and the plan so far. Out: the plan to follow. Videos keep the shard they were given; videos
that were not there before go, sorted by id, into new shards after the last one, so nothing finished is ever touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from regionvlp.errors import ShardError
from regionvlp.shards import PlanRow
from regionvlp.video import VideoFile


@dataclass(frozen=True)
class Plan:
    """The videos of every shard, and what differs from the last time.

    Attributes:
        rows: every planned video, in order of shard and id.
        files: where each video lies now; a planned video that is gone has no entry.
        added: how many videos are new in this plan.
        changed: ids of videos whose size or time of change differs from when they were planned.
    """

    rows: tuple[PlanRow, ...]
    files: dict[str, Path]
    added: int
    changed: tuple[str, ...]

    def shards(self) -> dict[int, list[PlanRow]]:
        """The rows of each shard, by shard number, in order."""
        by_shard: dict[int, list[PlanRow]] = {}
        for row in self.rows:
            by_shard.setdefault(row.shard, []).append(row)
        return by_shard


def extend_plan(planned: Sequence[PlanRow], found: Sequence[VideoFile], shard_size: int) -> Plan:
    """Assigns the videos of ``found`` that are not planned yet to new shards of ``shard_size``.

    Args:
        planned: rows of the plan so far, empty for a new folder.
        found: what lies in the video folder now, sorted by id.
        shard_size: videos per shard.

    Raises:
        ShardError: none of the planned videos is among those found, so this is another folder of videos.
    """
    files = {video.video_id: video for video in found}
    if planned and not any(row.video_id in files for row in planned):
        raise ShardError(
            f"the output folder was made from other videos: '{planned[0].video_id}' and all others are not there now",
            "give the --videos it was made from, or another --out",
        )
    known = {row.video_id for row in planned}
    new = [video for video in found if video.video_id not in known]
    first = max((row.shard for row in planned), default=-1) + 1
    rows = [
        PlanRow(first + i // shard_size, video.video_id, video.bytes, video.mtime_ns) for i, video in enumerate(new)
    ]
    changed = [
        row.video_id
        for row in planned
        if (video := files.get(row.video_id)) and (video.bytes, video.mtime_ns) != (row.bytes, row.mtime_ns)
    ]
    return Plan(
        rows=(*planned, *rows),
        files={video_id: video.path for video_id, video in files.items()},
        added=len(new),
        changed=tuple(changed),
    )
