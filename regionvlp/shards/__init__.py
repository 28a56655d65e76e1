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

from typing import TYPE_CHECKING

from regionvlp.lazy import exports

if TYPE_CHECKING:
    from regionvlp.shards.batch import RegionBatch as RegionBatch
    from regionvlp.shards.frames import DamagedFrameError as DamagedFrameError
    from regionvlp.shards.manifest import Manifest as Manifest
    from regionvlp.shards.reader import BatchError as BatchError
    from regionvlp.shards.reader import ShardReader as ShardReader
    from regionvlp.shards.reader import UnknownVideoError as UnknownVideoError
    from regionvlp.shards.reader import open_shards as open_shards
    from regionvlp.shards.reader import read_manifest as read_manifest
    from regionvlp.shards.receipts import Receipt as Receipt
    from regionvlp.shards.receipts import read_receipts as read_receipts
    from regionvlp.shards.schema import SCHEMA_VERSION as SCHEMA_VERSION
    from regionvlp.shards.schema import ShardSpec as ShardSpec
    from regionvlp.shards.schema import check_regions as check_regions
    from regionvlp.shards.summary import inspect as inspect
    from regionvlp.shards.verification import verify as verify
    from regionvlp.shards.writer import ShardDoneError as ShardDoneError
    from regionvlp.shards.writer import ShardWriter as ShardWriter
    from regionvlp.store.claims import Claim as Claim
    from regionvlp.store.claims import ClaimInfo as ClaimInfo
    from regionvlp.store.claims import ClaimLostError as ClaimLostError
    from regionvlp.store.claims import Claims as Claims
    from regionvlp.store.files import remove_leftovers as remove_leftovers
    from regionvlp.store.plan import PlanRow as PlanRow
    from regionvlp.store.plan import PlanTable as PlanTable
    from regionvlp.store.plan import read_plan as read_plan
    from regionvlp.store.plan import write_plan as write_plan
    from regionvlp.store.receipts import Failure as Failure
    from regionvlp.store.receipts import Partial as Partial
    from regionvlp.store.receipts import finished_shards as finished_shards
    from regionvlp.store.receipts import library_versions as library_versions
    from regionvlp.store.receipts import lost_shards as lost_shards
    from regionvlp.store.repair import Fault as Fault

__getattr__, __dir__ = exports(
    __name__,
    {
        "regionvlp.shards.batch": ["RegionBatch"],
        "regionvlp.shards.frames": ["DamagedFrameError"],
        "regionvlp.shards.manifest": ["Manifest"],
        "regionvlp.shards.reader": ["BatchError", "ShardReader", "UnknownVideoError", "open_shards", "read_manifest"],
        "regionvlp.shards.receipts": ["Receipt", "read_receipts"],
        "regionvlp.shards.schema": ["SCHEMA_VERSION", "ShardSpec", "check_regions"],
        "regionvlp.shards.summary": ["inspect"],
        "regionvlp.shards.verification": ["verify"],
        "regionvlp.shards.writer": ["ShardDoneError", "ShardWriter"],
        "regionvlp.store.claims": ["Claim", "ClaimInfo", "ClaimLostError", "Claims"],
        "regionvlp.store.files": ["remove_leftovers"],
        "regionvlp.store.plan": ["PlanRow", "PlanTable", "read_plan", "write_plan"],
        "regionvlp.store.receipts": ["Failure", "Partial", "finished_shards", "library_versions", "lost_shards"],
        "regionvlp.store.repair": ["Fault"],
    },
)
