"""Reads batches through a torch loader, with errors that stay one line long.

In: a loader, perhaps with workers. Out: its batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from regionvlp.errors import RegionVLPError

BatchT = TypeVar("BatchT")


def read_batches(loader: Iterable[BatchT]) -> Iterator[BatchT]:
    """The batches of ``loader``.

    Raises:
        RegionVLPError: what a worker raised, in its own words: torch hands it on with the worker's traceback as its
            message.
    """
    try:
        yield from loader
    except RegionVLPError as error:
        lines = error.message.strip().splitlines()
        if len(lines) == 1:
            raise
        # The last line of a traceback is "module.Class: message".
        raise type(error)(lines[-1].partition(": ")[2]) from None
