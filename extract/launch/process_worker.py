"""The child of :mod:`~regionvlp.extract.launch.processes`: one worker in a process of its own.

Protocol, lines of JSON. To it, on standard input: first ``{"job": ..., "plans": bool, "listing": descriptor}`` (of an
inherited file with what the source lists; null where nobody listed it), then ``{"begin": work}`` with what there is to
do, ``{"leave": shard}`` and ``{"stop": true}``. From it, on what was standard output: ``{"ready": work, "planned": n,
"videos": n}`` where it plans, ``{"shard": n}`` when it begins one and ``{"shard": null}`` when that is over,
``{"video": frames}``, and how it ended: ``finished``, ``error`` (the user's to mend) or ``died``.
When standard input closes the parent is dead, and it drops what it does.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import traceback
from typing import IO, Any

import pyarrow as pa

from regionvlp.errors import RegionVLPError
from regionvlp.extract.launch.stopping import Stop
from regionvlp.extract.run.job import Job
from regionvlp.extract.run.session import Session

INTERRUPTED = 130
_END_LIMIT = 5.0  # seconds to drop a shard; what is left by then the parent removes, or the next run


def main() -> None:
    """Works until all is done, it is stopped, or its parent is gone. Ends the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group, and is the parent's to handle
    stop = Stop()
    signal.signal(signal.SIGTERM, lambda number, frame: _drop(stop))
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    first = json.loads(sys.stdin.readline())
    logging.basicConfig(format="%(levelname)s: %(message)s", level=first["log_level"])
    code = 0
    try:
        _work(Job.from_dict(first["job"]), first["plans"], first["listing"], stop, answers)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except RegionVLPError as error:
        _send(answers, error=error.to_dict())
        code = error.exit_code
    except Exception as error:
        traceback.print_exc()
        _send(answers, died=f"{type(error).__name__}: {error}")
        code = 1
    os._exit(code)  # not return: the thread that listens would be caught inside a read by the end of Python


def _work(job: Job, plans: bool, listing: int | None, stop: Stop, answers: IO[str]) -> None:
    begun = threading.Event()
    work: dict[str, list[int]] = {}
    with Session(job, on_video=lambda frames: _send(answers, video=frames)) as session:

        def listen() -> None:
            for line in sys.stdin:
                match json.loads(line):
                    case {"begin": found}:
                        work.update(found)
                        begun.set()
                    case {"leave": shard}:
                        session.leave.add(shard)
                    case {"stop": _}:
                        stop.ask()
                        begun.set()
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=listen, daemon=True).start()
        if plans:
            session.prepare(None if listing is None else _read_table(listing))
            found = {"missing": session.work.missing, "retries": list(session.work.retries)}
            _send(answers, ready=found, planned=session.work.planned, videos=session.work.videos)
        else:
            while not begun.wait(0.2):  # a wait without limit would not let the signal through
                pass
            if not stop.asked:
                session.join(work["missing"], work["retries"])
        if not stop.asked:
            session.run(stop, on_shard=lambda number: _send(answers, shard=number))
        _send(answers, finished=True)


def _read_table(descriptor: int) -> pa.Table:
    with open(descriptor, "rb") as file, pa.ipc.open_file(file) as reader:
        return reader.read_all()


def _drop(stop: Stop) -> None:
    if stop.dropped:  # once is enough; the second would disturb the tidying up
        return
    stop.drop()
    watchdog = threading.Timer(_END_LIMIT, os._exit, [INTERRUPTED])
    watchdog.daemon = True
    watchdog.start()
    raise KeyboardInterrupt


def _send(answers: IO[str], **event: Any) -> None:
    try:
        answers.write(json.dumps(event) + "\n")
        answers.flush()
    except BrokenPipeError:
        raise KeyboardInterrupt from None  # the parent is gone
