"""What a folder of regions holds, in one dictionary; no data file is opened.

In: a folder. Out: counts for people and scripts (``regionvlp shards inspect``).
"""

from __future__ import annotations

import os
from typing import Any

from regionvlp.shards.manifest import Manifest
from regionvlp.shards.receipts import Receipt
from regionvlp.store.summary import summarise


def inspect(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Summarises a shard folder (``regionvlp shards inspect``).

    Returns:
        What :func:`~regionvlp.store.summary.summarise` tells, with ``videos``, ``frames`` and ``regions`` counted, and
        ``regions_per_frame`` and ``bytes_per_frame`` (None where there are no frames).

    Raises:
        InputError: there is no such folder. ShardError: it is not a shard folder, or a file of it is damaged.
    """
    found = summarise(folder, Manifest, Receipt)
    frames = found["frames"]
    return {
        **found,
        "regions_per_frame": found["regions"] / frames if frames else None,
        "bytes_per_frame": found["bytes"] / frames if frames else None,
    }
