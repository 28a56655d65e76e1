"""Number formats: which stage computes in which, and float32 that is float32.

A detector's choices hang on small differences (NMS, sorting, RoIPool's rounding), so TF32 is off while it runs,
whatever the rest of the program wants, and only the two costly stages may use half precision: the backbone (with the
RPN's 3x3 convolution) and res5. RoI pooling, the linear layers, decoding, softmax and NMS always see float32.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.backends import cuda, cudnn

from regionvlp.errors import ConfigError, WeightsError

PRECISIONS = ("auto", "float32", "fp16", "bf16")
_WIDE = 1024
log = logging.getLogger(__name__)
_NAMES = {torch.float32: "float32", torch.float16: "fp16", torch.bfloat16: "bf16"}


@dataclass(frozen=True)
class StageTypes:
    """The number format of each stage that has a choice."""

    backbone: torch.dtype = torch.float32
    res5: torch.dtype = torch.float32

    @property
    def reduced(self) -> bool:
        """True where anything is below float32."""
        return self != StageTypes()

    def names(self) -> dict[str, str]:
        """``{"backbone": "float32", "res5": "bf16"}``: part of a detector's identity."""
        return {"backbone": _NAMES[self.backbone], "res5": _NAMES[self.res5]}


def choose_types(precision: str, device: torch.device, width: int) -> StageTypes:
    """What ``detector.precision`` means on ``device`` for a detector with features of ``width``.

    ``float32`` is float32. ``fp16`` is fp16 in backbone and res5 on CUDA, in res5 alone on a CPU. ``bf16`` is bf16 in
    res5 alone everywhere: a bf16 backbone moves the proposals. ``auto`` is fp16 on CUDA; on a CPU it is bf16 where the
    processor multiplies bf16 in hardware and res5 is wide enough to gain from it, else float32. On two cores of an AMD
    EPYC with AVX-512 bf16, res5 at full size took 31 ms of processor time a region in bf16 and 57 in float32, in chunks
    of 32, 64 and 128 regions alike (bf16: 34, 32, 30); the bundled toy gained nothing.

    Raises:
        ConfigError: no such precision.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"unknown detector.precision '{precision}'", f"use one of: {', '.join(PRECISIONS)}")
    if device.type == "cuda" and precision in ("auto", "fp16"):
        return StageTypes(torch.float16, torch.float16)
    if precision == "fp16":
        return StageTypes(res5=torch.float16)
    worthwhile = precision == "auto" and device.type == "cpu" and width >= _WIDE and _cpu_multiplies_bf16()
    if precision == "bf16" or worthwhile:
        return StageTypes(res5=torch.bfloat16)
    return StageTypes()


def _cpu_multiplies_bf16() -> bool:
    """AVX-512 bf16, which AMX brings along; torch has no public name for this in all the releases that we support."""
    asked = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(asked and asked())


def sums_of(values: torch.Tensor) -> torch.Tensor:
    """[N], the sum of each entry of [N, ...] in float32, which is finite where all that was in half precision is."""
    return values.flatten(1).sum(1, dtype=torch.float32)


def overflowed(sums: torch.Tensor, counts: Sequence[int]) -> list[int]:
    """Which frames of a batch overflowed.

    Args:
        sums: [B + K] in main memory: :func:`sums_of` the maps of the B frames, then those of the K regions' features.
        counts: regions of each frame.
    """
    frames, *regions = torch.split(sums.isfinite(), [len(counts), *counts])
    return [number for number, own in enumerate(regions) if not (frames[number] and own.all())]


class Overflows:
    """Counts frames that overflow in half precision; says it once, and refuses where all of them would.

    Args:
        name: the detector's.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._told = False

    def note(self, frames: int, overflowed: int, always: Callable[[], bool]) -> None:
        """Notes that ``overflowed`` of ``frames`` did; ``always`` is asked the first time whether all would.

        Raises:
            WeightsError: every picture overflows, so half precision is no use with these weights.
        """
        if self._told:
            return
        if always():
            raise WeightsError(
                f"the features of detector '{self._name}' overflow in half precision",
                "run with --set detector.precision=float32",
            )
        self._told = True
        log.warning(
            "%d of %d frames overflow in half precision and are done again in float32, as others will be without "
            "another word; with --set detector.precision=float32 all are",
            *(overflowed, frames),
        )


def _switches() -> list[tuple[Any, str, Any]]:
    """(owner, attribute, value while the detector runs); torch 2.9 renamed those of TF32."""
    fixed: list[tuple[Any, str, Any]] = [(cudnn, "benchmark", False), (cudnn, "deterministic", True)]
    if hasattr(cudnn, "conv"):
        # The old names must not even be read: that fails where a user has set the new ones.
        return [*fixed, (cuda.matmul, "fp32_precision", "ieee"), (cudnn.conv, "fp32_precision", "ieee")]
    return [*fixed, (cuda.matmul, "allow_tf32", False), (cudnn, "allow_tf32", False)]


@contextmanager
def exact_float32() -> Iterator[None]:
    """Keeps out TF32 and kernels chosen by timing, for this block only."""
    switches = _switches()
    before = [getattr(owner, name) for owner, name, _ in switches]
    try:
        for owner, name, value in switches:
            setattr(owner, name, value)
        yield
    finally:
        for (owner, name, _), value in zip(switches, before, strict=True):
            setattr(owner, name, value)
