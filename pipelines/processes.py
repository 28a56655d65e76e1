"""What the system knows of running processes, from ``/proc`` (Linux): who descends from whom, and how large."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

from regionvlp.errors import InputError


def require_proc() -> None:
    """Raises :class:`InputError` on a system without ``/proc``."""
    if not Path("/proc/self/stat").exists():
        raise InputError("this bench reads /proc, which this system does not have", "run it on Linux")


def descendants(pid: int) -> list[int]:
    """Children of a process that run now, their children, and so on, each after its parent."""
    children: dict[int, list[int]] = defaultdict(list)
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (parent := _parent_of(entry)):
            children[parent].append(int(entry))
    found = [pid]
    for one in found:
        found += children[one]
    return found[1:]


def resident_bytes(pid: int) -> int:
    """Memory that a process occupies; 0 where it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _parent_of(pid: str) -> int:
    """Id of the parent; 0 where the process has ended, or waits for its parent to notice."""
    try:
        # The name in brackets may hold anything, brackets and blanks included.
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if state in "ZX" else int(parent)
