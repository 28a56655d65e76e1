"""The manifest of a folder of regions: what all its shards have in common.

In: the settings of a run. Out: ``manifest.json``, as :mod:`regionvlp.store.manifest` writes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from regionvlp.shards.detectors import completed
from regionvlp.shards.schema import SCHEMA_VERSION, SUFFIXES, ShardSpec
from regionvlp.store.manifest import CREATED_BY, BaseManifest


@dataclass(frozen=True, kw_only=True)
class Manifest(ShardSpec, BaseManifest):
    """The settings that make shards of regions mixable.

    Attributes:
        shard_size: videos planned per shard.
        detector: identity of the detector, such as family, weights hash and preprocessing; JSON values.
        video: how frames were read and sampled; JSON values.
        created_by: the writing program, for information; the only field that need not agree.
    """

    KIND: ClassVar = "shard folder"
    SCHEMA_VERSION: ClassVar = SCHEMA_VERSION
    SUFFIXES: ClassVar = SUFFIXES
    ORDER: ClassVar = (
        *("format", "dtype", "frames", "regions", "feature_width"),
        *("shard_size", "detector", "video", "created_by"),
    )

    schema_version: int = SCHEMA_VERSION
    shard_size: int
    detector: dict[str, Any]
    video: dict[str, Any]
    created_by: str = CREATED_BY

    def difference(self, other: Mapping[str, Any]) -> str | None:
        """See :meth:`.BaseManifest.difference`; detectors agree where one leaves unsaid what its family does."""
        detector = other.get("detector")
        theirs = {**other, "detector": completed(detector)} if isinstance(detector, dict) else other
        return BaseManifest.difference(replace(self, detector=completed(self.detector)), theirs)
