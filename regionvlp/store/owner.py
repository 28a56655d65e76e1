"""Which process wrote this? A name for a process that outlives it, and whether it still runs.

A process id alone says little: containers begin theirs at 1 again, ids are used anew, and several machines share one
folder. So a process is named by its machine (host name, boot, and namespace of process ids), its id and the moment it
started, and is called dead only where this machine can know it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path

_NAME = re.compile(r"(?P<host>[A-Za-z0-9_-]*)-(?P<pid>\d+)(?:s(?P<started>\d+))?")


@dataclass(frozen=True)
class ProcessName:
    """A process of some machine.

    Attributes:
        host: the machine, as :func:`this_host` names it.
        pid: its process id there.
        started: ticks between the machine's boot and its start; 0 where the system does not tell.
    """

    host: str
    pid: int
    started: int

    def __str__(self) -> str:
        return f"{self.host}-{self.pid}s{self.started}"

    @classmethod
    def parse(cls, text: str) -> ProcessName | None:
        """Reads what ``str`` of a name gave; None for anything else."""
        match = _NAME.fullmatch(text)
        return cls(match["host"], int(match["pid"]), int(match["started"] or 0)) if match else None

    @property
    def here(self) -> bool:
        """True where it is a process of this machine."""
        return self.host == this_host()

    @property
    def dead(self) -> bool:
        """True where it certainly runs no more; False also for a process of another machine, of which nobody knows."""
        if not self.here:
            return False
        started = _start_of(self.pid)
        if started is not None:
            return started < 0 or (self.started > 0 and started != self.started)
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, OverflowError):
            return True
        except PermissionError:
            return False
        return False


def this_process() -> ProcessName:
    """The name of the calling process."""
    pid = os.getpid()
    return ProcessName(this_host(), pid, max(_start_of(pid) or 0, 0))


@functools.cache
def this_host() -> str:
    """Host name and a few digits for this boot and this namespace of process ids: ``node7_3fa2b1``.

    Two containers may share a host name, and neither sees the other's processes.
    """
    marks = ""
    with contextlib.suppress(OSError):
        marks += Path("/proc/sys/kernel/random/boot_id").read_text() + os.readlink("/proc/self/ns/pid")
    name = re.sub(r"[^A-Za-z0-9_-]", "_", socket.gethostname())[:48]
    return f"{name}_{hashlib.sha256(marks.encode()).hexdigest()[:6]}"


def _start_of(pid: int) -> int | None:
    """Ticks since boot at which a process started, -1 where there is none (or only its remains), None if unknown."""
    if not os.path.exists("/proc/self/stat"):
        return None
    try:
        # The name in brackets may hold anything, brackets and blanks included; state is the first field after it.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return -1
    except (OSError, UnicodeDecodeError):
        return None
    return -1 if fields[0] in "ZX" else int(fields[19])
