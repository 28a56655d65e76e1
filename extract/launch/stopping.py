"""Ctrl-C once: finish the shard at hand. Twice, or a SIGTERM: drop it at once. Either way the folder can be resumed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """Whether work is to end after the shard at hand, or at once."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self.dropped = False

    def ask(self) -> None:
        """Asks for an end after the shard at hand; from a signal handler or another thread."""
        self._asked.set()

    def drop(self) -> None:
        """Asks for an end at once, to be followed by a KeyboardInterrupt.

        An exception that a signal raises is lost where it meets a callback of the interpreter's own, so whoever is at
        work also looks here, after each video.
        """
        self.dropped = True
        self._asked.set()

    @property
    def asked(self) -> bool:
        return self._asked.is_set()

    def wait(self, seconds: float) -> bool:
        """Sleeps, but no longer than until somebody asks; returns :attr:`asked`."""
        return self._asked.wait(seconds)


@contextmanager
def on_interrupt(stop: Stop, say: Callable[[str], None]) -> Iterator[None]:
    """Within the block the first SIGINT asks to stop; a second one, or SIGTERM, raises KeyboardInterrupt.

    Outside the main thread, which alone gets signals, nothing changes.

    Args:
        stop: is told.
        say: called with a line for the user.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not stop.asked:
            stop.ask()
            say("finishing the shard at hand; Ctrl-C again to stop at once")
            return
        stop.drop()
        raise KeyboardInterrupt

    def terminate(number: int, frame: FrameType | None) -> None:
        if not stop.dropped:  # a second one must not disturb the tidying up
            stop.drop()
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt), signal.signal(signal.SIGTERM, terminate)
    try:
        yield
        if stop.dropped:
            raise KeyboardInterrupt
    finally:
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGTERM, before[1])
