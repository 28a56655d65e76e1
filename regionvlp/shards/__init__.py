"""Shards: region features of many videos in a few large files that can be resumed, verified and read at random.

::

    SHARDS/manifest.json            what all shards of the folder have in common
    SHARDS/plan.parquet             which video belongs to which shard (a set put together by hand has none)
    SHARDS/shard-00000.h5|.parquet  the data
    SHARDS/shard-00000.json         its receipt, written last: a shard without a receipt does not exist
    SHARDS/set-aside/               bad files that were taken out; never read
    SHARDS/.claims/                 who is at work on what; there during an extraction only

Everything is exported from here and imported on first use, so that ``import regionvlp.shards`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from regionvlp.shards.batch import RegionBatch as RegionBatch
    from regionvlp.shards.claims import Claim as Claim
    from regionvlp.shards.claims import ClaimInfo as ClaimInfo
    from regionvlp.shards.claims import ClaimLostError as ClaimLostError
    from regionvlp.shards.claims import Claims as Claims
    from regionvlp.shards.files import remove_leftovers as remove_leftovers
    from regionvlp.shards.manifest import Manifest as Manifest
    from regionvlp.shards.plan import PlanRow as PlanRow
    from regionvlp.shards.plan import PlanTable as PlanTable
    from regionvlp.shards.plan import read_plan as read_plan
    from regionvlp.shards.plan import write_plan as write_plan
    from regionvlp.shards.reader import ShardReader as ShardReader
    from regionvlp.shards.reader import UnknownVideoError as UnknownVideoError
    from regionvlp.shards.reader import open_shards as open_shards
    from regionvlp.shards.receipts import Failure as Failure
    from regionvlp.shards.receipts import Partial as Partial
    from regionvlp.shards.receipts import Receipt as Receipt
    from regionvlp.shards.receipts import finished_shards as finished_shards
    from regionvlp.shards.receipts import library_versions as library_versions
    from regionvlp.shards.receipts import lost_shards as lost_shards
    from regionvlp.shards.receipts import read_receipts as read_receipts
    from regionvlp.shards.schema import SCHEMA_VERSION as SCHEMA_VERSION
    from regionvlp.shards.schema import ShardSpec as ShardSpec
    from regionvlp.shards.schema import check_regions as check_regions
    from regionvlp.shards.summary import inspect as inspect
    from regionvlp.shards.verification import Fault as Fault
    from regionvlp.shards.verification import verify as verify
    from regionvlp.shards.writer import ShardDoneError as ShardDoneError
    from regionvlp.shards.writer import ShardWriter as ShardWriter

_HOME = {
    "batch": ["RegionBatch"],
    "claims": ["Claim", "ClaimInfo", "ClaimLostError", "Claims"],
    "files": ["remove_leftovers"],
    "manifest": ["Manifest"],
    "plan": ["PlanRow", "PlanTable", "read_plan", "write_plan"],
    "reader": ["ShardReader", "UnknownVideoError", "open_shards"],
    "receipts": [
        "Failure",
        "Partial",
        "Receipt",
        "finished_shards",
        "library_versions",
        "lost_shards",
        "read_receipts",
    ],
    "schema": ["SCHEMA_VERSION", "ShardSpec", "check_regions"],
    "summary": ["inspect"],
    "verification": ["Fault", "verify"],
    "writer": ["ShardDoneError", "ShardWriter"],
}
_LAZY = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"regionvlp.shards.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'regionvlp.shards' has no attribute '{name}'")
