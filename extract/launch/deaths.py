"""Workers that die: who is started again, and which shard is left because it kills them."""

from __future__ import annotations

from collections import Counter

# A shard that was at hand when so many workers died is left undone; a worker that died so often in a row, each time on
# another shard or on none, is not started again.
DEATHS = 3


class Deaths:
    """Counts who died on what, and says when it is enough."""

    def __init__(self) -> None:
        self._of_shard: Counter[int] = Counter()
        self._of_worker: dict[int, set[int | None]] = {}
        self._starts: Counter[int] = Counter()
        self.left: list[int] = []

    def count(self, worker: int, shard: int | None) -> bool:
        """Notes that a worker died, with a shard at hand or without; returns whether to start it again."""
        self._of_worker.setdefault(worker, set()).add(shard)
        if shard is None:
            self._starts[worker] += 1
            return self._starts[worker] < DEATHS
        self._of_shard[shard] += 1
        if self._of_shard[shard] == DEATHS:
            self.left.append(shard)
            self._of_worker[worker] -= {shard}
        return len(self._of_worker[worker]) < DEATHS

    def survived(self, worker: int) -> None:
        """Notes that a worker finished a shard."""
        self._of_worker.pop(worker, None)
        self._starts.pop(worker, None)
