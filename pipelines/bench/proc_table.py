"""What the system knows of running processes, from ``/proc`` (Linux): who descends from whom, and how large."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from regionvlp.errors import InputError


def require_proc() -> None:
    """Raises :class:`InputError` on a system without ``/proc``."""
    if not Path("/proc/self/stat").exists():
        raise InputError("this bench reads /proc, which this system does not have", "run it on Linux")


def descendants(pid: int) -> list[int]:
    """Children of a process that run now, their children, and so on, each after its parent."""
    children: dict[int, list[int]] = defaultdict(list)
    for child, (parent, _) in _running():
        children[parent].append(child)
    found = [pid]
    for one in found:
        found += children[one]
    return found[1:]


def group_members(group: int) -> list[int]:
    """Processes of a group that run now, whoever their parents are by now."""
    return [pid for pid, (_, theirs) in _running() if theirs == group]


def resident_bytes(pid: int) -> int:
    """Memory that a process occupies; 0 where it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _running() -> Iterator[tuple[int, tuple[int, int]]]:
    """Every process with its parent and its group, but those that only wait for their parent to notice their end."""
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            # The name in brackets may hold anything, brackets and blanks included.
            fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields[0] not in "ZX":
            yield int(entry), (int(fields[1]), int(fields[2]))
