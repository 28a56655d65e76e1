"""The runs of an ablation: each variant with each seed, trained as any other run and measured once.

In: :class:`Job`. Out: ``RUN/result.json``, which marks a run as finished. Jobs side by side are processes of one thread
each; ``python -m regionvlp.pipelines.ablate.runs CONFIG RUN`` is one of them. Their errors travel as JSON, the last
line of ``RUN.log``.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regionvlp.config import HARMLESS, dump_yaml, resumable_keys
from regionvlp.errors import InputError, NothingDoneError, RegionVLPError, error_from
from regionvlp.store.files import replacing
from regionvlp.training.config import RunConfig, read_run_config
from regionvlp.training.logbook import read_log
from regionvlp.training.run_folder import CONFIG, check_folder, first_difference

RESULT = "result.json"
POLL = 0.2  # seconds between two looks at running processes


@dataclass(frozen=True)
class Job:
    """One run: which variant and seed, its configuration, and its folder."""

    variant: str
    seed: int
    config: RunConfig
    run: Path


def check_run(job: Job) -> None:
    """Makes sure that the job's folder holds nothing, or this very run.

    Raises:
        InputError, ConfigError: it holds a run of other settings, or something else.
    """
    if not check_folder(job.run):
        return
    # As configurations, not as text: one written before a setting existed has its default.
    known = read_run_config(job.run / CONFIG)
    was, now = (config.model_dump(mode="json") for config in (known, job.config))
    # Nothing that figures could depend on may change: the best checkpoint is the one measured.
    difference = first_difference(was, now, resumable_keys(type(job.config), (HARMLESS,)))
    if difference:
        key, old, new = difference
        raise InputError(
            f"{job.run} is of another run: {key} is {old!r} there and {new!r} here", "choose another --out"
        )


def finished(job: Job) -> dict[str, Any] | None:
    """What an earlier call measured of this run (see :func:`check_run`), or None."""
    try:
        result: dict[str, Any] = json.loads((job.run / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return result


def run_jobs(jobs: Sequence[Job], at_once: int) -> Iterator[tuple[Job, dict[str, Any] | RegionVLPError]]:
    """Runs jobs, and yields each with its result, or with the error that kept it from one.

    Raises:
        KeyboardInterrupt: interrupted; what was running has left a checkpoint to go on from.
    """
    if at_once == 1:
        for job in jobs:
            try:
                yield job, train_and_measure(job.config, job.run)
            except RegionVLPError as error:
                yield job, error
    else:
        yield from _side_by_side(jobs, at_once)


def train_and_measure(config: RunConfig, run: Path) -> dict[str, Any]:
    """Trains to the end, from where the run stands, and measures retrieval and, where the truth is known, grounding.

    Returns:
        ``t2v`` and ``v2t`` of :func:`retrieval_metrics`, ``grounding`` of :func:`pointing_accuracy` or None, ``steps``,
        and ``seconds`` spent in them. They are also in ``RUN/result.json``.
    """
    from regionvlp.checkpoints.folder import load_checkpoint
    from regionvlp.devices import describe_device, pick_device
    from regionvlp.pipelines.measure import measure
    from regionvlp.training.run import train

    train(config, run)
    assert config.evaluated is not None, "an ablation has something to measure on"
    device = pick_device(config.train.device)
    found = measure(load_checkpoint(run, device), config.evaluated, device)
    steps, seconds = _time_of(run)
    result = {
        "t2v": found.metrics["t2v"],
        "v2t": found.metrics["v2t"],
        "chance": found.metrics["chance"],
        "gallery": found.metrics["gallery"],
        "grounding": found.grounding,
        "steps": steps,
        "seconds": seconds,
        "step_seconds": seconds / max(steps, 1),
        "device": describe_device(device),
    }
    with replacing(run / RESULT) as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return result


def _time_of(run: Path) -> tuple[int, float]:
    """Steps done, and seconds in them, by the run's own log; evaluations and checkpoints do not count."""
    step, seconds = 0, 0.0
    for row in read_log(run):
        if "time/compute_s" in row:
            seconds += (row["step"] - step) * (row["time/compute_s"] + row["time/data_s"])
            step = row["step"]
    return step, seconds


def _side_by_side(jobs: Sequence[Job], at_once: int) -> Iterator[tuple[Job, dict[str, Any] | RegionVLPError]]:
    waiting = list(jobs)
    running: list[tuple[Job, subprocess.Popen[bytes]]] = []
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                running.append((waiting[0], _start(waiting.pop(0))))
            time.sleep(POLL)
            for job, process in [pair for pair in running if pair[1].poll() is not None]:
                running.remove((job, process))
                yield job, finished(job) or _error_of(job, process.returncode)
    finally:
        for _, process in running:
            process.send_signal(signal.SIGTERM)  # it finishes its step and writes a checkpoint
        for _, process in running:
            process.wait()


def _start(job: Job) -> subprocess.Popen[bytes]:
    """Starts a process of one thread on a job; what it says goes to ``RUN.log``."""
    job.run.parent.mkdir(parents=True, exist_ok=True)
    config = job.run.with_name(f"{job.run.name}.yaml")
    config.write_text(dump_yaml(job.config), encoding="utf-8")
    # -P: in the root of a checkout ./regionvlp would be found first.
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    with _log_of(job).open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, str(config), str(job.run)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **one_thread},
        )


def _error_of(job: Job, code: int) -> RegionVLPError:
    """What a process that left no result said last."""
    lines = _log_of(job).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = lines[-1] if lines else "it said nothing"
    try:
        return error_from(json.loads(last))
    except (ValueError, TypeError, KeyError):
        return NothingDoneError(f"{last} (exit code {code})", f"see {_log_of(job)}")


def _log_of(job: Job) -> Path:
    return job.run.with_name(f"{job.run.name}.log")


def _main(config: str, run: str) -> int:
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        train_and_measure(read_run_config(Path(config)), Path(run))
    except RegionVLPError as error:
        sys.stderr.write(f"{json.dumps(error.to_dict())}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
