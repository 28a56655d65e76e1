"""How long files are, see ``asking``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from regionvlp.search.asking import ask, serve

TIME_LIMIT = 60.0  # seconds for one file


def durations(paths: Iterable[Path]) -> Iterator[float | None]:
    """The length of each file in seconds; None for pictures, and where it cannot be told."""
    return ask("regionvlp.search.durations", paths, TIME_LIMIT)


def duration_of(path: Path) -> float | None:
    """The length of one file, looked up in this process."""
    from regionvlp.errors import VideoError
    from regionvlp.video import probe

    try:
        return probe(path).duration
    except (VideoError, OSError, ValueError):
        return None


if __name__ == "__main__":
    serve(duration_of)
