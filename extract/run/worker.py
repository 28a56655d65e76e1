"""One shard, from video files to a finished shard file with its receipt: the unit that every launcher calls.

Videos are decoded ahead in child processes while the detector works on those before. Consecutive videos are detected
together, so that their frames of equal size fill a batch; which ones depends on the plan and their frames alone, and
they are written in plan order, so the same videos and settings give the same file whatever the timing was.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from regionvlp.errors import VideoError
from regionvlp.extract.sources import RowDecoder, Source
from regionvlp.regions import FrameRegions, VideoRegions
from regionvlp.shards import Failure, Manifest, Partial, PlanRow, Receipt, ShardWriter
from regionvlp.shards.schema import find_problem

if TYPE_CHECKING:
    from regionvlp.extract.run.detecting import Detector
    from regionvlp.video import DecodedVideo, DecodePool

# What every working detector takes: whoever fails on this is broken itself.
PROBE = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
# How a detector fails on a frame that it cannot take; anything else ends the run.
DETECTOR_ERRORS = (RuntimeError, ValueError, MemoryError)
# What may be otherwise a moment later. A video over its time limit would hold up its shard for as long again: the next
# run tries it.
TRIED_AGAIN = frozenset({"io-error", "decoder-crashed"})
PAUSE = 0.2  # seconds, longer with every attempt


@dataclass
class ShardTally:
    """What happened to the videos of one shard."""

    failures: list[Failure] = field(default_factory=list)
    partial: list[Partial] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: {"decode_wait": 0.0, "detect": 0.0, "write": 0.0})

    def timings(self) -> dict[str, float]:
        """The seconds, as a receipt holds them."""
        return {name: round(seconds, 3) for name, seconds in self.seconds.items()}


@dataclass(frozen=True)
class Tools:
    """What turns videos into regions; a worker makes it once and uses it for all its shards.

    Attributes:
        manifest: frames, regions, format and dtype of the folder.
        detector: finds the regions.
        pool: decodes the videos.
        batch: frames that are detected together, of several videos where one has fewer.
        attempts: how many times a video is tried whose reading failed for a reason that may pass.
    """

    manifest: Manifest
    detector: Detector
    pool: DecodePool
    batch: int
    attempts: int = 1


def process_shard(
    folder: Path,
    number: int,
    rows: Sequence[PlanRow],
    source: Source,
    tools: Tools,
    *,
    publishing: AbstractContextManager[bool] | None = None,
    on_video: Callable[[int], None] = lambda frames: None,
) -> Receipt:
    """Decodes, detects and writes one shard.

    Args:
        folder: the shard folder.
        number: the shard's number.
        rows: its videos, in plan order.
        source: where the videos come from; one that is gone is a failure row ``missing-file``.
        tools: what does the work.
        publishing: see :meth:`ShardWriter.finish`.
        on_video: called after each video with the number of frames written (0 for a failure).

    Returns:
        The receipt, already on disk.

    Raises:
        RuntimeError: the detector is broken (a lost device, say); nothing of the shard is left behind.
        ShardError: the shard could not be written; nothing of it is left behind. ShardDoneError, ClaimLostError:
            another worker has done it, or is doing it.
    """
    tally = ShardTally()
    with (
        ShardWriter(folder, number, tools.manifest) as writer,
        closing(outcomes(rows, source, tools, tally)) as results,
    ):
        for outcome in results:
            frames = 0
            if isinstance(outcome, VideoRegions):
                started = time.perf_counter()
                writer.add(outcome)
                tally.seconds["write"] += time.perf_counter() - started
                frames = outcome.num_frames
            else:
                tally.failures.append(outcome)
            on_video(frames)
        return writer.finish(
            failures=tally.failures, partial=tally.partial, timings=tally.timings(), publishing=publishing
        )


def outcomes(
    rows: Sequence[PlanRow], source: Source, tools: Tools, tally: ShardTally
) -> Generator[VideoRegions | Failure, None, None]:
    """What becomes of each video, in the order of ``rows``; failures are the caller's to keep."""
    shard = _Shard(tools.manifest, tools.detector, tally)
    with RowDecoder(source, tools.pool, tools.manifest.frames) as decoder:
        for group in _groups(_decode_ahead(rows, decoder, tools, tally), tools.batch):
            yield from shard.detect(group)


def _decode_ahead(rows: Sequence[PlanRow], decoder: RowDecoder, tools: Tools, tally: ShardTally) -> Iterator[_Decoded]:
    """Yields each row with its frames or its failure; enough are under way to keep the decoders and a batch busy."""
    most = tools.pool.workers + 1 + tools.batch // tools.manifest.frames
    ahead: deque[tuple[PlanRow, Future[DecodedVideo]]] = deque()
    left = iter(rows)
    while True:
        for row in islice(left, most - len(ahead)):
            ahead.append((row, decoder.submit(row)))
        if not ahead:
            return
        row, decoding = ahead.popleft()
        started = time.perf_counter()
        decoded = _decoded(row, decoding, decoder, tools.attempts)
        tally.seconds["decode_wait"] += time.perf_counter() - started
        yield decoded


def _decoded(row: PlanRow, decoding: Future[DecodedVideo], decoder: RowDecoder, attempts: int) -> _Decoded:
    """Waits for a video; tries it again where that may help."""
    attempt = 1
    while True:
        try:
            return _Decoded(row.video_id, decoding.result(), attempt)
        except VideoError as error:
            if attempt >= attempts or not error.transient or error.reason not in TRIED_AGAIN:
                return _Decoded(row.video_id, error, attempt)
        time.sleep(PAUSE * attempt)
        attempt += 1
        decoding = decoder.submit(row)


def _groups(videos: Iterator[_Decoded], batch: int) -> Iterator[list[_Decoded]]:
    """Consecutive videos with at most ``batch`` frames together; one with more stands alone."""
    group: list[_Decoded] = []
    frames = 0
    for video in videos:
        if group and frames + len(video.frames) > batch:
            yield group
            group, frames = [], 0
        group.append(video)
        frames += len(video.frames)
    if group:
        yield group


@dataclass(frozen=True)
class _Decoded:
    """A video with its frames, or with what kept them from being read."""

    video_id: str
    result: DecodedVideo | VideoError
    attempt: int

    @property
    def frames(self) -> Sequence[NDArray[np.uint8]]:
        return () if isinstance(self.result, VideoError) else self.result.frames


class _Shard:
    """The detection of one shard's videos and the tally of it."""

    def __init__(self, manifest: Manifest, detector: Detector, tally: ShardTally) -> None:
        self.manifest, self.detector, self.tally = manifest, detector, tally

    def detect(self, group: Sequence[_Decoded]) -> Iterator[VideoRegions | Failure]:
        """What became of each video of the group, in order."""
        shared = self._together(group)
        for video in group:
            try:
                yield self._one(video, shared)
            except VideoError as error:
                yield Failure.of(video.video_id, error, video.attempt)

    def _together(self, group: Sequence[_Decoded]) -> Iterator[FrameRegions] | None:
        """The regions of all frames of the group; None where that fails or is one video's: it is tried by itself.

        An error of one video would be the whole group's, so each gets its own try and its own row.
        """
        if sum(1 for video in group if video.frames) < 2:
            return None
        try:
            return iter(self._run([frame for video in group for frame in video.frames]))
        except (VideoError, *DETECTOR_ERRORS):
            return None

    def _alone(self, frames: Sequence[NDArray[np.uint8]]) -> list[FrameRegions]:
        """The regions of one video's frames; what the detector cannot take becomes a :class:`VideoError`.

        Raises:
            RuntimeError, ValueError, MemoryError: the detector is broken, so a row about this video would be untrue.
        """
        try:
            return self._run(frames)
        except DETECTOR_ERRORS as error:
            try:
                self._run([PROBE])
            except DETECTOR_ERRORS:
                raise error from None
            text = f"{type(error).__name__}: {error}"
            out_of_memory = isinstance(error, MemoryError) or "out of memory" in text.lower()
            reason = "out-of-memory" if out_of_memory else "detector-error"
            raise VideoError(text, stage="detect", reason=reason, transient=out_of_memory) from error

    def _run(self, frames: Sequence[NDArray[np.uint8]]) -> list[FrameRegions]:
        started = time.perf_counter()
        try:
            return self.detector.detect(frames)
        finally:
            self.tally.seconds["detect"] += time.perf_counter() - started

    def _one(self, video: _Decoded, shared: Iterator[FrameRegions] | None) -> VideoRegions:
        decoded = video.result
        if isinstance(decoded, VideoError):
            raise decoded
        found = list(islice(shared, len(decoded.frames))) if shared else self._alone(decoded.frames)
        regions = VideoRegions.from_frames(
            video.video_id,
            found,
            frame_index=decoded.frame_index,
            frame_time=decoded.frame_time,
            image_size=[(frame.shape[0], frame.shape[1]) for frame in decoded.frames],
            slots=self.manifest.regions,
            dtype=self.manifest.memory_dtype.name,
        )
        if problem := find_problem(regions, self.manifest):
            if not np.isfinite(regions.features).all() and all(np.isfinite(one.features).all() for one in found):
                problem = f"the features are beyond what {self.manifest.dtype} holds: extract with --dtype float32"
            raise VideoError(problem, stage="detect", reason="bad-numbers")
        if decoded.packets_skipped or decoded.frames_decoded < decoded.frames_announced:
            self.tally.partial.append(
                Partial(video.video_id, decoded.frames_announced, decoded.frames_decoded, decoded.packets_skipped)
            )
        return regions
