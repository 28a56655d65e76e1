"""Signals that ask a run to stop, or to save and go on.

SIGINT (Ctrl-C) and SIGTERM (batch systems and spot machines, before they kill) ask for a checkpoint and an end, SIGUSR1
for a checkpoint alone. Batch systems send the last some minutes before a job's time is over (Slurm's ``--signal``): a
run that then goes on loses nothing, for SIGTERM follows, or the next start goes on from that checkpoint.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

IMPATIENT = 2.0  # seconds; torchrun passes a Ctrl-C on to processes that have had it already
SAVE: signal.Signals | None = getattr(signal, "SIGUSR1", None)  # not on Windows
logger = logging.getLogger(__name__)


@contextmanager
def nothing_to_save() -> Iterator[None]:
    """Within the block SIGUSR1, which would end the process, does nothing, but in the block of an :class:`Interrupts`.

    For what lies around the steps: data is opened, a model built, and all that was learnt is saved.
    """
    if SAVE is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(SAVE, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(SAVE, before)


class Interrupts:
    """Within the block signals set flags, which wait for the end of the step.

    A second Ctrl-C, seconds after the first, interrupts at once. Signals can only be caught in a program's main thread;
    elsewhere the block changes nothing.

    Args:
        speaks: whether to say that a request was heard; of several processes that are asked together one should.

    Attributes:
        stop: SIGINT or SIGTERM came.
    """

    def __init__(self, speaks: bool = True) -> None:
        self._speaks = speaks
        self.stop = False
        self._saves = self._saves_taken = 0  # counted, since a flag set back may have been set again meanwhile
        self._since = 0.0
        self._at_once = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, *([SAVE] if SAVE else [])):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def take_save(self) -> bool:
        """Whether SIGUSR1 came since this was last asked."""
        before, self._saves_taken = self._saves_taken, self._saves
        return self._saves_taken > before

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within the block a request to stop raises KeyboardInterrupt: for long work that may be broken off."""
        self._at_once = True
        try:
            if self.stop:
                raise KeyboardInterrupt
            yield
        finally:
            self._at_once = False

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if number == SAVE:
            self._saves += 1
        elif not self.stop:
            self.stop, self._since = True, now
            if self._speaks:
                logger.warning("stopping after this step, with a checkpoint; Ctrl-C again stops at once, without one")
            if self._at_once:
                raise KeyboardInterrupt
        elif number == signal.SIGINT and now - self._since > IMPATIENT:
            raise KeyboardInterrupt
