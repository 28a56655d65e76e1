"""A request to stop that waits for the end of the step."""

from __future__ import annotations

import logging
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

IMPATIENT = 2.0  # seconds; torchrun passes a Ctrl-C on to processes that have had it already
logger = logging.getLogger(__name__)


class Interrupts:
    """Within the block SIGINT and SIGTERM set :attr:`asked`; a second Ctrl-C, seconds later, interrupts at once.

    Signals can only be caught in a program's main thread; elsewhere the block changes nothing.
    """

    def __init__(self) -> None:
        self.asked = False
        self._since = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.asked:
            self.asked, self._since = True, now
            logger.warning("stopping after this step, with a checkpoint; Ctrl-C again stops at once, without one")
        elif number == signal.SIGINT and now - self._since > IMPATIENT:
            raise KeyboardInterrupt
