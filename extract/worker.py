"""One shard, from video files to a finished shard file with its receipt: the unit that every launcher calls.

Videos are decoded ahead in child processes while the detector works on the one before; they are written in plan
order, so the same videos and settings give the same file whatever the timing was.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from regionvlp.errors import VideoError
from regionvlp.regions import VideoRegions
from regionvlp.shards import Failure, Manifest, Partial, PlanRow, Receipt, ShardWriter
from regionvlp.shards.schema import find_problem

if TYPE_CHECKING:
    from regionvlp.extract.detector import RegionDetector
    from regionvlp.video import DecodedVideo, DecodePool

# A detector that fails on so many videos in a row is broken itself; their rows would be untrue.
DETECTOR_FAILURES_IN_A_ROW = 16


@dataclass
class ShardTally:
    """What happened to the videos of one shard."""

    failures: list[Failure] = field(default_factory=list)
    partial: list[Partial] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: {"decode_wait": 0.0, "detect": 0.0, "write": 0.0})


def process_shard(
    folder: Path,
    number: int,
    rows: Sequence[PlanRow],
    files: dict[str, Path],
    *,
    manifest: Manifest,
    detector: RegionDetector,
    pool: DecodePool,
    on_video: Callable[[int], None] = lambda frames: None,
) -> Receipt:
    """Decodes, detects and writes one shard.

    Args:
        folder: the shard folder.
        number: the shard's number.
        rows: its videos, in plan order.
        files: where each video lies; a video without an entry is a failure row ``missing-file``.
        manifest: frames, regions, format and dtype of the folder.
        detector: finds the regions.
        pool: decodes the videos.
        on_video: called after each video with the number of frames written (0 for a failure).

    Returns:
        The receipt, already on disk.

    Raises:
        RuntimeError: the detector failed on many videos in a row; nothing of the shard is left behind.
        ShardError, OSError: the shard could not be written; nothing of it is left behind.
    """
    tally = ShardTally()
    broken_in_a_row = 0
    with ShardWriter(folder, number, manifest) as writer:
        for row, decoding in _decode_ahead(rows, files, pool, manifest.frames):
            frames = 0
            try:
                regions = _one_video(row.video_id, decoding, detector, manifest, tally)
                started = time.perf_counter()
                writer.add(regions)
                tally.seconds["write"] += time.perf_counter() - started
                frames = regions.num_frames
                broken_in_a_row = 0
            except VideoError as error:
                tally.failures.append(_failure(row.video_id, error))
            except (RuntimeError, ValueError, MemoryError) as error:
                broken_in_a_row += 1
                if broken_in_a_row == DETECTOR_FAILURES_IN_A_ROW:
                    raise
                wrapped = VideoError(str(error) or type(error).__name__, stage="detect", reason="detector-error")
                tally.failures.append(_failure(row.video_id, wrapped, type(error).__name__))
            on_video(frames)
        return writer.finish(
            failures=tally.failures,
            partial=tally.partial,
            timings={name: round(seconds, 3) for name, seconds in tally.seconds.items()},
        )


def _decode_ahead(
    rows: Sequence[PlanRow], files: dict[str, Path], pool: DecodePool, frames: int
) -> Iterator[tuple[PlanRow, Future[DecodedVideo] | None]]:
    """Yields each row with its decoding under way, keeping a few videos more than there are decoders in flight."""
    ahead: deque[tuple[PlanRow, Future[DecodedVideo] | None]] = deque()
    for row in rows:
        path = files.get(row.video_id)
        ahead.append((row, pool.submit(path, frames) if path else None))
        if len(ahead) > pool.workers + 1:
            yield ahead.popleft()
    yield from ahead


def _one_video(
    video_id: str,
    decoding: Future[DecodedVideo] | None,
    detector: RegionDetector,
    manifest: Manifest,
    tally: ShardTally,
) -> VideoRegions:
    if decoding is None:
        raise VideoError("planned, but no longer in the folder", stage="open", reason="missing-file", transient=True)
    started = time.perf_counter()
    video = decoding.result()
    decoded = time.perf_counter()
    regions = VideoRegions.from_frames(
        video_id,
        detector.detect(video.frames),
        frame_index=video.frame_index,
        frame_time=video.frame_time,
        image_size=[(frame.shape[0], frame.shape[1]) for frame in video.frames],
        slots=manifest.regions,
        dtype=manifest.dtype,
    )
    if problem := find_problem(regions):
        raise VideoError(problem, stage="detect", reason="bad-numbers")
    tally.seconds["decode_wait"] += decoded - started
    tally.seconds["detect"] += time.perf_counter() - decoded
    if video.packets_skipped or video.frames_decoded < video.frames_announced:
        tally.partial.append(Partial(video_id, video.frames_announced, video.frames_decoded, video.packets_skipped))
    return regions


def _failure(video_id: str, error: VideoError, error_class: str | None = None) -> Failure:
    return Failure(
        video_id=video_id,
        stage=error.stage,
        reason=error.reason,
        error=error_class or type(error).__name__,
        message=error.message,
        attempt=1,
        transient=error.transient,
    )
