"""What a shard folder holds, in one dictionary, from manifest, plan and receipts; no data file is opened.

In: a folder. Out: counts for people and scripts (``regionvlp shards inspect``).
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

from regionvlp.errors import InputError
from regionvlp.store.manifest import Manifest
from regionvlp.store.plan import read_plan
from regionvlp.store.receipts import read_receipts


def inspect(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Summarises a shard folder.

    Returns:
        JSON values: the manifest's fields; ``videos_planned`` and ``shards_planned`` (None without a plan);
        ``shards_done``, ``videos`` (with rows), ``frames``, ``regions``, ``bytes`` (of data files), ``failed`` and
        ``failures`` (reason -> count, most frequent first), ``partial`` (videos used in part), ``lost`` (shards whose
        data file is gone or cut), ``regions_per_frame`` and ``bytes_per_frame`` (None where there are no frames).

    Raises:
        InputError: there is no such folder. ShardError: it is not a shard folder, or a file of it is damaged.
    """
    path = Path(folder).absolute()
    if not path.is_dir():
        raise InputError(f"no shard folder at {folder}", "check the path")
    manifest = Manifest.read(path)
    plan = read_plan(path)
    totals: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for receipt in read_receipts(path):
        totals.update(shards=1, videos=receipt.videos, frames=receipt.frames, regions=receipt.regions)
        totals.update(bytes=receipt.bytes, partial=len(receipt.partial), lost=receipt.is_lost(path))
        reasons.update(failure.reason for failure in receipt.failures)
    frames = totals["frames"]
    return {
        **manifest.as_dict(),
        "videos_planned": None if plan is None else len(plan),
        "shards_planned": None if plan is None else len(plan.shards()),
        "shards_done": totals["shards"],
        "videos": totals["videos"],
        "frames": frames,
        "regions": totals["regions"],
        "bytes": totals["bytes"],
        "failed": reasons.total(),
        "failures": dict(reasons.most_common()),
        "partial": totals["partial"],
        "lost": totals["lost"],
        "regions_per_frame": totals["regions"] / frames if frames else None,
        "bytes_per_frame": totals["bytes"] / frames if frames else None,
    }
