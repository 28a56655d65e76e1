"""Which device a setting means on this machine: one rule for the detector, the trainer and the evaluation."""

from __future__ import annotations

import platform

import torch

from regionvlp.errors import ConfigError


def pick_device(device: str, local_rank: int | None = None) -> torch.device:
    """``auto`` is CUDA where there is one, else the CPU.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        local_rank: of a process among several on this machine; it then takes the GPU of that number.

    Raises:
        ConfigError: there is no such device here; the hint names those that there are.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    usable = ["cpu", *(["cuda"] if count else []), *(f"cuda:{number}" for number in range(count))]
    if device == "auto":
        device = "cuda" if count else "cpu"
    if device not in usable:
        raise ConfigError(f"there is no device '{device}' on this machine", f"use auto or one of: {', '.join(usable)}")
    if device == "cpu":
        return torch.device("cpu")
    if local_rank is None:
        return torch.device(device if ":" in device else "cuda:0")
    if local_rank >= count:
        raise ConfigError(
            f"there is no GPU number {local_rank}: torch finds {count}",
            "start as many processes per machine as it has GPUs",
        )
    return torch.device("cuda", local_rank)


def describe_device(device: torch.device) -> str:
    """What reports call a device: the GPU's name, or the CPU's kind and how many threads torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()} CPU, {torch.get_num_threads()} threads"


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """Returns what to autocast to on ``device``; None for float32 throughout.

    Raises:
        ConfigError: bf16 is asked for on a GPU without it.
    """
    has_it = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "bf16" and not has_it:
        raise ConfigError("train.precision=bf16: this GPU does not compute in bfloat16", "use train.precision=float32")
    if precision == "bf16" or (precision == "auto" and device.type == "cuda" and has_it):
        return torch.bfloat16
    return None
