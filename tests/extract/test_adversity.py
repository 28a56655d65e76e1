"""Real commands in real trouble: full disks, two runs at once, a worker that sleeps past its claim."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from faults.campaign import contents

from regionvlp.shards import finished_shards, verify

LONG = 120  # seconds; nothing here takes as many
TESTS = Path(__file__).resolve().parent


@pytest.fixture
def videos(tmp_path: Path, make_clip: Callable[..., Path]) -> Path:
    for seed in range(8):
        make_clip(tmp_path / "videos" / f"{seed}.mp4", seed=seed, frames=4)
    (tmp_path / "videos" / "x.mp4").write_bytes(b"<html>404 not found</html>")
    return tmp_path / "videos"


def command(videos: Path, out: Path, *options: str) -> list[str]:
    arguments = ["extract", "--videos", str(videos), "--out", str(out), "--frames", "2", "--shard-size", "3"]
    arguments += ["--set", "detector.factory=faults.arithmetic:make", "--set", "video.workers=1"]
    arguments += ["--set", "shards.dtype=float32"]  # halves would bring torch along
    return [sys.executable, "-m", "regionvlp", *arguments, *options]


def start(arguments: list[str], **environment: str) -> subprocess.Popen[str]:
    path = os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        arguments,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path, **environment},
    )


def end(run: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and the lines of standard error that are no warnings."""
    _, said = run.communicate(timeout=LONG)
    lines = [line for line in said.splitlines() if not line.startswith("WARNING: ")]
    return run.returncode, "\n".join(lines)


@pytest.fixture
def undisturbed(videos: Path, tmp_path: Path) -> dict[str, object]:
    """What a folder holds when nothing happens."""
    assert end(start(command(videos, tmp_path / "undisturbed"))) == (0, "")
    return contents(tmp_path / "undisturbed")


def check_full(code: int, said: str) -> None:
    assert code == 2, said
    assert said.startswith("error: cannot write")
    assert "space" in said
    assert said.count("\n") == 0


@pytest.mark.parametrize("form", ["hdf5", pytest.param("parquet", marks=pytest.mark.slow)])
def test_a_file_system_that_is_full(tmp_path: Path, videos: Path, form: str) -> None:
    """A small tmpfs of our own fills up, grows, and the run goes on."""
    may_mount = "mount -t tmpfs -o size=64k tmpfs /mnt"
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "sh", "-c", may_mount], check=False).returncode:
        pytest.skip("needs the right to mount a file system in a name space of its own")
    options = ("--format", form, "--regions", "300")
    assert end(start(command(videos, tmp_path / "undisturbed", *options))) == (0, "")
    size = sum(path.stat().st_size for path in (tmp_path / "undisturbed").iterdir())
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f"""
        mount -t tmpfs -o size={size * 6 // 10} tmpfs {disk}
        "$@" 2> {tmp_path}/said; echo $? > {tmp_path}/code
        cp -r {disk}/out {tmp_path}/half
        mount -o remount,size={size * 3} {disk}
        "$@" && cp -r {disk}/out {tmp_path}/whole
    """
    again = start(["unshare", "-rm", "sh", "-c", script, "sh", *command(videos, disk / "out", *options)])
    assert end(again) == (0, "")
    check_full(int((tmp_path / "code").read_text()), (tmp_path / "said").read_text().strip())
    assert 0 < len(finished_shards(tmp_path / "half")) < 3
    assert {fault.message.split(":")[0] for fault in verify(tmp_path / "half")} == {"not done"}
    assert contents(tmp_path / "whole") == contents(tmp_path / "undisturbed")


def test_two_runs_at_once(tmp_path: Path, videos: Path, undisturbed: dict[str, object]) -> None:
    out = tmp_path / "out"
    runs = [start(command(videos, out), SECONDS_PER_BATCH="0.1") for _ in range(2)]
    assert [end(run) for run in runs] == [(0, "")] * 2
    assert verify(out) == []
    assert contents(out) == undisturbed


def test_two_runs_at_once_with_other_settings(tmp_path: Path, videos: Path) -> None:
    out = tmp_path / "out"
    counts = ("5", "7")
    runs = [start(command(videos, out, "--regions", count), SECONDS_PER_BATCH="0.05") for count in counts]
    ended = [end(run) for run in runs]
    assert sorted(code for code, _ in ended) == [0, 2]
    (said,) = [said for code, said in ended if code]
    assert "made with other settings: regions is" in said
    assert said.count("\n") == 0
    (winner,) = [count for count, (code, _) in zip(counts, ended, strict=True) if code == 0]
    assert end(start(command(videos, tmp_path / "alone", "--regions", winner))) == (0, "")
    assert contents(out) == contents(tmp_path / "alone")


@contextmanager
def stopped(run: subprocess.Popen[str], out: Path) -> Iterator[None]:
    """Stops a run in the middle of a shard; lets it go on at the end."""
    deadline = time.monotonic() + LONG
    while not list(out.glob("shard-*.tmp")):
        assert run.poll() is None, "it ended before it could be stopped"
        assert time.monotonic() < deadline, "it does not get on"
        time.sleep(0.005)
    run.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        run.send_signal(signal.SIGCONT)


def test_a_worker_that_sleeps_past_its_claim(tmp_path: Path, videos: Path, undisturbed: dict[str, object]) -> None:
    """It is taken for dead, another does its shard, and it wakes up in the middle of its own half of it."""
    out = tmp_path / "out"
    options = ("--set", "run.stale_after=1")
    sleeper = start(command(videos, out, *options), SECONDS_PER_BATCH="0.3")
    with stopped(sleeper, out):
        assert end(start(command(videos, out, *options))) == (0, "")
        assert verify(out) == []
    assert end(sleeper) == (0, "")
    assert verify(out) == []
    assert contents(out) == undisturbed
