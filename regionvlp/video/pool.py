"""Decoding in child processes that may hang, crash or eat memory without harm to the parent.

In: paths. Out: futures of :class:`~regionvlp.video.decoded.DecodedVideo`. The children are plain Python processes
started with :mod:`subprocess`: light (no torch), persistent (starting one per video would cost more than decoding),
and independent of how the parent's script is written.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from pathlib import Path
from types import TracebackType

from regionvlp.video.child import Child, ChildSettings
from regionvlp.video.decoded import DecodedVideo
from regionvlp.video.readers import check_reader

# A thread whose child cannot be killed (waiting for a dead network disk) is left behind.
_JOIN_LIMIT = 10.0

_Job = tuple[Path, int, float | None, float | None, Sequence[float] | None, "Future[DecodedVideo]"]


class DecodePool:
    """Decodes videos in ``workers`` child processes.

    ``submit`` queues without bound and a decoded video holds megabytes: whoever submits must keep a few per worker
    in flight and take the results as they come. Use as a context manager, or call :meth:`close`.

    Args:
        workers: child processes, by default one for each CPU this process may use. They start with their first video.
        reader: see :func:`~regionvlp.video.readers.read_frames`.
        time_limit: seconds one video may take; then its child is killed and replaced, and the future fails with
            reason ``timeout``.
        recycle_after: a child is replaced after so many videos, for libraries that leak.
        max_seconds: use only the first so many seconds of each video, or of the stretch asked for.
        memory_limit_mb: memory one child may take on top of its libraries, None for no limit; beyond it a video fails
            with reason ``out-of-memory``. Enforced on Linux.

    Raises:
        InputError: the reader is unknown or not installed.
        ValueError: a number out of range.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        reader: str = "auto",
        time_limit: float = 120.0,
        recycle_after: int = 500,
        max_seconds: float | None = None,
        memory_limit_mb: int | None = 4096,
    ) -> None:
        self.workers = usable_cpus() if workers is None else workers
        if self.workers < 1 or time_limit <= 0 or recycle_after < 1:
            raise ValueError("workers, time_limit and recycle_after must be positive")
        check_reader(reader)
        self._settings = ChildSettings(reader, time_limit, max_seconds, memory_limit_mb)
        self._recycle_after = recycle_after
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._children: set[Child] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._owner = os.getpid()
        self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(self.workers)]
        for thread in self._threads:
            thread.start()

    def submit(
        self,
        path: Path,
        count: int,
        *,
        start: float | None = None,
        end: float | None = None,
        places: Sequence[float] | None = None,
    ) -> Future[DecodedVideo]:
        """Queues a video.

        Args:
            path: the file.
            count: frames wanted, at least 1.
            start, end: the stretch to take them from, see :func:`~regionvlp.video.readers.read_frames`.
            places: where in its segment each of them lies, as there.

        Returns:
            A future that gives the frames or raises :class:`~regionvlp.errors.VideoError`; ``transient`` tells
            whether another try may help. :class:`~regionvlp.errors.RegionVLPError` of another kind means that no
            child can work at all.

        Raises:
            RuntimeError: the pool is closed.
        """
        future: Future[DecodedVideo] = Future()
        path = path.absolute()  # a child started later may start in another folder
        with self._lock:
            if self._closed:
                raise RuntimeError("the pool is closed")
            self._jobs.put((path, count, start, end, places, future))
        return future

    def child_pids(self) -> list[int]:
        """Returns the process ids of the children that run now."""
        with self._lock:
            return [child.pid for child in self._children]

    def close(self) -> None:
        """Kills the children and cancels all that is queued or being decoded. May be called again."""
        if os.getpid() != self._owner:  # a fork of the owner holds a copy of this object, but not the children
            return
        with self._lock:
            self._closed = True
            children = list(self._children)
        with contextlib.suppress(queue.Empty):
            while True:
                job = self._jobs.get_nowait()
                if job is not None:
                    job[-1].cancel()
        for child in children:
            child.kill()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join(_JOIN_LIMIT)

    def __enter__(self) -> DecodePool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _serve(self) -> None:
        """The life of one thread: it feeds one child after another."""
        child: Child | None = None
        going = True
        while going:
            child, going = self._serve_one(child)
        if child:
            self._retire(child)

    def _serve_one(self, child: Child | None) -> tuple[Child | None, bool]:
        """Waits for a video and has it decoded; returns the child for the next one, and whether to go on.

        A function of its own so that a thread that waits holds on to no video.
        """
        job = self._jobs.get()
        if job is None:
            return child, False
        path, count, start, end, places, future = job
        if not future.set_running_or_notify_cancel():
            return child, True
        try:
            child = child or self._start_child()
            future.set_result(child.decode(path, count, start, end, places))
        except Exception as error:
            future.set_exception(CancelledError("the pool was closed") if self._closed else error)
        if child and (not child.usable or child.served >= self._recycle_after):
            self._retire(child)
            child = None
        return child, True

    def _start_child(self) -> Child:
        with self._lock:
            if self._closed:
                raise CancelledError("the pool was closed")
            child = Child(self._settings)
            self._children.add(child)
        try:
            child.greet()
        except BaseException:
            self._retire(child)
            raise
        return child

    def _retire(self, child: Child) -> None:
        with self._lock:
            self._children.discard(child)
        child.retire()


def usable_cpus() -> int:
    """Returns the number of CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
