"""Progress of long work: a bar with rate and ETA on a terminal, one plain line every 30 seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from types import TracebackType

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

PLAIN_LINE_EVERY = 30.0  # seconds


class _Noted(Progress):
    """A bar with a line below it, cut where the terminal ends."""

    note = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.note:
            yield Text(f"  {self.note}", no_wrap=True, overflow="ellipsis")


class ProgressBar:
    """Counts items up to a total and shows how fast and how long still, on standard error.

    Args:
        label: what is being done, for example ``extract``.
        unit: what an item is called, for example ``videos``.
        rate_unit: what :meth:`advance`'s ``work`` counts, for example ``frames``; the rate shown is of this.
    """

    def __init__(self, label: str, unit: str, rate_unit: str) -> None:
        self.label, self.unit, self.rate_unit = label, unit, rate_unit
        self._total = self._done = self._before = 0
        self._work = 0.0
        self._started = self._last_line = time.monotonic()
        self._task: TaskID | None = None
        self._bar = _Noted(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),  # where it is narrow the bar gives way
            TextColumn("{task.fields[rate]}"),
            TextColumn("eta"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty(),
        )

    def __enter__(self) -> ProgressBar:
        if not self._bar.disable:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._bar.disable:  # rich ends a bar that it never drew with an empty line
            self._bar.stop()

    def begin(self, total: int, done: int = 0) -> None:
        """Starts the clock and the bar for ``total`` items, of which ``done`` were done before the clock started."""
        self._total, self._done, self._before = total, done, done
        self._started = self._last_line = time.monotonic()
        self._task = self._bar.add_task(self.label, total=total, completed=done, rate="")

    def note(self, text: str) -> None:
        """What stands below the bar from now on, and at the end of plain lines."""
        self._bar.note = text

    def advance(self, items: int = 1, work: float = 0.0) -> None:
        """Counts ``items`` as done, which took ``work`` units of the rate."""
        self._done += items
        self._work += work
        now = time.monotonic()
        assert self._task is not None, "begin() first"
        self._bar.update(self._task, completed=self._done, rate=self._rate(now))
        if self._bar.disable and now - self._last_line >= PLAIN_LINE_EVERY:
            self._last_line = now
            sys.stderr.write(self._line(now) + "\n")
            sys.stderr.flush()

    def _rate(self, now: float) -> str:
        seconds = max(now - self._started, 1e-9)
        return f"{self._work / seconds:.1f} {self.rate_unit}/s"

    def _line(self, now: float) -> str:
        left = (now - self._started) / max(self._done - self._before, 1) * (self._total - self._done)
        minutes, seconds = divmod(round(left), 60)
        done = f"{self.label}: {self._done}/{self._total} {self.unit}"
        note = f"; {self._bar.note}" if self._bar.note else ""
        return f"{done}, {self._rate(now)}, about {minutes}m{seconds:02d}s left{note}"
