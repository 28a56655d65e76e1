"""A whole extraction in this process: check everything, plan, then one shard after the other.

Whatever the user can get wrong is found before the output folder is touched.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from regionvlp.errors import InputError, NothingDoneError
from regionvlp.extract.plan import update_plan
from regionvlp.extract.settings import ExtractConfig
from regionvlp.extract.sources import Source, open_source, refuse_absent
from regionvlp.extract.status import Status, folder_status
from regionvlp.extract.worker import process_shard
from regionvlp.shards import (
    Manifest,
    PlanTable,
    Receipt,
    finished_shards,
    lost_shards,
    read_plan,
    remove_leftovers,
    write_plan,
)
from regionvlp.shards.receipts import receipt_path
from regionvlp.video import DecodePool
from regionvlp.video.readers import check_reader

if TYPE_CHECKING:
    import pyarrow as pa

    from regionvlp.extract.detector import RegionDetector

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What one call of :func:`extract_folder` did, and where the folder stands now.

    Attributes:
        status: the whole folder, earlier runs included.
        new_videos: videos handled by this call, failures included; 0 when everything was done before.
        new_frames: frames written by this call.
        seconds: wall time of this call.
    """

    status: Status
    new_videos: int
    new_frames: int
    seconds: float


def extract_folder(
    videos: str | Path | Source,
    out: Path,
    config: ExtractConfig,
    *,
    on_plan: Callable[[int, int], None] = lambda planned, left: None,
    on_video: Callable[[int], None] = lambda frames: None,
) -> Outcome:
    """Turns the videos of a source into region shards in ``out``, going on where an earlier call stopped.

    Args:
        videos: a source, or what :func:`~regionvlp.extract.sources.open_source` makes one of: a folder, say.
        out: the shard folder; created if need be.
        config: see :class:`ExtractConfig`.
        on_plan: called once, with the number of videos planned and of those still to do.
        on_video: called after each video with the number of frames written (0 for a failure).

    Raises:
        InputError, ConfigError, WeightsError, ShardError: the user's mistakes, before anything is written.
        NothingDoneError: every video of the folder failed (the failures are recorded all the same).
    """
    started = time.monotonic()
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file", "give --out a folder")
    source = open_source(videos)
    found = source.scan()
    refuse_absent(source, found)

    # Torch is imported here, after the cheap checks.
    from regionvlp.extract.detector import RegionDetector

    settings = config.detector
    detector = RegionDetector.load(
        settings.name,
        device=settings.device,
        regions=settings.regions,
        selection=settings.selection,
        proposals=settings.proposals,
        precision=settings.precision,
        compile=settings.compile,
        backend=settings.backend,
        max_batch=settings.batch,
    )
    batch = detector.max_batch  # before a lack of memory may lower it: what is detected together must not depend on it
    with ExitStack() as stack:
        pool = stack.enter_context(
            DecodePool(
                config.video.workers,
                reader=config.video.decoder,
                time_limit=config.video.time_limit,
                max_seconds=config.video.max_seconds,
                memory_limit_mb=config.video.memory_limit_mb,
            )
        )
        manifest = Manifest.create_or_check(out, _manifest(config, detector))
        stack.enter_context(locked(out))
        remove_leftovers(out)
        _set_lost_shards_aside(out)
        plan = _plan(out, found, config.shards.size)
        done = set(finished_shards(out))
        todo = [number for number in plan.shards() if number not in done]
        new_videos = sum(len(plan.video_ids(number)) for number in todo)
        on_plan(len(plan), new_videos)
        new_frames = 0
        for number in todo:
            rows = plan.rows(number)
            receipt = process_shard(
                out,
                number,
                rows,
                source,
                manifest=manifest,
                detector=detector,
                pool=pool,
                batch=batch,
                on_video=on_video,
            )
            new_frames += receipt.frames
    status = folder_status(out)
    if status.done == 0:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in status.failures.items())
        raise NothingDoneError(
            f"none of the {status.videos} videos could be extracted: {reasons}",
            f"'regionvlp status {out} --failures' says why for each",
        )
    return Outcome(status, new_videos, new_frames, time.monotonic() - started)


def _manifest(config: ExtractConfig, detector: RegionDetector) -> Manifest:
    """What all shards of this extraction have in common."""
    return Manifest(
        format=config.shards.format,
        dtype=config.shards.dtype,
        frames=config.video.frames,
        regions=config.detector.regions,
        feature_width=detector.feature_width,
        shard_size=config.shards.size,
        detector=detector.identity(),
        video={
            "reader": check_reader(config.video.decoder),
            "sampling": "uniform",
            "max_seconds": config.video.max_seconds,
        },
    )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the shard folder for this process; the lock goes with the process, however that ends.

    Raises:
        InputError: another process of this machine is extracting into it.
    """
    import fcntl

    with (folder / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"another extraction is writing to {folder}", "wait for it, or use another --out"
            ) from None
        except OSError:
            log.warning("%s cannot be locked: take care that no other extraction writes there", folder)
        yield


def _set_lost_shards_aside(out: Path) -> None:
    """Has shards whose data file is gone or cut done again; what is left of them stays, under another name."""
    for number in lost_shards(out):
        receipt = Receipt.read(receipt_path(out, number))
        log.warning("shard %d is not what its receipt says; it is set aside and done again", number)
        for name in (receipt_path(out, number).name, receipt.file):
            if name and (out / name).exists():
                aside = out / f"set-aside-{name}"
                while aside.exists():  # an earlier loss of the same shard
                    aside = aside.with_name(f"again-{aside.name}")
                (out / name).rename(aside)


def _plan(out: Path, found: pa.Table, shard_size: int) -> PlanTable:
    """The plan of the folder, extended by the videos that are new."""
    planned = read_plan(out)
    update = update_plan(planned, found, shard_size)
    if update.changed:
        log.warning(
            "%d videos changed since they were planned (first: %s); their rows and failures are kept as they are. "
            "Extract into a new --out, or delete the receipts of their shards, to use the new files.",
            len(update.changed),
            update.changed[0],
        )
    plan = update.added if planned is None else planned.followed_by(update.added)
    if len(update.added):
        write_plan(out, plan)
    return plan
