"""The configuration of an extraction, section by section; ``configs/extract/default.yaml`` explains every key."""

from __future__ import annotations

import os
import re
from typing import Any, Literal

from pydantic import Field, model_validator

from regionvlp.config import Config

_FACTORY = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


class DetectorSettings(Config):
    """Which detector runs, where, and which regions it keeps."""

    name: str = "auto"
    device: str = "auto"
    regions: int = Field(30, ge=1, le=300)
    selection: str | None = None
    proposals: int | None = Field(None, ge=1, le=6000)
    precision: Literal["auto", "float32", "fp16", "bf16"] = "auto"
    batch: int | None = Field(None, ge=1, le=1024)
    compile: Literal["auto"] | bool = "auto"
    backend: Literal["native", "detectron2"] = "native"
    factory: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _code_of_ones_own(cls, values: Any) -> Any:
        """``name`` may be ``package.module:factory``, unless there is a file of that name."""
        name = values.get("name") if isinstance(values, dict) else None
        if isinstance(name, str) and _FACTORY.fullmatch(name) and not os.path.exists(name):
            return {"factory": name, **values, "name": "auto"}
        return values


class VideoSettings(Config):
    """Which frames are read, by which reader, and what a single video may cost."""

    frames: int = Field(8, ge=1, le=1024)
    decoder: Literal["auto", "pyav", "decord", "torchcodec"] = "auto"
    max_seconds: float | None = Field(None, gt=0)
    workers: int | None = Field(None, ge=1, le=256)
    attempts: int = Field(3, ge=1, le=100)
    time_limit: float = Field(120.0, gt=0)
    memory_limit_mb: int | None = Field(4096, ge=256)


DEFAULT_SHARD_SIZE = 512


class ShardSettings(Config):
    """How the result lies on disk. ``size`` None: at most 512 videos a shard, fewer so that every worker has some."""

    format: Literal["hdf5", "parquet"] = "hdf5"
    dtype: Literal["float16", "float32", "uint8"] = "float16"
    size: int | None = Field(None, ge=1, le=100_000)


class FrameSettings(Config):
    """How frames are kept, where frames are what is extracted."""

    longer_side: int = Field(1024, ge=16, le=16384)
    quality: int = Field(92, ge=1, le=100)


class RunSettings(Config):
    """Who does the work, and what becomes of what went wrong; no two runs of a folder need agree on it."""

    engine: Literal["local", "ray"] = "local"
    processes: int | None = Field(None, ge=1, le=1024)
    address: str | None = None
    cpus_per_worker: int = Field(4, ge=1, le=1024)
    retry: Literal["none", "transient", "all"] = "transient"
    stale_after: float = Field(300.0, gt=0)
    card: bool = True


class ExtractConfig(Config):
    """Everything ``regionvlp extract`` can be told."""

    detector: DetectorSettings = DetectorSettings()
    video: VideoSettings = VideoSettings()
    shards: ShardSettings = ShardSettings()
    frames: FrameSettings = FrameSettings()
    run: RunSettings = RunSettings()
