"""Freed memory goes back to the system, so that a long extraction of odd sizes does not swell."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import textwrap

import pytest

from regionvlp.extract.run.memory import give_back

_HOLES = """
    import os
    from pathlib import Path
    from regionvlp.extract.run.memory import give_back

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    before = resident()
    blocks = [bytearray(b"x" * 60_000) for _ in range(3000)]
    kept = blocks[::50]  # what a few live objects hold in place
    full = resident()
    del blocks
    freed = resident()
    give_back()
    print(full - before, freed - before, resident() - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library has no malloc_trim")
def test_holes_between_what_is_held_are_given_back() -> None:
    code = textwrap.dedent(_HOLES)
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    full, _, after = map(float, said.split())
    assert full > 150
    assert after < 40


def test_another_c_library_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from regionvlp.extract.run import memory

    memory._trim.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    give_back()
    memory._trim.cache_clear()
