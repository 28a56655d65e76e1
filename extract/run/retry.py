"""Failed videos of finished shards are tried again: which ones, and how a shard gets the rows it lacked.

In: a shard with its receipt. Out: a new data file, old rows and new ones in plan order, under a name of its own, and
then a receipt that takes the place of the old one in a single rename. At every moment the receipt that is there names
data that is there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from regionvlp.errors import ShardError
from regionvlp.extract.run.worker import ShardTally, Tools, outcomes
from regionvlp.extract.sources import Source
from regionvlp.regions import VideoRegions
from regionvlp.shards import (
    Failure,
    Partial,
    PlanRow,
    PlanTable,
    Receipt,
    ShardDoneError,
    ShardReader,
    ShardWriter,
    read_receipts,
)
from regionvlp.shards.dropped import DROPPED
from regionvlp.store.files import sha256_of
from regionvlp.store.receipts import receipt_path

# A run without --retry tries a transient failure again, in as many later runs as make this multiple of its attempts.
RUNS = 3


@dataclass(frozen=True)
class RetryRule:
    """Which failures are tried again.

    Attributes:
        mode: ``none``, ``transient`` (those that may pass, up to ``limit`` attempts in all) or ``all``.
        limit: attempts.
    """

    mode: str
    limit: int

    def wants(self, failure: Failure) -> bool:
        """Whether the video of a failure is to be tried again; never one that was dropped."""
        if failure.reason == DROPPED:
            return False
        if self.mode == "transient":
            return failure.transient and failure.attempt < self.limit
        return self.mode == "all"


def find_retries(folder: Path, plan: PlanTable, source: Source, rule: RetryRule) -> dict[int, Receipt]:
    """Receipts of the finished shards that hold failures to be tried again.

    A file that was missing and still is gives no reason: nothing could come of it.
    """
    if rule.mode == "none":
        return {}
    found = {}
    for receipt in read_receipts(folder):
        ids = {failure.video_id for failure in receipt.failures if rule.wants(failure)}
        missing = {failure.video_id for failure in receipt.failures if failure.reason == "missing-file"}
        if ids & missing:
            rows = [row for row in plan.rows(receipt.shard) if row.video_id in ids & missing]
            ids -= {row.video_id for row in rows if not source.is_there(row)}
        if ids:
            found[receipt.shard] = receipt
    return found


def retry_shard(
    folder: Path,
    old: Receipt,
    rows: Sequence[PlanRow],
    source: Source,
    tools: Tools,
    rule: RetryRule,
    *,
    publishing: AbstractContextManager[bool] | None = None,
    on_video: Callable[[int], None] = lambda frames: None,
) -> Receipt:
    """Tries failed videos of a finished shard again.

    Args:
        folder: the shard folder.
        old: the shard's receipt.
        rows: the shard's videos, in plan order.
        source, tools, publishing, on_video: see :func:`~regionvlp.extract.run.worker.process_shard`.
        rule: which failures are tried again.

    Returns:
        The new receipt, already on disk.

    Raises:
        ShardDoneError: another worker replaced the receipt meanwhile. DamagedShardError: the old data changed since
            it was written. Otherwise as ``process_shard``.
    """
    failed = {failure.video_id: failure for failure in old.failures}
    again = [row for row in rows if row.video_id in failed and rule.wants(failed[row.video_id])]
    tally, merged = ShardTally(), _Merged(folder, old, rows)
    results = outcomes(again, source, tools, tally)
    with ShardWriter(folder, old.shard, tools.manifest, replaces=old) as writer, closing(results):
        for outcome in results:
            if isinstance(outcome, VideoRegions):
                started = time.perf_counter()
                for video in (*merged.before(outcome.video_id), outcome):
                    writer.add(video)
                del failed[outcome.video_id]
                tally.seconds["write"] += time.perf_counter() - started
                on_video(outcome.num_frames)
            else:
                before = failed[outcome.video_id].attempt
                failed[outcome.video_id] = replace(outcome, attempt=before + outcome.attempt)
                on_video(0)
        failures = [failed[row.video_id] for row in rows if row.video_id in failed]
        if len(failures) == len(old.failures):  # nothing came of it, so the data stays
            return _replace_receipt(folder, old, replace(old, failures=failures), publishing)
        for video in merged.rest():
            writer.add(video)
        return writer.finish(
            failures=failures,
            partial=_in_order([*old.partial, *tally.partial], rows),
            timings={name: round(old.timings.get(name, 0.0) + new, 3) for name, new in tally.timings().items()},
            publishing=publishing,
        )


def _in_order(partial: Sequence[Partial], rows: Sequence[PlanRow]) -> list[Partial]:
    place = {row.video_id: i for i, row in enumerate(rows)}
    return sorted(partial, key=lambda one: place[one.video_id])


def _replace_receipt(
    folder: Path, old: Receipt, new: Receipt, publishing: AbstractContextManager[bool] | None
) -> Receipt:
    with nullcontext() if publishing is None else publishing:
        if Receipt.read(receipt_path(folder, old.shard)) != old:
            raise ShardDoneError(f"the receipt of shard {old.shard} changed meanwhile", "run again")
        new.write(folder)
    return new


class DamagedShardError(ShardError):
    """Old rows are not what their receipt says, so they must not get a new one."""


class _Merged:
    """The rows that a shard has already, handed out in plan order as new ones come in between."""

    def __init__(self, folder: Path, old: Receipt, rows: Sequence[PlanRow]) -> None:
        failed = {failure.video_id for failure in old.failures}
        self._folder, self._old = folder, old
        self._left: Iterator[PlanRow] = iter(rows)
        self._failed = failed

    @cached_property
    def _reader(self) -> ShardReader:
        if self._old.file is not None and sha256_of(self._folder / self._old.file) != self._old.sha256:
            raise DamagedShardError(
                f"{self._folder / self._old.file} is damaged, so its failed videos are not tried again",
                f"run: regionvlp shards verify '{self._folder}'",
            )
        return ShardReader(self._folder, shards=[self._old.shard])

    def before(self, video_id: str) -> Iterator[VideoRegions]:
        """The rows not handed out yet that come before a video."""
        for row in self._left:
            if row.video_id == video_id:
                return
            if row.video_id not in self._failed:
                yield self._reader[row.video_id]

    def rest(self) -> Iterator[VideoRegions]:
        """All that are left."""
        return self.before("")
