"""Extractions that are killed at random moments and resumed, and what is left of them in the end.

In: a launcher, a seed. Out: an :class:`Attack` for each run, with when it was killed and how its folder differs from
that of a run that nobody disturbed: not at all, if all is well.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from regionvlp.errors import RegionVLPError
from regionvlp.pipelines.bench.fork_server import ForkServer
from regionvlp.pipelines.bench.proc_table import descendants, group_members
from regionvlp.pipelines.toy.world import write_mp4
from regionvlp.shards import Receipt, open_shards, read_receipts, verify
from regionvlp.store.files import is_temporary
from regionvlp.store.names import MANIFEST_NAME
from regionvlp.store.plan import PLAN_NAME
from regionvlp.store.receipts import finished_shards

# Each launcher as the commands that run at the same time, by what they are told besides.
LAUNCHERS: dict[str, list[list[str]]] = {
    "inprocess": [[]],
    "shared": [[], []],  # as two machines would share a folder
    "task": [["--task", "1/2"], ["--task", "2/2"]],
    "processes": [["--processes", "2"]],
}
TOY = ("--detector", "toy", "--device", "cpu", "--set", "detector.batch=2")
FORMATS = ("hdf5", "parquet")
PHASES = ("start", "plan", "between", "shard", "publish", "end")
VICTIMS = ("all", "main", "child")
ENDS_WITHIN = 300.0  # seconds; a resumed run that takes longer counts as hung
NOTICED_WITHIN = 30.0
_POLL = 0.001
_CLIPS, _DAMAGED, _SHARD_SIZE = 8, 2, 2


@dataclass(frozen=True)
class Kill:
    """One SIGKILL.

    Attributes:
        victim: ``all`` processes of the run, only a ``main`` process, or only a ``child`` (a worker or a decoder).
        phase: where the folder stood just after it: ``start`` (nothing there), ``plan`` (no plan yet), ``between`` two
            shards, within a ``shard``, at its ``publish``-ing, or ``end`` (all receipts there).
    """

    victim: str
    phase: str


@dataclass
class Attack:
    """One run: killed, perhaps several times, and resumed to the end.

    Attributes:
        launcher: see :data:`LAUNCHERS`.
        form: format of the shards.
        cold: whether its processes started from nothing, not as forks of one that has done the imports.
        kills: in order; empty where it was done before the first.
        faults: how the folder differs in the end, in words.
    """

    launcher: str
    form: str
    cold: bool
    kills: list[Kill] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


class Ring:
    """Where it happens: clips, undisturbed runs to compare with, and how long those took.

    Args:
        folder: for everything; left as it is.
        server: starts the runs that are not cold.
        options: what every run is told besides, such as its detector.
    """

    def __init__(self, folder: Path, server: ForkServer, options: Sequence[str] = TOY) -> None:
        self._folder, self._server, self._options = folder, server, options
        self._durations: dict[tuple[str, bool], float] = {}
        self._count = 0
        fabricate(folder / "videos")

    def undisturbed(self, form: str) -> Path:
        """The folder of an undisturbed run."""
        out = self._folder / f"undisturbed-{form}"
        if not out.exists():
            with self._started() as start:
                self._finish(start(out, "inprocess", form, False))
        return out

    def duration(self, launcher: str, cold: bool) -> float:
        """Seconds that an undisturbed run takes with this launcher."""
        if (launcher, cold) not in self._durations:
            out = self._new_folder()
            begun = time.monotonic()
            with self._started() as start:
                self._finish(start(out, launcher, FORMATS[0], cold))
            self._durations[launcher, cold] = time.monotonic() - begun
            shutil.rmtree(out)
        return self._durations[launcher, cold]

    def attack(self, launcher: str, cold: bool, rng: random.Random) -> Attack:
        """Kills and resumes one run. Its folder is kept where it has faults.

        What a kill leaves alive (the workers of a main process, say) may meet the run that resumes.
        """
        attack = Attack(launcher, rng.choice(FORMATS), cold)
        reference, duration = self.undisturbed(attack.form), self.duration(launcher, cold)
        out = self._new_folder()
        with self._started() as start:
            killed: list[_Run] = []
            for _ in range(rng.choice((1, 1, 1, 2, 2, 3))):
                runs = start(out, launcher, attack.form, cold)
                kill = self._kill_one(out, runs, duration, rng)
                if kill is not None:
                    attack.kills.append(kill)
                killed += runs
            try:
                self._finish(start(out, launcher, attack.form, cold))
            except RunFailedError as error:
                attack.faults.append(str(error))
            else:
                attack.faults += [f"process {pid} outlives its parent" for pid in _orphans(killed)]
                attack.faults += differences(reference, out)
        if not attack.faults:
            shutil.rmtree(out)
            out.with_suffix(".log").unlink()
        return attack

    def _kill_one(self, out: Path, runs: list[_Run], duration: float, rng: random.Random) -> Kill | None:
        """Waits for a random moment and kills; returns once all that is left has ended by itself."""
        victim = rng.choice(VICTIMS)
        self._wait_for_a_moment(out, runs, duration, rng)
        alive = [run for run in runs if run.running()]
        if not alive:
            return None
        children = [pid for run in alive for pid in descendants(run.pid)]
        if victim == "child" and not children:
            victim = "main"
        if victim == "all":
            targets = [*(run.pid for run in alive), *children]
        elif victim == "main":
            targets = [rng.choice(alive).pid]
        else:
            targets = [rng.choice(children)]
        for pid in targets:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        kill = Kill(victim, _phase(out))
        for run in runs:
            run.wait(ENDS_WITHIN)
        return kill

    def _wait_for_a_moment(self, out: Path, runs: list[_Run], duration: float, rng: random.Random) -> None:
        """Waits: anywhere in the duration of a run, or after its long start, or until a file is being written."""
        kind, wait = rng.choice(("any", "any", "begun", "begun", "writing")), rng.random() * duration
        if kind == "any":
            time.sleep(wait)
            return
        begun = time.monotonic()
        while _phase(out) == "start" and _any_runs(runs):
            time.sleep(_POLL)
        time.sleep(wait * max(0.1, 1 - (time.monotonic() - begun) / duration))
        if kind == "writing":
            phase = rng.choice(("shard", "publish"))
            while _phase(out) != phase and _any_runs(runs):
                time.sleep(_POLL)

    def _finish(self, runs: list[_Run]) -> None:
        for run in runs:
            code = run.wait(ENDS_WITHIN)
            if code != 0:
                how = f"did not end within {ENDS_WITHIN:.0f} s" if code is None else f"ended with {code}"
                raise RunFailedError(f"the last run {how}: {run.last_words()}")

    @contextmanager
    def _started(self) -> Iterator[Callable[[Path, str, str, bool], list[_Run]]]:
        """Yields what starts the commands of a launcher; in the end nothing runs any more that it started."""
        runs: list[_Run] = []

        def start(out: Path, launcher: str, form: str, cold: bool) -> list[_Run]:
            log = out.with_suffix(".log")
            for extra in LAUNCHERS[launcher]:
                runs.append(_Run([*self._arguments(out, form), *extra], log, cold, self._server))
            return runs[-len(LAUNCHERS[launcher]) :]

        try:
            yield start
        finally:
            for run in runs:
                run.end()

    def _arguments(self, out: Path, form: str) -> list[str]:
        return [
            *("extract", "--videos", str(self._folder / "videos"), "--out", str(out), "--format", form),
            *("--frames", "2", "--regions", "5", "--shard-size", str(_SHARD_SIZE), "--set", "video.workers=1"),
            *self._options,
        ]

    def _new_folder(self) -> Path:
        self._count += 1
        return self._folder / f"run-{self._count:04d}"


class RunFailedError(RegionVLPError):
    """An extraction that nobody disturbed did not succeed."""


class _Run:
    """One command, running in a session of its own."""

    def __init__(self, arguments: list[str], log: Path, cold: bool, server: ForkServer) -> None:
        self._log, self._server = log, server
        self._code: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        if cold:
            with log.open("ab") as said:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "regionvlp", *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=said,
                    start_new_session=True,
                )
            self.pid = self._process.pid
        else:
            self.pid = server.start(arguments, log)

    def running(self) -> bool:
        return self.wait(0) is None

    def wait(self, seconds: float) -> int | None:
        """The exit code; None where it runs on."""
        if self._code is None and self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._code = self._process.wait(seconds)
        elif self._code is None:
            self._code = self._server.wait(self.pid, seconds)
        return self._code

    def end(self) -> None:
        """Kills what still runs of it."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait(ENDS_WITHIN)

    def last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def _any_runs(runs: list[_Run]) -> bool:
    return any(run.running() for run in runs)


def _orphans(runs: list[_Run]) -> list[int]:
    """What is left of runs that were killed, after the time that it needs to notice."""
    deadline = time.monotonic() + NOTICED_WITHIN
    while (left := [pid for run in runs for pid in group_members(run.pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def fabricate(folder: Path) -> None:
    """Writes eight small clips and two files that are none."""
    folder.mkdir(parents=True)
    for number in range(_CLIPS):
        patches = np.random.default_rng(number).integers(0, 256, (4, 6, 8, 3), dtype=np.uint8)
        write_mp4(folder / f"clip {number:02d}.mp4", patches.repeat(8, axis=1).repeat(8, axis=2))
    for number in range(_DAMAGED):
        (folder / f"clip {number:02d}, damaged.mp4").write_bytes(b"<html>404 not found</html>")


def differences(reference: Path, out: Path) -> list[str]:
    """How a finished folder differs from another one that nobody disturbed; empty where it does not.

    Rows are compared bit for bit, data files byte for byte (by checksums that are recomputed), failures by video,
    stage and reason; and every file must be one that the receipts name or that the other folder has as well.
    """
    faults = [str(fault) for fault in verify(out)]
    if faults:
        return faults
    wanted, found = open_shards(reference), open_shards(out)
    lost, more = set(wanted.video_ids) - set(found.video_ids), set(found.video_ids) - set(wanted.video_ids)
    faults += [f"{name!r} has no rows" for name in sorted(lost)] + [f"{name!r} has rows" for name in sorted(more)]
    faults += [
        f"{name!r} has other rows" for name in wanted if name not in lost and not wanted[name].equals(found[name])
    ]
    theirs, ours = (
        _by_shard(folder, lambda r: [(f.video_id, f.stage, f.reason) for f in r.failures])
        for folder in (reference, out)
    )
    if theirs != ours:
        faults.append(f"failures are {ours}, not {theirs}")
    theirs, ours = (_by_shard(folder, lambda r: r.sha256) for folder in (reference, out))
    faults += [f"the data of shard {n} has other bytes" for n in theirs if theirs[n] != ours.get(n)]
    named = {receipt.file for receipt in read_receipts(out)}
    known = {name for name in os.listdir(reference) if name not in {r.file for r in read_receipts(reference)}}
    faults += [f"{name} was left behind" for name in sorted(set(os.listdir(out)) - known - named)]
    return faults


def _by_shard(folder: Path, what: Callable[[Receipt], Any]) -> dict[int, Any]:
    return {receipt.shard: what(receipt) for receipt in read_receipts(folder)}


def _phase(out: Path) -> str:
    """See :class:`Kill`."""
    try:
        names = set(os.listdir(out))
    except FileNotFoundError:
        return "start"
    if MANIFEST_NAME not in names:
        return "start"
    if PLAN_NAME not in names:
        return "plan"
    finished = len(finished_shards(out))
    if finished == -(-(_CLIPS + _DAMAGED) // _SHARD_SIZE):
        return "end"
    temporary = {name for name in names if is_temporary(name)}
    data = [name for name in names - temporary if name.endswith((".h5", ".parquet")) and name != PLAN_NAME]
    if len(data) > finished or any(".json." in name for name in temporary):
        return "publish"
    return "shard" if temporary else "between"
