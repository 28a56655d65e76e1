"""Where a step's time goes: waiting for data, or computing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

ACTIVITIES = ("data", "compute")
SLOW_LOADER = 0.3  # share of the time spent waiting above which more workers are worth a word


class StepTimer:
    """Adds up seconds by activity, since the last :meth:`lap` and in all.

    A GPU computes while Python runs ahead, so single steps mean nothing there; over the steps between two logs, which
    end with a copy to the host, the sums are right: a GPU that is the bottleneck never waits for data.
    """

    def __init__(self) -> None:
        self._lap = dict.fromkeys(ACTIVITIES, 0.0)
        self._total = dict.fromkeys(ACTIVITIES, 0.0)
        self._pairs = self._steps = 0

    @contextmanager
    def measure(self, activity: str) -> Iterator[None]:
        """Counts the time of the block as ``activity``, one of :data:`ACTIVITIES`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._lap[activity] += time.perf_counter() - started

    def count(self, pairs: int) -> None:
        """Notes that a step over ``pairs`` pairs is done."""
        self._pairs += pairs
        self._steps += 1

    def lap(self) -> dict[str, float]:
        """Returns seconds per step by activity and pairs per second since the last lap, and starts a new one."""
        seconds = max(sum(self._lap.values()), 1e-9)
        values = {f"time/{name}_s": self._lap[name] / max(self._steps, 1) for name in ACTIVITIES}
        values["time/pairs_per_s"] = self._pairs / seconds
        for name in ACTIVITIES:
            self._total[name] += self._lap[name]
            self._lap[name] = 0.0
        self._pairs = self._steps = 0
        return values

    def summary(self) -> str:
        """Says what the steps up to the last lap waited for, and what to do if that was the data."""
        seconds = sum(self._total.values())
        share = self._total["data"] / seconds if seconds else 0.0
        text = f"{seconds:.0f} s in steps, {share:.0%} of it waiting for data"
        return text + ("; a larger train.workers may help" if share > SLOW_LOADER else "")
