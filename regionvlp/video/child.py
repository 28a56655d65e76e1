"""The parent's side of one decoding process: start it, ask it for a video, tell how it ended.

The other side, and the protocol, is :mod:`regionvlp.video.worker`. POSIX only: the time limit waits with ``poll``, so
that even a child that cannot be killed (waiting for a dead network disk) is given up in time.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from regionvlp.errors import InputError, RegionVLPError, VideoError
from regionvlp.video.decoded import DecodedVideo

# A child is up in well under a second; a machine under heavy load or importing torch from a slow disk takes longer.
_START_LIMIT = 180.0
_END_LIMIT = 5.0
_STDERR_TAIL = 2000
# The package is imported from where the parent has it, and nothing else of the parent's path or folder is.
_BOOT = (
    "import sys; root = sys.argv.pop(1); root in sys.path or sys.path.insert(0, root); "
    "from regionvlp.video.worker import main; main()"
)
_PACKAGE_ROOT = str(Path(__file__).resolve().parents[2])
# The children are the parallelism; libraries inside them must not start threads of their own.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass(frozen=True)
class ChildSettings:
    """How a child decodes; the fields are the arguments of :class:`~regionvlp.video.pool.DecodePool`."""

    reader: str
    time_limit: float
    max_seconds: float | None
    memory_limit_mb: int | None


class Child:
    """One decoding process. Used by one thread; only :meth:`kill` may be called from another.

    Attributes:
        pid: its process id.
        served: how many videos it was asked for.
        usable: False once it hung, died or ran out of memory; it must then be retired.
    """

    def __init__(self, settings: ChildSettings) -> None:
        self._settings = settings
        command = [sys.executable, "-P", "-c", _BOOT, _PACKAGE_ROOT, "--reader", settings.reader]
        if settings.max_seconds is not None:
            command += ["--max-seconds", str(settings.max_seconds)]
        if settings.memory_limit_mb is not None:
            command += ["--memory-mb", str(settings.memory_limit_mb)]
        # A file, not a pipe: it never fills up and needs no thread to empty it.
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - retire() closes it
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            bufsize=0,
            env=os.environ | _ONE_THREAD,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout
        self.pid = self._process.pid
        self.served = 0
        self.usable = True

    def greet(self) -> None:
        """Waits until the child has imported its reader.

        Raises:
            InputError: the reader cannot be loaded.
            RegionVLPError: the child does not start.
        """
        try:
            header = self._receive_header(time.monotonic() + _START_LIMIT)
        except (EOFError, TimeoutError) as error:
            self.usable = False
            self.kill()
            raise RegionVLPError(
                f"the decoding process does not start: {self._last_words() or 'it said nothing'}",
                "'regionvlp doctor' shows which readers work",
            ) from error
        if "input_error" in header:
            self.usable = False
            raise InputError(**header["input_error"])

    def decode(
        self,
        path: Path,
        count: int,
        start: float | None = None,
        end: float | None = None,
        places: Sequence[float] | None = None,
    ) -> DecodedVideo:
        """Has the child read frames of a video; arguments as :meth:`.pool.DecodePool.submit`.

        Raises:
            VideoError: from the reader, or with reason ``timeout`` or ``decoder-crashed``.
        """
        self.served += 1
        deadline, worked = time.monotonic() + self._settings.time_limit, cpu_seconds(self.pid)
        wanted: dict[str, Any] = {"path": os.fspath(path), "count": count}
        wanted |= {name: edge for name, edge in (("start", start), ("end", end)) if edge is not None}
        if places is not None:
            wanted["places"] = list(places)
        request = json.dumps(wanted).encode() + b"\n"
        try:
            self._requests.write(request)
            header = self._receive_header(deadline)
            if "video_error" not in header:
                return self._receive_video(header, deadline)
        except TimeoutError:
            self.usable = False
            worked = cpu_seconds(self.pid) - worked
            self.kill()
            raise too_slow(path, self._settings.time_limit, worked) from None
        except (EOFError, BrokenPipeError):
            self.usable = False
            raise VideoError(
                f"the decoding process ended on '{path}': {self._how_it_ended()}",
                stage="decode",
                reason="decoder-crashed",
                transient=True,
            ) from None
        error = VideoError(**header["video_error"])
        self.usable = error.reason != "out-of-memory"
        raise error

    def kill(self) -> None:
        """Kills the process at once."""
        self._process.kill()

    def retire(self) -> None:
        """Ends the process, kindly if it is idle, and frees what the parent holds of it."""
        if not self.usable:
            self.kill()
        self._requests.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_LIMIT)
        if self._process.returncode is None:
            self.kill()
        self._answers.close()
        self._stderr.close()

    def _receive_header(self, deadline: float) -> dict[str, Any]:
        size = bytearray(4)
        self._receive(memoryview(size), deadline)
        text = bytearray(int.from_bytes(size, "big"))
        self._receive(memoryview(text), deadline)
        header: dict[str, Any] = json.loads(text)
        return header

    def _receive_video(self, header: dict[str, Any], deadline: float) -> DecodedVideo:
        frames = [np.empty((height, width, 3), dtype=np.uint8) for height, width in header["sizes"]]
        for frame in frames:
            self._receive(memoryview(frame.data).cast("B"), deadline)
        return DecodedVideo(
            frames=frames,
            frame_index=np.asarray(header["frame_index"], dtype=np.int64),
            frame_time=np.asarray(header["frame_time"], dtype=np.float64),
            reader=header["reader"],
            **header["counts"],
        )

    def _receive(self, into: memoryview, deadline: float) -> None:
        """Fills a buffer from the child; EOFError if the child ends before, TimeoutError at the deadline."""
        poller = select.poll()
        poller.register(self._answers, select.POLLIN)
        while into:
            if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError
            received = os.readv(self._answers.fileno(), [into])
            if received == 0:
                raise EOFError
            into = into[received:]

    def _how_it_ended(self) -> str:
        try:
            code = self._process.wait(_END_LIMIT)
        except subprocess.TimeoutExpired:
            return "it closed its pipe and still runs"
        how = f"exit code {code}"
        if code < 0:
            how = signal.Signals(-code).name
            if -code == signal.SIGKILL:
                how += " (often the system, when memory runs out)"
        words = self._last_words()
        return f"{how}; {words}" if words else how

    def _last_words(self) -> str:
        """Returns the last line that the child wrote to standard error."""
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - _STDERR_TAIL))
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else ""


def too_slow(path: Path, limit: float, worked: float) -> VideoError:
    """The error for a video over its time limit, in seconds; transient where the child waited more than it worked.

    A file that takes the limit in work takes it again. One that waited (for a network, a busy machine) may not.
    """
    return VideoError(
        f"'{path}' took longer than {limit:g} s (video.time_limit), {worked:.0f} s of it at work",
        stage="decode",
        reason="timeout",
        transient=worked < limit / 2,
        hint=f"try again with --set video.time_limit={4 * limit:g} --retry all",
    )


def cpu_seconds(pid: int) -> float:
    """Seconds of processor time that a process has had; 0 where the system does not tell (it does on Linux)."""
    try:
        # After the name, which may hold blanks and brackets: fields 14 and 15 of proc(5), user and system time.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return 0.0
