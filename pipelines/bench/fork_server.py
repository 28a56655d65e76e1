"""Starts the command line again and again without paying for its imports each time.

In: requests, a line of JSON each, on standard input: ``{"start": arguments, "log": file}`` or ``{"wait": pid,
"seconds": most}``. Out: a line of JSON with ``pid`` or ``code`` for each. What is started is the real command line in a
fork of this process, in a session of its own: only the imports, and nothing of a run, were done before. This process
has no threads, and loads neither weights nor data.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

IMPORTS = (
    "regionvlp.pipelines.extract",
    "regionvlp.extract.detector.detector",
    "regionvlp.extract.sources.folder",
    "regionvlp.shards.hdf5",
    "regionvlp.shards.parquet",
    "regionvlp.shards.reader",
)
_POLL = 0.002


class ForkServer:
    """The caller's side. Use it as a context manager; what it started and still runs is the caller's to end.

    Args:
        imports: modules that are imported once for all.
    """

    def __init__(self, imports: Sequence[str] = IMPORTS) -> None:
        command = [sys.executable, "-c", "from regionvlp.pipelines.bench.fork_server import serve; serve()", *imports]
        # A session of its own, so that Ctrl-C reaches the caller alone, who still needs it to end what runs.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def start(self, arguments: list[str], log: Path) -> int:
        """Runs ``regionvlp`` with ``arguments``; returns the process id, which is that of its session too."""
        return int(self._ask({"start": arguments, "log": str(log)})["pid"])

    def wait(self, pid: int, seconds: float) -> int | None:
        """Its exit code (negative for a signal), or None where it runs on."""
        code: int | None = self._ask({"wait": pid, "seconds": seconds})["code"]
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the process that starts runs has ended; it says why above")
        answer: dict[str, Any] = json.loads(line)
        return answer


def serve() -> None:
    """The server's side, until standard input ends."""
    for name in sys.argv[1:]:
        importlib.import_module(name)
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict[str, int | None]
        if "start" in request:
            answer = {"pid": _fork(request["start"], request["log"])}
        else:
            answer = {"code": _wait(request["wait"], request["seconds"])}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _fork(arguments: list[str], log: str) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setsid()
        said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream, target in ((os.open(os.devnull, os.O_RDONLY), 0), (said, 1), (said, 2)):
            os.dup2(stream, target)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        from regionvlp.pipelines.cli import main

        main(arguments)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(pid: int, seconds: float) -> int | None:
    deadline = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= deadline:
            return None
        time.sleep(_POLL)
