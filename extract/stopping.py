"""Ctrl-C once: finish the shard at hand. Twice, or a SIGTERM: drop it at once. Either way the folder can be resumed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """Whether work is to end after the shard at hand."""

    def __init__(self) -> None:
        self._asked = threading.Event()

    def ask(self) -> None:
        """Asks for it; from a signal handler or another thread."""
        self._asked.set()

    @property
    def asked(self) -> bool:
        return self._asked.is_set()

    def wait(self, seconds: float) -> bool:
        """Sleeps, but no longer than until somebody asks; returns :attr:`asked`."""
        return self._asked.wait(seconds)


@contextmanager
def on_interrupt(stop: Stop, say: Callable[[str], None]) -> Iterator[None]:
    """Within the block the first SIGINT asks to stop, and the second raises KeyboardInterrupt.

    Outside the main thread, which alone gets signals, nothing changes.

    Args:
        stop: told by the first.
        say: called with a line for the user.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        stop.ask()
        say("finishing the shard at hand; Ctrl-C again to stop at once")

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
