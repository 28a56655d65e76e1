"""A whole extraction: check everything, plan, and have workers do one shard after the other.

Whatever the user can get wrong is found before the output folder is touched. Each launcher runs the same
:class:`~regionvlp.extract.run.session.Session`; none of them holds a state that matters, for that is all in the folder.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from regionvlp.errors import InputError, NothingDoneError, RegionVLPError
from regionvlp.extract.launch.processes import devices_of, run_processes
from regionvlp.extract.launch.reports import Reports
from regionvlp.extract.launch.stopping import Stop, on_interrupt
from regionvlp.extract.run.job import Job
from regionvlp.extract.run.resuming import resumed
from regionvlp.extract.run.session import Session, Tally
from regionvlp.extract.run.status import Status, folder_status
from regionvlp.extract.settings import ExtractConfig
from regionvlp.extract.sources import Source, listed, open_source
from regionvlp.shards import Claims, finished_shards, read_plan
from regionvlp.store.manifest import MANIFEST_NAME
from regionvlp.store.recovery import tidy

if TYPE_CHECKING:
    import pyarrow as pa


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What one call of :func:`extract_folder` did, and where the folder stands now.

    Attributes:
        status: the whole folder, earlier runs included.
        new_videos: videos handled by this call, failures included; 0 when everything was done before.
        new_frames: frames written by this call.
        seconds: wall time of this call.
        left: shards that killed their workers again and again, so that they were left undone.
        open_slots: where the shards are shared out to slots (``task``): how many each other slot has that are not
            finished, and at which nobody is at work.
    """

    status: Status
    new_videos: int
    new_frames: int
    seconds: float
    left: list[int]
    open_slots: dict[int, int]


def extract_folder(
    videos: str | Path | Source,
    out: Path,
    config: ExtractConfig,
    *,
    task: tuple[int, int] = (0, 1),
    on_plan: Callable[[int, int], None] = lambda planned, left: None,
    on_video: Callable[[int], None] = lambda frames: None,
    on_elsewhere: Callable[[int], None] = lambda videos: None,
    on_note: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Turns the videos of a source into region shards in ``out``, going on where an earlier call stopped.

    Args:
        videos: a source, or what :func:`~regionvlp.extract.sources.open_source` makes one of: a folder, say.
        out: the shard folder; created if need be.
        config: see :class:`ExtractConfig`.
        task: (k, N): do only slot k of N, an array job's; (0, 1) for all. Only slot 0 adds videos to a plan.
        on_plan: called once, with the number of videos planned and of those still to do.
        on_video: called after each video with the number of frames written (0 for a failure).
        on_elsewhere: called with the number of videos of a shard that a worker of another command did meanwhile.
        on_note: called with a line for people, now and then.

    Raises:
        InputError, ConfigError, WeightsError, ShardError: the user's mistakes, before anything is written.
        NothingDoneError: every video of the folder failed (the failures are recorded all the same).
        KeyboardInterrupt: it was asked to stop, and videos are left. The folder can be resumed.
    """
    started = time.monotonic()
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file", "give --out a folder")
    source = open_source(videos)
    # Of the slots of an array, one lists all videos, and the others use the plan.
    found = listed(source, read_plan(out)) if task[0] == 0 else None
    config = resumed(config, out)
    job = Job(source, out.absolute(), config, task=task)
    reports, stop = Reports(on_plan, on_video, on_elsewhere, on_note), Stop()
    devices = devices_of(config)
    try:
        if config.run.engine == "ray":
            from regionvlp.extract.launch.ray_engine import run_ray

            tally, left = run_ray(job, found, stop, reports)
        elif devices:
            tally, left = run_processes(job, found, devices, stop, reports)
        else:
            tally, left = _run_here(job, found, stop, reports), []
    finally:
        _tidy(job)
    if stop.asked and folder_status(out).left:
        raise KeyboardInterrupt
    outcome = _outcome(job, tally, left, started)
    if config.run.card and not outcome.status.left:
        _write_card(job)
    return outcome


def _run_here(job: Job, found: pa.Table | None, stop: Stop, reports: Reports) -> Tally:
    """The launcher of one worker: this process."""
    with Session(job, on_video=reports.video) as session:
        session.prepare(found)
        reports.plan(session.work.planned, session.work.videos)
        with on_interrupt(stop, reports.note):
            session.run(
                stop,
                on_elsewhere=reports.elsewhere,
                on_wait=lambda shards: reports.note(f"waiting for {shards} shards that other workers are doing"),
            )
    return session.tally


def _tidy(job: Job) -> None:
    """Removes what workers left that died; nothing where the folder was never touched."""
    if (job.out / MANIFEST_NAME).exists():
        with Claims(job.out, stale_after=job.config.run.stale_after) as claims:
            tidy(job.out, claims, job.run)


def _write_card(job: Job) -> None:
    """The dataset card of a folder in which all is done; that it cannot be written ends no run."""
    from regionvlp.extract.run.card import CARD_NAME, write_card

    try:
        write_card(job.out)
    except (OSError, RegionVLPError) as error:
        log.warning("%s cannot be written: %s", job.out / CARD_NAME, error)


def _outcome(job: Job, tally: Tally, left: list[int], started: float) -> Outcome:
    out = job.out
    status = folder_status(out, job.config.run.stale_after)
    if status.done == 0 and status.left == 0:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in status.failures.items())
        raise NothingDoneError(
            f"none of the {status.videos} videos could be extracted: {reasons}",
            f"'regionvlp status {out} --failures' says why for each",
        )
    return Outcome(status, tally.videos, tally.frames, time.monotonic() - started, left, _open_slots(job, status))


def _open_slots(job: Job, status: Status) -> dict[int, int]:
    slot, slots = job.task
    plan = read_plan(job.out) if slots > 1 and status.left else None
    if plan is None:
        return {}
    at_work = {flight.shard for flight in status.in_flight if not flight.stale}
    dead = set(plan.shards()) - set(finished_shards(job.out)) - at_work
    counted = Counter(number % slots for number in dead if number % slots != slot)
    return dict(sorted(counted.items()))
