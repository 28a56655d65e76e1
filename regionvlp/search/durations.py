"""How long files are, asked of a process that may die: a damaged file can hang or crash whoever looks into it.

In: paths. Out: seconds, or None where a file does not tell. ``python -m regionvlp.search.durations`` is the process: a
path in JSON a line on standard input, an answer in JSON a line on standard output.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

TIME_LIMIT = 60.0  # seconds for one file


def durations(paths: Iterable[Path]) -> Iterator[float | None]:
    """The length of each file in seconds; None for pictures, and where it cannot be told."""
    child: subprocess.Popen[bytes] | None = None
    try:
        for path in paths:
            child = child or _start()
            answer = _ask(child, path)
            if answer is None:
                _stop(child)
                child = None
            yield answer[0] if answer else None
    finally:
        if child is not None:
            _stop(child)


def _start() -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "regionvlp.search.durations"]
    # Not in the current folder: Python would look there for modules first.
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[2]
    )


def _ask(child: subprocess.Popen[bytes], path: Path) -> list[float | None] | None:
    """The answer of the child in a list of one, or None where it died or took too long."""
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        child.stdin.write(json.dumps(str(path.absolute())).encode() + b"\n")
        child.stdin.flush()
        if not select.select([child.stdout], [], [], TIME_LIMIT)[0]:
            return None
        line = child.stdout.readline()
        return [json.loads(line)] if line else None
    except (OSError, ValueError):
        return None


def _stop(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.communicate()


def main() -> None:
    """Serves until standard input closes."""
    from regionvlp.errors import VideoError
    from regionvlp.video import probe

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not get in between
    for line in sys.stdin:
        try:
            duration = probe(Path(json.loads(line))).duration
        except (VideoError, OSError, ValueError):
            duration = None
        answers.write(json.dumps(duration) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
