"""Number formats: float32 that is float32.

A detector's choices hang on small differences (NMS, sorting, RoIPool's rounding), so TF32 is off while it runs,
whatever the rest of the program wants.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.backends import cuda, cudnn


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
