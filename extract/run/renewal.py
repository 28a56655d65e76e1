"""Planned videos that are other files now: a download that went on, a clip that was mended, another root.

What was extracted from the old file stays, for a plan is settled once; it is said. A video that had failed, or was not
reached yet, has nothing to lose: its row of the plan becomes that of the new file, and its failure one that later runs
try again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from regionvlp.shards import Claims, PlanTable, Receipt, read_plan, read_receipts, write_plan
from regionvlp.store.claims import PLAN, claim_name
from regionvlp.store.receipts import receipt_path

log = logging.getLogger(__name__)


def renew(folder: Path, plan: PlanTable, found: pa.Table, changed: Sequence[str], claims: Claims) -> PlanTable:
    """Takes changed videos that have no rows on disk as new ones, and says which others there are.

    Args:
        folder: the shard folder.
        plan: its plan.
        found: what there is now, see :func:`~regionvlp.extract.run.plan.update_plan`.
        changed: the planned videos that differ in it.
        claims: the worker's.

    Returns:
        The plan as it is then.
    """
    if not changed:
        return plan
    fresh, failed = _without_rows(folder, plan, set(changed), claims)
    if failed:
        log.warning(
            "%d videos that had failed are other files now (first: %s): they are tried again", len(failed), min(failed)
        )
    kept = [video_id for video_id in changed if video_id not in fresh]
    if kept:
        log.warning(
            "%d videos changed since they were planned (first: %s); the regions of the old files are kept, also with "
            "--retry all. Extract into a new --out, or delete the receipts of their shards, to use the new files.",
            len(kept),
            kept[0],
        )
    return _replanned(folder, found, fresh, claims) if fresh else plan


def _without_rows(folder: Path, plan: PlanTable, changed: set[str], claims: Claims) -> tuple[set[str], set[str]]:
    """Of ``changed``, those that have no rows and are nobody's now, and of these again those that had failed."""
    ids = plan.table.column("video_id")
    rows = PlanTable(plan.table.filter(pc.is_in(ids, pa.array(sorted(changed), pa.string()))))
    fresh, failed = set[str](), set[str]()
    for number in rows.shards():
        here = set(rows.video_ids(number))
        claim = claims.take(claim_name(number))
        if claim is None:  # somebody is at it; they still differ at the next run
            continue
        with claim:
            if not receipt_path(folder, number).exists():
                fresh |= here
                continue
            (receipt,) = read_receipts(folder, [number])
            again = {failure.video_id for failure in receipt.failures} & here
            if again:
                _told_to_retry(receipt, again).write(folder)
            fresh |= again
            failed |= again
    return fresh, failed


def _told_to_retry(receipt: Receipt, again: set[str]) -> Receipt:
    """The receipt with the failures of ``again`` as ones that may pass and were never tried."""
    failures = [
        replace(failure, transient=True, attempt=0) if failure.video_id in again else failure
        for failure in receipt.failures
    ]
    return replace(receipt, failures=failures)


def _replanned(folder: Path, found: pa.Table, fresh: set[str], claims: Claims) -> PlanTable:
    """Writes the rows of ``fresh`` as they are found now into the plan, last: a run that is killed does it all anew."""
    claim = claims.take(PLAN)
    plan = read_plan(folder)
    assert plan is not None, "it was settled before"
    if claim is None:
        return plan
    with claim, claim.publishing():
        now = found.filter(pc.is_in(found.column("video_id"), pa.array(sorted(fresh), pa.string())))
        ids = plan.table.column("video_id").combine_chunks()
        shards = plan.table.column("shard").take(pc.index_in(now.column("video_id"), value_set=ids))
        renewed = pa.Table.from_arrays(
            [shards, *now.select(plan.table.column_names[1:]).columns], schema=plan.table.schema
        )
        place = pc.index_in(ids, value_set=now.column("video_id").combine_chunks()).to_numpy(zero_copy_only=False)
        own = np.arange(len(ids))
        rows = np.where(np.isnan(place), own, len(ids) + np.nan_to_num(place)).astype(np.int64)
        plan = PlanTable(pa.concat_tables([plan.table, renewed]).take(pa.array(rows)))
        write_plan(folder, plan)
    return plan
