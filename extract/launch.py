"""A whole extraction in this process: check everything, plan, then one shard after the other.

Whatever the user can get wrong is found before the output folder is touched.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from regionvlp.errors import InputError, NothingDoneError
from regionvlp.extract.plan import Plan, extend_plan
from regionvlp.extract.settings import ExtractConfig
from regionvlp.extract.status import Status, folder_status
from regionvlp.extract.worker import process_shard
from regionvlp.shards import Manifest, finished_shards, read_plan, remove_stale_files, write_plan
from regionvlp.video import DecodePool, find_videos

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
    videos: Path,
    out: Path,
    config: ExtractConfig,
    *,
    on_plan: Callable[[Plan, int], None] = lambda plan, left: None,
    on_video: Callable[[int], None] = lambda frames: None,
) -> Outcome:
    """Turns the videos below ``videos`` into region shards in ``out``, going on where an earlier call stopped.

    Args:
        videos: a folder of videos and images (or one file).
        out: the shard folder; created if need be.
        config: see :class:`ExtractConfig`.
        on_plan: called once, with the plan and the number of videos still to do.
        on_video: called after each video with the number of frames written (0 for a failure).

    Raises:
        InputError, ConfigError, WeightsError, ShardError: the user's mistakes, before anything is written.
        NothingDoneError: every video of the folder failed (the failures are recorded all the same).
    """
    started = time.monotonic()
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file", "give --out a folder")
    found = find_videos(videos)

    # Torch is imported here, after the cheap checks.
    from regionvlp.extract.detector import RegionDetector

    settings = config.detector
    detector = RegionDetector.load(
        settings.name,
        device=settings.device,
        regions=settings.regions,
        selection=settings.selection,
        proposals=settings.proposals,
    )
    with DecodePool(
        config.video.workers,
        reader=config.video.decoder,
        time_limit=config.video.time_limit,
        max_seconds=config.video.max_seconds,
        memory_limit_mb=config.video.memory_limit_mb,
    ) as pool:
        manifest = Manifest(
            format=config.shards.format,
            dtype=config.shards.dtype,
            frames=config.video.frames,
            regions=settings.regions,
            feature_width=detector.feature_width,
            shard_size=config.shards.size,
            detector=detector.identity(),
            video={"reader": pool.reader, "sampling": "uniform", "max_seconds": config.video.max_seconds},
        )
        manifest.create_or_check(out)
        remove_stale_files(out)
        plan = extend_plan(read_plan(out), found, config.shards.size)
        if plan.added:
            write_plan(out, plan.rows)
        if plan.changed:
            log.warning(
                "%d videos changed since they were planned (first: %s); their shards are kept as they are. "
                "Extract into a new --out to use the new ones.",
                len(plan.changed),
                plan.changed[0],
            )
        done = finished_shards(out)
        todo = {number: rows for number, rows in plan.shards().items() if number not in done}
        on_plan(plan, sum(len(rows) for rows in todo.values()))
        new_frames = 0
        for number, rows in todo.items():
            receipt = process_shard(
                out, number, rows, plan.files, manifest=manifest, detector=detector, pool=pool, on_video=on_video
            )
            new_frames += receipt.frames
    status = folder_status(out)
    if status.done == 0:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in sorted(status.failures.items()))
        raise NothingDoneError(
            f"none of the {status.videos} videos could be extracted: {reasons}",
            f"the receipts in {out} say why for each",
        )
    return Outcome(status, sum(len(rows) for rows in todo.values()), new_frames, time.monotonic() - started)
