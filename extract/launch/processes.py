"""Several workers on this machine, a process each (one per GPU, say): started, watched, and replaced when they die.

The parent holds nothing that matters. Workers talk to it in lines of JSON, so that it can show progress, and it tells
them what to begin, which shards to leave, and when to stop. The other end is
:mod:`~regionvlp.extract.launch.process_worker`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from regionvlp.errors import RegionVLPError, error_from
from regionvlp.extract.launch.deaths import DEATHS, Deaths
from regionvlp.extract.launch.reports import Reports
from regionvlp.extract.launch.stopping import Stop, on_interrupt
from regionvlp.extract.run.job import Job
from regionvlp.extract.run.session import Tally
from regionvlp.extract.settings import ExtractConfig
from regionvlp.video.pool import usable_cpus

log = logging.getLogger(__name__)

_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "from regionvlp.extract.launch.process_worker import main; main()"
)
_TICK = 0.2
_END_LIMIT = 10.0  # seconds that a worker gets to drop its shard


def run_processes(
    job: Job, found: pa.Table | None, devices: list[str], stop: Stop, reports: Reports
) -> tuple[Tally, list[int]]:
    """Has a worker process for each of ``devices`` do a job.

    Args:
        job: of all workers together.
        found: see :meth:`Session.prepare`.
        devices: where each detects.
        stop: asks them all to end after the shard at hand.
        reports: see :class:`Reports`.

    Returns:
        What the workers did, and the shards that were left because they kill their workers.

    Raises:
        RegionVLPError: the first that a worker raised, or none of them can be kept alive. The others were stopped.
        KeyboardInterrupt: passed on, after all workers dropped their shards.
    """
    with _as_file(found) as listing:
        crew = _Crew(replace(job, config=_shared_out(job.config, len(devices))), listing, devices, reports)
        with crew.ended_whatever_happens(), on_interrupt(stop, reports.note):
            crew.run(stop)
    return crew.tally, crew.deaths.left


@contextmanager
def _as_file(found: pa.Table | None) -> Iterator[int | None]:
    """A listing as a file without a name, for a child to inherit; yields its descriptor."""
    if found is None:
        yield None
        return
    with tempfile.TemporaryFile() as file:
        with pa.ipc.new_file(file, found.schema) as writer:
            writer.write_table(found)
        file.flush()
        yield file.fileno()


@dataclass
class _Worker:
    """One slot of the crew and the process that fills it now."""

    number: int
    process: subprocess.Popen[str]
    shard: int | None = None
    finished: bool = False
    last_words: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def tell(self, **message: Any) -> None:
        """Sends a message; one that died meanwhile misses nothing."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()


class _Crew:
    def __init__(self, job: Job, listing: int | None, devices: list[str], reports: Reports) -> None:
        self._job, self._listing, self._devices, self._reports = job, listing, devices, reports
        self._events: queue.SimpleQueue[tuple[_Worker, dict[str, Any] | None]] = queue.SimpleQueue()
        self._workers: dict[int, _Worker] = {}
        self._work: dict[str, list[int]] | None = None  # known once the first worker has planned
        self._stopping = False
        self._failed: RegionVLPError | None = None
        self.tally = Tally()
        self.deaths = Deaths()

    def run(self, stop: Stop) -> None:
        for number in range(len(self._devices)):
            self._start(number)
        while self._workers:
            if stop.asked and not self._stopping:
                self._stop()
            try:
                worker, event = self._events.get(timeout=_TICK)
            except queue.Empty:
                continue
            if event is None:
                self._ended(worker)
            else:
                self._heard(worker, event)
        if self._failed is not None:
            raise self._failed

    @contextmanager
    def ended_whatever_happens(self) -> Iterator[None]:
        """At the end of the block no worker runs any more; those that still do are asked kindly first."""
        try:
            yield
        finally:
            left = [worker.process for worker in self._workers.values()]
            for process in left:
                process.terminate()
            deadline = time.monotonic() + _END_LIMIT
            for process in left:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, deadline - time.monotonic()))
                if process.returncode is None:
                    process.kill()
                    process.wait()

    def _start(self, number: int) -> None:
        settings = self._job.config.detector.model_copy(update={"device": self._devices[number]})
        job = replace(
            self._job,
            config=self._job.config.model_copy(update={"detector": settings}),
            start=(number, len(self._devices)),
            worker=f"{self._job.label}/{number}",
        )
        share = max(1, usable_cpus() // len(self._devices))
        # The number of the user's own choosing wins.
        threads = {name: os.environ.get(name, str(share)) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        plans = number == 0 and self._work is None
        listing = self._listing if plans else None
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _BOOT, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | threads,
            pass_fds=() if listing is None else (listing,),
        )
        worker = _Worker(number, process)
        self._workers[number] = worker
        worker.tell(job=job.to_dict(), plans=plans, listing=listing, log_level=logging.getLogger().level)
        for shard in self.deaths.left:
            worker.tell(leave=shard)
        if self._work is not None:
            worker.tell(begin=self._work)
        threading.Thread(target=self._listen, args=(worker,), daemon=True).start()

    def _listen(self, worker: _Worker) -> None:
        assert worker.process.stdout is not None
        for line in worker.process.stdout:
            with contextlib.suppress(ValueError):  # of a process that was killed while it wrote
                self._events.put((worker, json.loads(line)))
        worker.process.wait()
        self._events.put((worker, None))

    def _heard(self, worker: _Worker, event: dict[str, Any]) -> None:
        match event:
            case {"ready": work, "planned": planned, "videos": videos}:
                if self._work is None:
                    self._work = work
                    self._reports.plan(planned, videos)
                    self._say_idle(len(work["missing"]) + len(work["retries"]))
                    for each in self._workers.values():
                        each.tell(begin=work)
            case {"shard": number}:
                worker.shard = number
                if number is None:
                    self.deaths.survived(worker.number)
            case {"video": frames}:
                self.tally.videos += 1
                self.tally.frames += frames
                self._reports.video(frames)
            case {"error": error}:
                worker.finished = True
                if self._failed is None:
                    self._failed = error_from(error)
                self._stop(at_once=True)
            case {"died": words}:
                worker.last_words = words
            case {"finished": _}:
                worker.finished = True

    def _say_idle(self, shards: int) -> None:
        if 0 < shards < len(self._devices):
            self._reports.note(
                f"{shards} shards for {len(self._devices)} workers: {len(self._devices) - shards} of them have nothing "
                "to do (a new --out is planned for as many as there are)"
            )

    def _ended(self, worker: _Worker) -> None:
        del self._workers[worker.number]
        if worker.finished or self._stopping:
            return
        how = worker.last_words or f"exit code {worker.process.returncode}"
        at = "" if worker.shard is None else f" on shard {worker.shard}"
        self._reports.note(f"worker {worker.number} died{at}: {how}")
        again = self.deaths.count(worker.number, worker.shard)
        if worker.shard in self.deaths.left:
            self._reports.note(f"shard {worker.shard} is left undone: {DEATHS} workers died on it")
            for each in self._workers.values():
                each.tell(leave=worker.shard)
        if again:
            self._start(worker.number)
        else:
            self._reports.note(f"worker {worker.number} died {DEATHS} times and is not started again")
            if (not self._workers or self._work is None) and self._failed is None:
                self._failed = RegionVLPError(
                    f"no worker can be kept alive; the last one died{at}: {how}", "mend that and run again"
                )
                self._stop(at_once=True)

    def _stop(self, at_once: bool = False) -> None:
        self._stopping = True
        for worker in self._workers.values():
            if at_once:
                worker.process.terminate()
            else:
                worker.tell(stop=True)


def devices_of(config: ExtractConfig) -> list[str]:
    """Where each worker process of this machine is to detect; empty where the work is done in this process.

    By default there is one for each visible GPU, where there are several and none is named.
    """
    wanted, device = config.run.processes, config.detector.device
    gpus = 0
    if device in ("auto", "cuda") and config.detector.factory is None:
        import torch

        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted is None:
        wanted = gpus if gpus > 1 else 0
    return [f"cuda:{number % gpus}" if gpus > 1 else device for number in range(wanted)]


def _shared_out(config: ExtractConfig, workers: int) -> ExtractConfig:
    """The configuration of one of several workers on this machine: each gets its share of the decoding processes."""
    if config.video.workers is not None:
        return config
    video = config.video.model_copy(update={"workers": max(1, usable_cpus() // workers)})
    return config.model_copy(update={"video": video})
