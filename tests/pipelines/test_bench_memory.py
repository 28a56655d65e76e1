"""``regionvlp bench memory``: the JSON contract, what it would show of a leak, and that recycling contains one."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from regionvlp.pipelines.bench.memory import MemoryCurve, sparkline, watch
from regionvlp.pipelines.cli import run
from regionvlp.video import DecodePool, child

MEGABYTES = 8
# A decoding process that keeps some memory of every video.
LEAK = (
    "import regionvlp.video.worker as worker; kept = []; read = worker.read_frames; "
    f"worker.read_frames = lambda *a, **k: (kept.append(b'x' * ({MEGABYTES} << 20)), read(*a, **k))[1]; "
)


@pytest.fixture(autouse=True)
def another_child() -> Iterator[None]:
    """A child process that is none of the decoders."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield
        process.communicate(b"\n")


def test_bench_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "memory.json"
    assert run(["bench", "memory", "--clips", "100", "--json", str(path)]) == 0
    assert "MB per 1,000 clips" in capsys.readouterr().out
    result = json.loads(path.read_text())
    assert set(result) == {"device", "rows", "ratios"}
    assert all(set(row) == {"name", "value", "unit"} for row in result["rows"])
    values = {row["name"]: row["value"] for row in result["rows"]}
    assert all(math.isfinite(value) for value in values.values())
    assert values["clips"] == 100
    assert values["decoder_processes"] == 2
    assert {f"{who}_at_{clips}" for who in ("worker", "decoder") for clips in range(1, 101)} <= set(values)
    assert values["worker_peak"] > values["decoder_peak"] > 10


def test_a_slope_is_of_the_time_after_the_warm_up() -> None:
    curve = MemoryCurve(clips=list(range(10, 101, 10)))
    assert curve.slope([10**9, *(5000 + 3 * clips for clips in curve.clips[1:])]) == pytest.approx(3)
    assert sparkline([0, 1, 4, 8]) == "▁▂▅█"


def test_a_decoder_that_leaks_is_contained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips, recycle_after = 40, 5
    monkeypatch.setattr(child, "_BOOT", child._BOOT.replace("main()", f"{LEAK} main()"))
    peaks, pids = [], []
    for after in (recycle_after, 10 * clips):
        monkeypatch.setitem(DecodePool.__init__.__kwdefaults__, "recycle_after", after)
        curve = watch(tmp_path / str(after), clips, workers=1)
        peaks.append(max(curve.decoder) / 2**20)
        pids.append(len(curve.pids))
    contained, free = peaks
    assert pids[0] > 1  # one after the other; short-lived ones fall between two samples of a busy machine
    assert pids[1] == 1
    # Interpreter and reader come on top of what leaked: about 60 MB.
    assert free > clips * MEGABYTES
    assert contained < recycle_after * MEGABYTES + 120
