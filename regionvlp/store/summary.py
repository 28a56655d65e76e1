"""What a folder holds, in one dictionary, from manifest, plan and receipts; no data file is opened.

In: a folder and its kind. Out: counts for people and scripts.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

from regionvlp.errors import InputError
from regionvlp.store.manifest import BaseManifest
from regionvlp.store.plan import read_plan
from regionvlp.store.receipts import BaseReceipt, read_receipts_as


def summarise(
    folder: str | os.PathLike[str], manifests: type[BaseManifest], receipts: type[BaseReceipt]
) -> dict[str, Any]:
    """Summarises a folder.

    Args:
        folder: the folder.
        manifests, receipts: of its kind.

    Returns:
        JSON values: the manifest's fields; ``videos_planned`` and ``shards_planned`` (None without a plan);
        ``shards_done``; what the receipts count, ``videos`` (with rows) first; ``bytes`` (of data files), ``failed``
        and ``failures`` (reason -> count, most frequent first), ``partial`` (videos used in part), ``lost`` (shards
        whose data file is gone or cut).

    Raises:
        InputError: there is no such folder. ShardError: it is not of that kind, or a file of it is damaged.
    """
    path = Path(folder).absolute()
    if not path.is_dir():
        raise InputError(f"no {manifests.KIND} at {folder}", "check the path")
    manifest = manifests.read(path)
    plan = read_plan(path)
    totals: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for receipt in read_receipts_as(receipts, path):
        totals.update({name: getattr(receipt, name) for name in receipts.COUNTS})
        totals.update(shards=1, bytes=receipt.bytes, partial=len(receipt.partial), lost=receipt.is_lost(path))
        reasons.update(failure.reason for failure in receipt.failures)
    return {
        **manifest.as_dict(),
        "videos_planned": None if plan is None else len(plan),
        "shards_planned": None if plan is None else len(plan.shards()),
        "shards_done": totals["shards"],
        **{name: totals[name] for name in receipts.COUNTS},
        "bytes": totals["bytes"],
        "failed": reasons.total(),
        "failures": dict(reasons.most_common()),
        "partial": totals["partial"],
        "lost": totals["lost"],
    }
