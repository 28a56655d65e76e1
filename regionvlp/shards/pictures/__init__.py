"""Cached frames: the sampled pictures of many videos as JPEG, so that no video is decoded twice.

::

    FRAMES/manifest.json            kind "frame folder": how many frames, how large, how well
    FRAMES/plan.parquet             which video belongs to which shard
    FRAMES/shard-00000.parquet      a row a video: its frames' numbers, times, sizes, JPEGs and checksums
    FRAMES/shard-00000.json         its receipt

The folder is of the kind of :mod:`regionvlp.store`: it is claimed, resumed, verified and repaired as shards of regions
are. Any reader of Parquet opens the data: ``pandas.read_parquet("FRAMES/shard-00000.parquet").jpeg[0][0]`` is a JPEG.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from regionvlp.lazy import exports

if TYPE_CHECKING:
    from regionvlp.shards.pictures.format import FrameManifest as FrameManifest
    from regionvlp.shards.pictures.format import FrameReceipt as FrameReceipt
    from regionvlp.shards.pictures.reader import CachedVideo as CachedVideo
    from regionvlp.shards.pictures.reader import FrameReader as FrameReader
    from regionvlp.shards.pictures.reader import open_frames as open_frames
    from regionvlp.shards.pictures.verification import repair_frames as repair_frames
    from regionvlp.shards.pictures.verification import verify_frames as verify_frames
    from regionvlp.shards.pictures.writer import FrameWriter as FrameWriter

__getattr__, __dir__ = exports(
    __name__,
    {
        "regionvlp.shards.pictures.format": ["FrameManifest", "FrameReceipt"],
        "regionvlp.shards.pictures.reader": ["CachedVideo", "FrameReader", "open_frames"],
        "regionvlp.shards.pictures.verification": ["repair_frames", "verify_frames"],
        "regionvlp.shards.pictures.writer": ["FrameWriter"],
    },
)
