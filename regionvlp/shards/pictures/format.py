"""What a folder of cached frames consists of: its manifest, its receipts, and the columns of its data files.

Shape letter: F frames of one video.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from regionvlp.errors import ShardError
from regionvlp.store.manifest import CREATED_BY, BaseManifest
from regionvlp.store.receipts import BaseReceipt

VERSION = 1
MANIFEST_KEY = b"manifest"


@dataclass(frozen=True, kw_only=True)
class FrameManifest(BaseManifest):
    """The settings that make shards of frames mixable.

    Attributes:
        frames: most frames of a video, one from each equal segment.
        longer_side: pixels; larger frames were made so small. quality: of the JPEGs, 1 to 100.
        shard_size: videos planned per shard.
        video: how frames were read and sampled; JSON values.
    """

    KIND: ClassVar = "frame folder"
    SCHEMA_VERSION: ClassVar = VERSION
    SUFFIXES: ClassVar = {"parquet": ".parquet"}
    ORDER: ClassVar = ("format", "frames", "longer_side", "quality", "shard_size", "video", "created_by")

    format: str = "parquet"
    frames: int
    longer_side: int
    quality: int
    shard_size: int
    video: dict[str, Any]
    schema_version: int = VERSION
    created_by: str = CREATED_BY


@dataclass(frozen=True, kw_only=True)
class FrameReceipt(BaseReceipt):
    """Proof that a shard of frames is done.

    Attributes:
        frames: how many the data file holds.
    """

    SCHEMA_VERSION: ClassVar = VERSION
    COUNTS: ClassVar = ("videos", "frames")

    frames: int
    schema_version: int = VERSION


COLUMNS = pa.schema(
    [
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("frame_index", pa.list_(pa.int64()), nullable=False),  # number of each frame in display order, from 0
        pa.field("frame_time", pa.list_(pa.float64()), nullable=False),  # seconds, as the container stamps it
        pa.field("image_size", pa.list_(pa.int32()), nullable=False),  # height and width of each frame as decoded
        pa.field("jpeg", pa.list_(pa.binary()), nullable=False),
        pa.field("checksum", pa.list_(pa.uint64()), nullable=False),  # XXH3 of each JPEG
    ]
)


def schema_of(manifest: FrameManifest) -> pa.Schema:
    """The columns, with the manifest inside, so that a folder whose manifest is lost can be mended."""
    return COLUMNS.with_metadata({MANIFEST_KEY: json.dumps(manifest.as_dict())})


def holds_frames(folder: Path) -> bool:
    """Whether a folder holds cached frames, as far as its manifest can be read."""
    try:
        FrameManifest.read(folder)
    except ShardError:
        return False
    return True


def embedded_manifest(path: Path) -> dict[str, Any]:
    """The manifest inside a data file."""
    values: dict[str, Any] = json.loads(pq.read_schema(path).metadata[MANIFEST_KEY])
    return values
