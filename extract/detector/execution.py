"""Where and how much at once: the device, the batch and chunk sizes that fit it, and what running out looks like."""

from __future__ import annotations

import torch
from torch import Tensor

from regionvlp.errors import ConfigError
from regionvlp.extract.detector.config import DetectorConfig

SMALLEST_CHUNK = 8
# What the activations of one chunk of regions may take: at full size 64 regions in float32 and 128 in bf16 on a CPU,
# 256 in fp16 on CUDA. Past that nothing gets faster.
_CHUNK_BYTES = {"cpu": 320 * 2**20, "cuda": 640 * 2**20}
_MOST_REGIONS = 512
_FRAMES = {"cpu": 8, "cuda": 32}


def pick_device(device: str) -> torch.device:
    """``auto`` is CUDA where there is one, else the CPU.

    Raises:
        ConfigError: there is no such device here; the hint names those that there are.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    usable = ["cpu"]
    if torch.cuda.is_available():
        usable += ["cuda", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    if device not in usable:
        raise ConfigError(f"there is no device '{device}' on this machine", f"use auto or one of: {', '.join(usable)}")
    return torch.device(device)


def frames_at_once(device: torch.device) -> int:
    """The default of ``detector.batch``."""
    return _FRAMES[device.type]


def regions_at_once(config: DetectorConfig, res5: torch.dtype, device: torch.device) -> int:
    """The most regions that pass res5 at once: a multiple of 32 whose activations fit a budget.

    Three maps of res5's width live at once: the two that a block adds up, and what it was given.
    """
    side = config.head.pool_size
    a_region = 3 * config.feature_width * side * side * res5.itemsize
    fitting = min(_CHUNK_BYTES[device.type] // a_region, _MOST_REGIONS)
    return max(fitting // 32 * 32, SMALLEST_CHUNK)


def to_device(frames: Tensor, device: torch.device) -> Tensor:
    """Frames on ``device``; to CUDA through pinned memory, so that the copy does not hold up the processor."""
    if device.type == "cuda":
        return frames.pin_memory().to(device, non_blocking=True)
    return frames.to(device)


def is_out_of_memory(error: BaseException) -> bool:
    """True for the ways in which CUDA, torch's CPU allocator and Python say that there is no memory left."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    words = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in words or "can't allocate memory" in words)
