"""Where and how much at once: the device, the batch and chunk sizes that fit it, and what running out looks like."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from regionvlp.errors import ConfigError
from regionvlp.extract.detector.config import DetectorConfig
from regionvlp.extract.detector.head import RegionHead

log = logging.getLogger(__name__)

SMALLEST_CHUNK = 8
# What the activations of one chunk of regions may take: at full size 64 regions in float32 and 128 in bf16 on a CPU,
# 256 in fp16 on CUDA. Past that nothing gets faster.
_CHUNK_BYTES = {"cpu": 320 * 2**20, "cuda": 640 * 2**20}
_MOST_REGIONS = 512
_FRAMES = {"cpu": 8, "cuda": 32}


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


def to_main_memory(values: Tensor) -> Tensor:
    """A copy in main memory. From CUDA it does not wait: it is there once anything that was asked for later is."""
    if values.device.type != "cuda":
        return values
    copy = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return copy.copy_(values, non_blocking=True)


@torch.inference_mode()
def compile_res5(head: RegionHead, chunk: int, *, required: bool) -> None:
    """Compiles res5 for chunks of one size and runs it once; where that fails, res5 stays as it is.

    Raises:
        ConfigError: it fails although it is ``required``.
    """
    weight, side = next(head.res5.parameters()), head.config.head.pool_size
    regions = weight.new_zeros((chunk, head.config.feature_width // 2, side, side))
    compiled = torch.compile(head.res5.forward, dynamic=False)
    try:
        compiled(regions.to(memory_format=torch.channels_last))
    except Exception as error:  # no compiler, no Triton, an unknown device: each backend has errors of its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        if required:
            raise ConfigError(f"torch.compile fails here: {reason}", "set detector.compile=off") from None
        log.warning("torch.compile fails here (%s); going on without", reason)
        return
    head.compiled_res5 = compiled


def is_out_of_memory(error: BaseException) -> bool:
    """True for the ways in which CUDA, torch's CPU allocator and Python say that there is no memory left."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    words = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in words or "can't allocate memory" in words)
