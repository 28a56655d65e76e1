"""Every operation on the output folder of a small extraction goes wrong in turn, and what the next run makes of it.

A program of its own, so that it can fork: one warm process without threads and without torch runs the real command
line in a child for each fault. The detector is an arithmetic of the pixels, and videos are decoded once.
In: a work folder, a format, which points. Out: JSON with what was tried and every promise that was broken.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import random
import shutil
import signal
import sys
import traceback
import types
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from faults.arithmetic import ArithmeticDetector
from faults.shim import MODES, Fault, Shim
from regionvlp.errors import RegionVLPError, VideoError
from regionvlp.shards import open_shards, verify
from regionvlp.store.names import MANIFEST_NAME
from regionvlp.video import pool as pool_module
from regionvlp.video.decoded import DecodedVideo

HUNG = 60  # seconds after which a run is ended by an alarm
# What verify may say of a folder in which a run was broken off; anything else is damage.
UNFINISHED = ("not done: planned", "data without a receipt", "left by a process", "missing, so nothing tells")


class PatientPool:
    """Stands for :class:`regionvlp.video.DecodePool`: decodes in this process, each file once for all forks."""

    decoded: dict[tuple[Path, int], DecodedVideo | VideoError] = {}  # noqa: RUF012 - meant to be shared

    def __init__(self, workers: int | None = None, **options: object) -> None:
        self.workers = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def close(self) -> None:
        pass

    def submit(self, path: Path, count: int, **stretch: object) -> Future[DecodedVideo]:
        from regionvlp.video import read_frames

        key = (path, path.stat().st_size)
        if key not in self.decoded:
            try:
                self.decoded[key] = read_frames(path, count)
            except VideoError as error:
                self.decoded[key] = error
        future: Future[DecodedVideo] = Future()
        result = self.decoded[key]
        if isinstance(result, VideoError):
            future.set_exception(result)
        else:
            future.set_result(result)
        return future


def stand_in() -> None:
    """Puts detector and pool in the places where a run looks for the real ones; before anything imports those."""
    module = types.ModuleType("regionvlp.extract.detector")
    module.RegionDetector = ArithmeticDetector  # type: ignore[attr-defined]
    sys.modules["regionvlp.extract.detector"] = module
    pool_module.DecodePool = PatientPool  # type: ignore[misc, assignment]


@dataclass(frozen=True)
class Ended:
    """How a run ended: its exit code (-9 when killed), its standard error, and the points it passed."""

    code: int
    errors: str
    points: list[str]


@dataclass
class Campaign:
    """One format's faults. ``broken`` lists every promise that did not hold, in words."""

    work: Path
    videos: Path
    form: str
    runs: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    before: Path | None = None
    kept: frozenset[str] = frozenset()

    def undisturbed(self) -> list[str]:
        """Runs once without a fault, to compare with; returns the points."""
        reference = self.work / f"whole-{self.form}"
        in_this_process(self.arguments(self.work / f"warm-{self.form}"))
        if self.before is not None:
            shutil.copytree(self.before, reference)
        ended = run_forked(reference, self.arguments(reference), None)
        assert ended.code == 0, ended.errors
        self.wanted = contents(reference)
        self.wanted_ids = open_shards(reference).video_ids
        self.points = ended.points
        return ended.points

    def fail_and_mend(self, mended: str, by: str) -> None:
        """Has every fault begin with a finished folder, in which the video ``mended`` failed; it now is as ``by``."""
        before = self.work / f"before-{self.form}"
        in_this_process(self.arguments(before))
        shutil.copyfile(self.videos / by, self.videos / mended)
        self.before, self.kept = before, frozenset(open_shards(before).video_ids)

    def arguments(self, out: Path) -> list[str]:
        return [
            *("extract", "--videos", str(self.videos), "--out", str(out), "--format", self.form),
            *("--frames", "2", "--regions", "3", "--shard-size", "2", "--set", "run.retry=all"),
            *("--set", "shards.dtype=float32"),  # halves would bring torch along
        ]

    def strike(self, faults: Sequence[Fault]) -> None:
        """Runs into one fault after the other in one folder, then to the end, and looks at what is there."""
        out = self.work / f"struck-{self.form}"
        shutil.rmtree(out, ignore_errors=True)
        if self.before is not None:
            shutil.copytree(self.before, out)
        about = f"{self.form}, " + ", then ".join(f"{f.mode} at {f.point} ({self.points[f.point]})" for f in faults)
        for fault in faults:
            ended = run_forked(out, self.arguments(out), fault)
            self.runs[fault.mode] += 1
            self.check_end(about, ended, fault.mode)
            if out.exists():
                self.check_meanwhile(about, out)
        ended = run_forked(out, self.arguments(out), None)
        if ended.code != 0:
            self.broken.append(f"{about}: the run after it ended with {ended.code}: {ended.errors}")
        else:
            self.check_whole(about, out)

    def check_end(self, about: str, ended: Ended, mode: str) -> None:
        """A killed run is killed; any other says one clear line and ends with 2, or was not bothered at all."""
        lines = [line for line in ended.errors.splitlines() if not line.startswith("WARNING: ")]
        if ended.code == 2 and (len(lines) != 1 or not lines[0].startswith("error: ")):
            self.broken.append(f"{about}: said {ended.errors!r}")
        elif ended.code not in (0, 2, -9) or (ended.code == 0 and lines):
            self.broken.append(f"{about}: ended with {ended.code}: {ended.errors}")

    def check_meanwhile(self, about: str, out: Path) -> None:
        """Whatever a broken run left, nothing of it is damaged."""
        if not (out / MANIFEST_NAME).exists():
            return
        for fault in verify(out):
            if not fault.message.startswith(UNFINISHED):
                self.broken.append(f"{about}: left {fault}")
        try:
            ids = open_shards(out).video_ids  # reads every file that counts as finished
        except RegionVLPError as error:
            self.broken.append(f"{about}: cannot be opened: {error}")
        else:
            self.broken += [f"{about}: holds {name!r}" for name in set(ids) - set(self.wanted_ids)]
            self.broken += [f"{about}: lost {name!r}" for name in self.kept - set(ids)]

    def check_whole(self, about: str, out: Path) -> None:
        found = contents(out)
        for name in sorted(self.wanted.keys() | found.keys()):
            if name not in found:
                self.broken.append(f"{about}: {name} is missing in the end")
            elif name not in self.wanted:
                self.broken.append(f"{about}: {name} was left behind")
            elif found[name] != self.wanted[name]:
                self.broken.append(f"{about}: {name} differs in the end")
        self.broken += [f"{about}: {fault}" for fault in verify(out)]


def contents(folder: Path) -> dict[str, Any]:
    """What every file of a shard folder holds; receipts without times and the digest over them, failures without the
    count of attempts, of which a run that is broken off may make one more."""
    found: dict[str, Any] = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.is_dir():
            found[name] = "a folder"
        elif path.name.startswith("shard-") and path.suffix == ".json":
            receipt = json.loads(path.read_bytes())
            for failure in receipt["failures"]:
                del failure["attempt"]
            found[name] = {key: receipt[key] for key in receipt if key not in ("created", "timings", "digest")}
        else:
            found[name] = path.read_bytes()
    return found


def in_this_process(arguments: list[str]) -> None:
    from regionvlp.pipelines.cli import run

    with contextlib.redirect_stdout(sys.stderr):
        assert run(arguments) == 0


def run_forked(out: Path, arguments: list[str], fault: Fault | None) -> Ended:
    """Runs the command line in a fork of this process, its folder ``out`` behind a shim."""
    said, log = out.with_suffix(".err"), out.with_suffix(".log")
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            code = _child(out, arguments, fault, said, log)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return Ended(code, said.read_text(), log.read_text().splitlines() if log.exists() else [])


def _child(out: Path, arguments: list[str], fault: Fault | None, said: Path, log: Path) -> int:
    from regionvlp.pipelines import cli

    errors = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(errors, 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    log.unlink(missing_ok=True)
    signal.alarm(HUNG)
    shim = Shim(out, fault)
    shim.install()
    code = cli.run(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    log.write_text("\n".join(shim.points))
    return code


def chosen(points: Sequence[str], sample: int | None) -> list[Fault]:
    """Every point with every mode; or, of the first and last of each stretch of equal operations, every sixth with
    one mode each: others, with other modes, for ``sample`` 1 than for 0."""
    if sample is None:
        return [Fault(point, mode) for point in range(len(points)) for mode in MODES]
    ends = [p for p in range(len(points)) if points[p : p + 2] != [points[p]] * 2 or points[p - 1] != points[p]]
    return [Fault(point, MODES[(i + sample) % len(MODES)]) for i, point in enumerate(ends[sample::6])]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=Path)
    parser.add_argument("videos", type=Path)
    parser.add_argument("format")
    parser.add_argument("--sample", type=int)
    parser.add_argument("--pairs", type=int, default=0)
    parser.add_argument("--only-count", action="store_true")
    parser.add_argument("--mend", nargs=2, metavar=("MENDED", "BY"))
    options = parser.parse_args()
    stand_in()
    videos = Path(shutil.copytree(options.videos, options.work / "videos"))
    campaign = Campaign(options.work, videos, options.format)
    if options.mend:
        campaign.fail_and_mend(*options.mend)
    points = campaign.undisturbed()
    gc.freeze()  # forks share what is never touched again
    for fault in [] if options.only_count else chosen(points, options.sample):
        campaign.strike([fault])
    random_ = random.Random(5)
    for _ in range(options.pairs):
        campaign.strike([Fault(random_.randrange(len(points)), random_.choice(MODES)) for _ in range(2)])
    result = {"points": points, "runs": campaign.runs, "broken": campaign.broken}
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main()
