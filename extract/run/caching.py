"""``extract --what frames``: the sampled frames of videos, kept as JPEG, without any detector.

In: a source and the settings. Out: a frame folder (:mod:`regionvlp.shards.pictures`). Several may be at it at once, on
any machines: they share its shards by claims, as extractions of regions do. What is finished is kept, what is missing
is done, and a video that cannot be read becomes a failure row; failures that may pass are tried again by the next run.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regionvlp.errors import InputError, NothingDoneError, VideoError
from regionvlp.extract.run.plan import settle_plan, size_for
from regionvlp.extract.settings import ExtractConfig
from regionvlp.extract.sources import RowDecoder, Source, open_pool
from regionvlp.shards import ClaimLostError, Claims, Failure, Partial, PlanRow
from regionvlp.shards.pictures import FrameManifest, FrameReceipt, FrameWriter
from regionvlp.store.claims import Claim, claim_name
from regionvlp.store.files import remove_leftovers
from regionvlp.store.publication import ShardDoneError
from regionvlp.store.receipts import receipt_path
from regionvlp.store.recovery import set_lost_aside, tidy
from regionvlp.store.summary import summarise
from regionvlp.video.readers import check_reader

if TYPE_CHECKING:
    from regionvlp.video import DecodedVideo, DecodePool

POLL = 0.5  # seconds between two looks at what others are doing


@dataclass
class Cached:
    """What one call did: videos handled, frames written; and the folder's summary."""

    videos: int = 0
    frames: int = 0
    summary: dict[str, Any] | None = None


def cache_frames(
    source: Source,
    out: Path,
    config: ExtractConfig,
    *,
    on_plan: Callable[[int, int], None] = lambda planned, left: None,
    on_video: Callable[[int], None] = lambda frames: None,
) -> Cached:
    """Keeps the frames of all videos of a source in ``out``, going on where an earlier call stopped.

    Args:
        source: the videos. out: the frame folder; made if need be.
        config: its ``video``, ``frames`` and ``shards.size`` count.
        on_plan: called once, with the number of videos planned and of those still to do.
        on_video: called after each video with the number of frames written (0 for a failure).

    Raises:
        InputError, ConfigError, ShardError: the user's mistakes, and a disk that refuses.
        NothingDoneError: every video failed.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file", "give --out a folder")
    found, out = source.scan(), out.absolute()
    done = Cached()
    with open_pool(config.video) as pool:
        manifest = FrameManifest.create_or_check(out, _manifest(config))
        with Claims(out, stale_after=config.run.stale_after) as claims:
            remove_leftovers(out)
            set_lost_aside(out, claims)
            plan, _ = settle_plan(out, found, lambda videos: config.shards.size or size_for(videos, 1), claims)
            _undo_transient(out, plan.shards(), claims)
            left = deque(number for number in plan.shards() if not receipt_path(out, number).exists())
            on_plan(len(plan), sum(map(plan.count, left)))
            while left:
                number = left.popleft()
                if receipt_path(out, number).exists():
                    continue
                claim = claims.take(claim_name(number), of_videos=plan.count(number))
                if claim is None:
                    left.append(number)
                    time.sleep(POLL)
                    continue
                with claim:
                    _do(out, number, plan.rows(number), source, pool, manifest, config, claim, done, on_video)
    with Claims(out, stale_after=config.run.stale_after) as claims:
        tidy(out, claims, "", FrameManifest)
    done.summary = summarise(out, FrameManifest, FrameReceipt)
    if not done.summary["videos"]:
        raise NothingDoneError(f"none of the {len(plan)} videos could be read", "see the failures in the receipts")
    return done


def _manifest(config: ExtractConfig) -> FrameManifest:
    video = {
        "reader": check_reader(config.video.decoder),
        "sampling": "uniform",
        "max_seconds": config.video.max_seconds,
    }
    return FrameManifest(
        frames=config.video.frames,
        longer_side=config.frames.longer_side,
        quality=config.frames.quality,
        shard_size=config.shards.size or size_for(1 << 40, 1),
        video=video,
    )


def _undo_transient(out: Path, shards: Sequence[int], claims: Claims) -> None:
    """Takes away the receipts of shards with failures that may have passed, so that they are done again.

    Frames are cheap beside features: a whole shard is decoded anew rather than merged.
    """
    for number in shards:
        path = receipt_path(out, number)
        if not path.exists() or not any(failure.transient for failure in FrameReceipt.read(path).failures):
            continue
        claim = claims.take(claim_name(number))
        if claim is not None:
            with claim, claim.publishing():
                path.unlink(missing_ok=True)


def _do(
    out: Path,
    number: int,
    rows: Sequence[PlanRow],
    source: Source,
    pool: DecodePool,
    manifest: FrameManifest,
    config: ExtractConfig,
    claim: Claim,
    done: Cached,
    on_video: Callable[[int], None],
) -> None:
    failures: list[Failure] = []
    partial: list[Partial] = []
    started = time.perf_counter()
    try:
        with FrameWriter(out, number, manifest) as writer, RowDecoder(source, pool, manifest.frames) as decoder:
            for row, decoding in _ahead(rows, decoder, pool.workers + 1):
                frames = 0
                try:
                    video = decoding.result()
                except VideoError as error:
                    failures.append(Failure.of(row.video_id, error))
                else:
                    writer.add(row.video_id, video)
                    frames = len(video.frames)
                    if video.packets_skipped or video.frames_decoded < video.frames_announced:
                        counts = (video.frames_announced, video.frames_decoded, video.packets_skipped)
                        partial.append(Partial(row.video_id, *counts))
                done.videos, done.frames = done.videos + 1, done.frames + frames
                on_video(frames)
            seconds = {"total": round(time.perf_counter() - started, 3)}
            writer.finish(failures=failures, partial=partial, timings=seconds, publishing=claim.publishing())
    except (ShardDoneError, ClaimLostError):
        return  # somebody else has done it, or is doing it


def _ahead(rows: Sequence[PlanRow], decoder: RowDecoder, most: int) -> Iterator[tuple[PlanRow, Future[DecodedVideo]]]:
    """Each row with its frames to come, in order; enough are under way to keep the decoders busy."""
    waiting: deque[tuple[PlanRow, Future[DecodedVideo]]] = deque()
    left = iter(rows)
    while True:
        waiting.extend((row, decoder.submit(row)) for row in islice(left, most - len(waiting)))
        if not waiting:
            return
        yield waiting.popleft()
