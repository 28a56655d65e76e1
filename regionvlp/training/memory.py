"""Out of memory, in one line that names the settings which decide how much is needed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from regionvlp.errors import RegionVLPError, first_line

_HOST = "can't allocate memory"  # torch has a kind of its own for devices alone
_ASKED = re.compile(r"[Tt]ried to allocate ([0-9.]+ (?:[KMGT]iB|bytes))")


class OutOfMemoryError(RegionVLPError):
    """The memory of a device, or of the machine, is too small for what was asked of it."""


@contextmanager
def naming(work: str, device: torch.device, hint: str) -> Iterator[None]:
    """Turns a lack of memory within the block into an error for the user.

    Args:
        work: what is being done, settings included, for example ``a step of train.batch_size 128``.
        device: where.
        hint: which settings to change, and how.

    Raises:
        OutOfMemoryError: instead of the error of torch, NumPy or Python.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and _HOST not in str(error):
            raise
        asked = _ASKED.search(str(error))
        where = device if isinstance(error, torch.OutOfMemoryError) else "this machine"
        size = f" ({asked[1]} more were asked for)" if asked else ""
        raise OutOfMemoryError(f"out of memory on {where} in {work}{size}", hint) from None


@contextmanager
def naming_workers() -> Iterator[None]:
    """Turns the death of a loader process into an error for the user: the system kills what takes too much memory.

    Raises:
        OutOfMemoryError: instead of torch's error.
    """
    hint = "lower train.workers or train.batch_size, or leave data.clips.in_memory out; shared memory counts as well"
    with naming("reading a batch", torch.device("cpu"), hint):
        try:
            yield
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise OutOfMemoryError(
                f"a loader process was killed, as happens where memory runs out: {first_line(error)}", hint
            ) from None
