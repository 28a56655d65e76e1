"""Training runs killed with SIGKILL at random moments, resumed, and compared with one that nobody disturbed.

A run is the real command, forked from a process that has done the imports and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regionvlp.pipelines.bench.fork_server import ForkServer
from regionvlp.store.files import is_temporary
from regionvlp.training.logbook import read_log
from regionvlp.training.saving import BEST, checkpoints, latest, step_of

PHASES = ("before the first checkpoint", "within a checkpoint", "after a checkpoint")
IMPORTS = (
    "regionvlp.pipelines.pretrain",
    "regionvlp.training.run",
    "regionvlp.systems.demovlp",
    "torch.utils.tensorboard",
    "transformers.models.auto.modeling_auto",
    "transformers.models.distilbert.modeling_distilbert",
    "pandas",  # by way of pyarrow
)
PATIENCE = 300.0  # seconds that a run of two may take on a busy machine


@dataclass(frozen=True)
class Kill:
    """One run that was killed and resumed.

    Attributes:
        phase: of :data:`PHASES`, by what the run folder held.
        step: that the resumed run began with.
        faults: in what it ended unlike one that nobody disturbed.
    """

    phase: str
    step: int
    faults: tuple[str, ...]


def kills(config: Path, folder: Path, number: int, seed: int = 0) -> Iterator[Kill]:
    """Kills and resumes runs of one configuration, every fourth with a loader process for each source.

    Args:
        config: of a run of a few seconds on the CPU.
        folder: scratch; folders of runs that ended otherwise stay.
        number: runs that are killed; those that end before it comes to that do not count.
        seed: of the moments.
    """
    folder.mkdir()
    rng = random.Random(seed)
    with ForkServer(IMPORTS) as server:
        runs = _Runs(server, config, folder / "said.txt")
        runs.finish(folder / "warm")
        began = time.monotonic()
        runs.finish(folder / "undisturbed")
        length, expected = time.monotonic() - began, result_of(folder / "undisturbed")
        done = 0
        while done < number:
            run, workers = folder / f"run{done}", int(done % 4 == 3)
            shutil.rmtree(run, ignore_errors=True)
            if not runs.kill(run, rng.uniform(0, 1.2 * length), workers):
                continue
            phase, step = _stand(run)
            runs.finish(run, workers)
            found = result_of(run)
            faults = tuple(name for name in expected if found[name] != expected[name])
            if not faults:
                shutil.rmtree(run)
            yield Kill(phase, step, faults)
            done += 1


def result_of(run: Path) -> dict[str, Any]:
    """What a run ended with, without what depends on the clock."""
    newest = latest(run)
    assert newest is not None
    log = [{key: value for key, value in line.items() if not key.startswith("time/")} for line in read_log(run)]
    return {
        "step": newest.name,
        "weights": hashlib.sha256((newest / "model.safetensors").read_bytes()).hexdigest(),
        "log": log,
        "best": json.loads((run / "checkpoints" / BEST).read_text()),
        "checkpoints": [path.name for path in checkpoints(run)],
    }


@dataclass(frozen=True)
class Trace:
    """One run that got a signal, and the end that it came to.

    Attributes:
        signal: its name; none for the run that nobody disturbed.
        codes: exit codes of the commands that it took.
        resumed: the step that the second of them began with; 0 where one was enough.
        losses: at the first and at the last step. weights: SHA-256 of the last ones.
    """

    signal: str
    codes: tuple[int, ...]
    resumed: int
    losses: tuple[float, float]
    weights: str


def traces(config: Path, folder: Path) -> Iterator[Trace]:
    """A run as it is, and one for each signal, which comes once there is a checkpoint."""
    folder.mkdir()
    with ForkServer(IMPORTS) as server:
        runs = _Runs(server, config, folder / "said.txt")
        for name in ("", "SIGTERM", "SIGUSR1", "SIGKILL"):
            run = folder / (name or "undisturbed")
            codes, resumed = [runs.signalled(run, name)], 0
            if codes[0] != 0:
                newest = latest(run)
                assert newest is not None
                resumed = step_of(newest)
                runs.finish(run)
                codes.append(0)
            found = result_of(run)
            losses = [value for line in found["log"] for key, value in line.items() if key.endswith("/loss")]
            yield Trace(name, tuple(codes), resumed, (losses[0], losses[-1]), found["weights"])


class _Runs:
    """Starts ``regionvlp pretrain`` for one configuration."""

    def __init__(self, server: ForkServer, config: Path, log: Path) -> None:
        self._server, self._config, self._log = server, config, log

    def start(self, run: Path, workers: int = 0) -> int:
        arguments = ["pretrain", "--config", str(self._config), "--out", str(run), "--set", f"train.workers={workers}"]
        return self._server.start(arguments, self._log)

    def finish(self, run: Path, workers: int = 0) -> None:
        """Trains to the end, from where the run stands."""
        code = self._server.wait(self.start(run, workers), PATIENCE)
        assert code == 0, f"exit code {code}: {self._log.read_text()[-2000:]}"

    def signalled(self, run: Path, name: str) -> int:
        """Starts a run and sends a signal once it has a checkpoint; returns its exit code."""
        pid = self.start(run)
        deadline = time.monotonic() + PATIENCE
        while name and latest(run) is None:
            assert time.monotonic() < deadline, self._log.read_text()[-2000:]
            time.sleep(0.01)
        if name:
            os.kill(pid, signal.Signals[name])
        code = self._server.wait(pid, PATIENCE)
        assert code is not None
        return code

    def kill(self, run: Path, seconds: float, workers: int) -> bool:
        """Starts a run and kills its main process after a time; False where the run was faster."""
        pid = self.start(run, workers)
        if (code := self._server.wait(pid, seconds)) is not None:
            assert code == 0, self._log.read_text()[-2000:]
            return False
        os.kill(pid, signal.SIGKILL)
        code = self._server.wait(pid, PATIENCE)
        assert code in (0, -signal.SIGKILL), code
        return code != 0


def _stand(run: Path) -> tuple[str, int]:
    """Where a kill fell, and the step of the newest whole checkpoint."""
    folder = run / "checkpoints"
    newest = latest(run)
    if folder.is_dir() and any(is_temporary(path.name) for path in folder.iterdir()):
        return PHASES[1], step_of(newest) if newest else 0
    return (PHASES[2], step_of(newest)) if newest else (PHASES[0], 0)
