"""The plan: new videos go into new shards, planned ones stay where they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from regionvlp.errors import ShardError
from regionvlp.extract.plan import update_plan
from regionvlp.shards import PlanRow
from regionvlp.video import VideoFile


def videos(*names: str, size: int = 5) -> list[VideoFile]:
    return [VideoFile(name, Path("/v") / name, size, 7) for name in names]


def rows(*pairs: tuple[int, str]) -> list[PlanRow]:
    return [PlanRow(shard, name, 5, 7) for shard, name in pairs]


def test_a_new_folder_is_cut_in_order() -> None:
    update = update_plan([], videos("a", "b", "c", "d", "e"), 2)
    assert update.added == rows((0, "a"), (0, "b"), (1, "c"), (1, "d"), (2, "e"))
    assert update.changed == []


def test_new_videos_never_join_an_old_shard() -> None:
    planned = rows((0, "b"), (0, "c"), (1, "d"))
    update = update_plan(planned, videos("a", "b", "c", "d", "e", "f"), 2)
    assert update.added == rows((2, "a"), (2, "e"), (3, "f"))


def test_changed_and_missing_videos() -> None:
    planned = rows((0, "a"), (0, "b"))
    update = update_plan(planned, videos("a", size=6), 2)
    assert update.added == []
    assert update.changed == ["a"]


def test_another_folder_of_videos_is_refused() -> None:
    with pytest.raises(ShardError, match="made from other videos"):
        update_plan(rows((0, "a"), (0, "b")), videos("x", "y"), 2)
