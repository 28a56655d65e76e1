"""What the comparisons of a run found, case by case: ``pytest tests/parity --parity-table`` prints it at the end.

In: every comparison of a test with a golden number. Out: per test the one that came nearest to its tolerance.
"""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """The comparison of a test that came nearest to its tolerance, of how many."""

    difference: float
    within: float
    comparisons: int

    @property
    def share(self) -> float:
        """Of the tolerance; 0 where both are 0."""
        return self.difference / self.within if self.within else 0.0


ROWS: dict[str, Row] = {}


def record(difference: float, within: float) -> None:
    """Notes a comparison of the test that is running."""
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition("::")[2].partition(" ")[0]
    old = ROWS.get(test, Row(0.0, within, 0))
    new = Row(difference, within, 0)
    worst = new if new.share >= old.share else old
    ROWS[test] = Row(worst.difference, worst.within, old.comparisons + 1)


def lines() -> list[str]:
    """The table as text."""
    width = max(map(len, ROWS), default=4)
    head = f"{'case':<{width}}  {'difference':>10}  {'tolerance':>9}  {'share':>6}  comparisons"
    return [head] + [
        f"{test:<{width}}  {row.difference:>10.1e}  {row.within:>9.1e}  {row.share:>6.1%}  {row.comparisons:>11}"
        for test, row in sorted(ROWS.items())
    ]
