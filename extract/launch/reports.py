"""What a launcher tells whoever shows it to people."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Reports:
    """What a launcher tells whoever shows it.

    Attributes:
        plan: once, the number of videos planned and of those still to do.
        video: after each video, the number of frames written (0 for a failure).
        elsewhere: the number of videos of a shard that a worker of another command did.
        note: a line for people.
    """

    plan: Callable[[int, int], None] = lambda planned, left: None
    video: Callable[[int], None] = lambda frames: None
    elsewhere: Callable[[int], None] = lambda videos: None
    note: Callable[[str], None] = lambda line: None
