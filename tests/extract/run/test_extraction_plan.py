"""The plan: new videos go into new shards, planned ones stay where they are."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from regionvlp.errors import ShardError
from regionvlp.extract.run import plan as plan_module
from regionvlp.extract.run.plan import size_for, update_plan
from regionvlp.extract.sources import listing
from regionvlp.shards import PlanRow, PlanTable
from regionvlp.store.plan import UNKNOWN


def videos(*names: str, size: int = 5) -> pa.Table:
    return listing.finished(listing.from_rows((name, size, 7) for name in names))


def rows(*pairs: tuple[int, str]) -> list[PlanRow]:
    return [PlanRow(shard, name, 5, 7) for shard, name in pairs]


def test_a_new_folder_is_cut_in_order() -> None:
    update = update_plan(None, videos("a", "b", "c", "d", "e"), 2)
    assert list(update.added) == rows((0, "a"), (0, "b"), (1, "c"), (1, "d"), (2, "e"))
    assert update.changed == []


def test_new_videos_never_join_an_old_shard() -> None:
    planned = rows((0, "b"), (0, "c"), (1, "d"))
    update = update_plan(PlanTable.from_rows(planned), videos("a", "b", "c", "d", "e", "f"), 2)
    assert list(update.added) == rows((2, "a"), (2, "e"), (3, "f"))


def test_changed_and_missing_videos() -> None:
    planned = rows((0, "a"), (0, "b"))
    update = update_plan(PlanTable.from_rows(planned), videos("a", size=6), 2)
    assert list(update.added) == []
    assert update.changed == ["a"]


def test_a_file_that_nobody_looked_at_is_not_a_changed_one() -> None:
    planned = PlanTable.from_rows([PlanRow(0, "a", UNKNOWN, UNKNOWN)])
    assert update_plan(planned, videos("a"), 2).changed == []
    assert update_plan(PlanTable.from_rows(rows((0, "a"))), planned.table.drop(["shard"]), 2).changed == []


def test_another_stretch_of_the_file_is_another_video() -> None:
    planned = PlanTable.from_rows([PlanRow(0, "a", 5, 7, "f", start=1.0, end=2.0), PlanRow(0, "b", 5, 7, "f")])
    found = PlanTable.from_rows([PlanRow(0, "a", 5, 7, "f", start=1.0, end=3.0), PlanRow(0, "b", 5, 7, "f")])
    assert update_plan(planned, found.table.drop(["shard"]), 2).changed == ["a"]


def test_another_folder_of_videos_is_refused() -> None:
    planned = PlanTable.from_rows(rows((0, "a"), (0, "b")))
    with pytest.raises(ShardError, match="made from other videos"):
        update_plan(planned, videos("x", "y"), 2)


@pytest.mark.parametrize("at_once", [1, 7, 10_000])
def test_many_updates_agree_with_dictionaries(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    """Against an obvious oracle: a folder that grows and changes, planned again and again."""
    monkeypatch.setattr(plan_module, "_AT_ONCE", at_once)
    random = np.random.default_rng(3)
    plan, folder = None, dict[str, int]()
    for _ in range(12):
        for number in random.integers(0, 400, 40):
            folder[f"{number:x}.mp4"] = int(random.integers(1, 4))
        before = {row.video_id: row for row in plan or ()}
        update = update_plan(plan, listing.finished(listing.from_rows((k, v, 0) for k, v in folder.items())), 7)
        assert update.changed == [k for k in sorted(before) if before[k].bytes != folder[k]]
        new, first = sorted(set(folder) - set(before)), max((row.shard for row in before.values()), default=-1) + 1
        assert list(update.added) == [PlanRow(first + i // 7, k, folder[k], 0) for i, k in enumerate(new)]
        plan = plan.followed_by(update.added) if plan else update.added


def test_the_same_size_and_time_in_another_place_is_the_same_file() -> None:
    planned = PlanTable.from_rows([PlanRow(0, "a", 5, 7, "f"), PlanRow(0, "b", UNKNOWN, UNKNOWN, "f")])
    found = PlanTable.from_rows([PlanRow(0, "a", 5, 7, "g"), PlanRow(0, "b", UNKNOWN, UNKNOWN, "g")])
    assert update_plan(planned, found.table.drop(["shard"]), 2).changed == ["b"]


def test_planned_videos_that_are_gone_are_counted() -> None:
    assert update_plan(PlanTable.from_rows(rows((0, "a"), (0, "b"), (1, "c"))), videos("b", "d"), 2).gone == 2


@pytest.mark.parametrize(
    ("count", "workers", "size"),
    [
        (5, 1, 16),
        (100, 1, 16),
        (2000, 1, 250),
        (100_000, 1, 512),
        (5, 2, 2),
        (100, 2, 13),
        (9, 16, 1),
        (10**6, 64, 512),
    ],
)
def test_shards_are_cut_so_that_workers_have_some(count: int, workers: int, size: int) -> None:
    assert size_for(count, workers) == size
    if workers > 1:
        assert -(-count // size) >= min(count, workers)
