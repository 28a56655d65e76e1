"""A question about each of many files, asked of a process that may die: a damaged file can hang who looks at it.

In: paths, and a module that answers. Out: an answer each, or None. ``python -m MODULE`` is the process: a path in JSON
a line on standard input, an answer in JSON a line on standard output.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any


def ask(module: str, paths: Iterable[Path], time_limit: float) -> Iterator[Any]:
    """The answer of a module about each file; None where it has none, dies, or takes longer than ``time_limit`` s."""
    child: subprocess.Popen[bytes] | None = None
    try:
        for path in paths:
            child = child or _start(module)
            answer = _answer(child, path, time_limit)
            if answer is None:
                _stop(child)
                child = None
            yield answer[0] if answer else None
    finally:
        if child is not None:
            _stop(child)


def serve(answer: Callable[[Path], Any]) -> None:
    """What such a module does as a process: answers until standard input closes."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not get in between
    for line in sys.stdin:
        answers.write(json.dumps(answer(Path(json.loads(line)))) + "\n")
        answers.flush()


def _start(module: str) -> subprocess.Popen[bytes]:
    # Not in the current folder: Python would look there for modules first.
    return subprocess.Popen(
        [sys.executable, "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[2],
    )


def _answer(child: subprocess.Popen[bytes], path: Path, time_limit: float) -> list[Any] | None:
    """The answer in a list of one, or None where the child died or took too long."""
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        child.stdin.write(json.dumps(str(path.absolute())).encode() + b"\n")
        child.stdin.flush()
        if not select.select([child.stdout], [], [], time_limit)[0]:
            return None
        line = child.stdout.readline()
        return [json.loads(line)] if line else None
    except (OSError, ValueError):
        return None


def _stop(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.communicate()
