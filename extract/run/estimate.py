"""What an extraction would take: videos, shards, frames, bytes on disk, and time, from a few videos tried here.

In: a source and the settings. Out: an :class:`Estimate`. Nothing is written, but for temporary copies of what lies
elsewhere.
"""

from __future__ import annotations

import resource
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from regionvlp.errors import RegionVLPError, VideoError
from regionvlp.extract.run.detecting import Detector, load_detector
from regionvlp.extract.run.plan import size_for, update_plan
from regionvlp.extract.settings import ExtractConfig
from regionvlp.extract.sources import RowDecoder, Source, open_pool
from regionvlp.extract.sources.looking import Looked, look, spread
from regionvlp.shards import PlanRow, PlanTable, ShardSpec, finished_shards, read_plan
from regionvlp.video import DecodedVideo
from regionvlp.video.find import IMAGE_SUFFIXES, VIDEO_SUFFIXES

# The public detectors', where the detector itself cannot be loaded.
FEATURE_WIDTH = 2048
_TRIED = 64  # videos looked for to find _READ that are there
_READ = 16
_DETECT_SECONDS = 20.0  # no further batch is begun after so long


@dataclass(frozen=True)
class Calibration:
    """What a few videos took on this device, with the settings of the extraction.

    Attributes:
        device: where the detector ran.
        read: videos whose frames could be read.
        failures: reason -> count, of the others that were tried.
        frames: frames of those that were read.
        detected: how many of them went through the detector.
        decode_seconds: wall time a video, with all decoding processes at work.
        detect_seconds: wall time a frame.
        overlaps: decoding does not take the detector's processor.
    """

    device: str
    read: int
    failures: dict[str, int]
    frames: int
    detected: int
    decode_seconds: float
    detect_seconds: float
    overlaps: bool

    def seconds(self, videos: int, frames: float) -> float:
        """Of an extraction of so many videos and frames, in one process of this device."""
        both = (videos * self.decode_seconds, frames * self.detect_seconds)
        return max(both) if self.overlaps else sum(both)


@dataclass(frozen=True)
class Estimate:
    """What an extraction would be.

    Attributes:
        videos: planned in all, earlier runs included.
        new: of them, not planned before.
        left: of them, in shards that are not finished; what follows is of these.
        shards: shards that are not finished.
        shard_size: videos in each, at most, where they are new.
        frames: at most, if every video can be read.
        frame_bytes: on disk.
        list_seconds: what listing and planning took.
        list_memory: and the most memory of the process by then, bytes.
        looked: a look for the files of a list.
        calibration: None where it was not possible.
        why_not: then, the reason.
    """

    videos: int
    new: int
    left: int
    shards: int
    shard_size: int
    frames: int
    frame_bytes: int
    list_seconds: float
    list_memory: int
    looked: Looked
    calibration: Calibration | None
    why_not: str

    @property
    def bytes(self) -> int:
        """On disk, at most."""
        return self.frames * self.frame_bytes

    @property
    def seconds(self) -> float | None:
        """Wall time in one process of this device; None without a calibration."""
        return self.calibration.seconds(self.left, self.frames) if self.calibration else None


def estimate(source: Source, out: Path, config: ExtractConfig) -> Estimate:
    """Plans an extraction without doing it.

    Raises:
        InputError, ShardError: the source cannot be listed, or ``out`` was made from other videos.
        ConfigError: a setting is wrong.
    """
    started = time.monotonic()
    found = source.scan()
    planned = read_plan(out)
    size = config.shards.size or size_for(len(found), config.run.processes or 1)
    added = update_plan(planned, found, size).added
    plan = added if planned is None else planned.followed_by(added)
    done = finished_shards(out) if planned is not None else []
    left = plan.table.filter(pc.invert(pc.is_in(plan.table.column("shard"), pa.array(done, pa.int32()))))
    list_seconds = time.monotonic() - started
    # Linux counts in kB, macOS in bytes.
    list_memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    rows = list(PlanTable(left.take(pa.array(spread(len(left), _TRIED), pa.int64())))) if len(left) else []
    tried: list[tuple[PlanRow, DecodedVideo]] = []
    calibration, why_not, width = None, "nothing is left to do", FEATURE_WIDTH
    if rows:
        try:
            detector = load_detector(config.detector)
            width = detector.feature_width
            calibration, tried, why_not = _calibrate(source, rows, detector, config)
        except RegionVLPError as error:
            why_not = error.message
    spec = ShardSpec(
        format=config.shards.format,
        dtype=config.shards.dtype,
        frames=config.video.frames,
        regions=config.detector.regions,
        feature_width=width,
    )
    return Estimate(
        videos=len(plan),
        new=len(added),
        left=len(left),
        shards=len(PlanTable(left).shards()),
        shard_size=size,
        frames=_frames(left, tried, config.video.frames),
        frame_bytes=sum(column.frame_bytes for column in (spec.features, *spec.small_columns)),
        list_seconds=list_seconds,
        list_memory=list_memory,
        looked=look(source, found),
        calibration=calibration,
        why_not=why_not,
    )


def _frames(videos: pa.Table, tried: Sequence[tuple[PlanRow, DecodedVideo]], most: int) -> int:
    """Frames of all videos: one of a picture, ``most`` of a video, and of what has no suffix, as those tried had."""
    names = pc.coalesce(videos.column("member"), videos.column("location"), videos.column("video_id"))
    images = pc.sum(pc.match_substring_regex(names, _ends_in(IMAGE_SUFFIXES))).as_py() or 0
    clips = pc.sum(pc.match_substring_regex(names, _ends_in(VIDEO_SUFFIXES))).as_py() or 0
    plain = [video for row, video in tried if not Path(row.member or row.location or row.video_id).suffix]
    are_images = bool(plain) and all(video.reader == "pillow" for video in plain)
    rest = len(videos) - images - clips
    return int(images + clips * most + rest * (1 if are_images else most))


def _ends_in(suffixes: frozenset[str]) -> str:
    return rf"(?i)\.({'|'.join(suffix[1:] for suffix in sorted(suffixes))})$"


def _calibrate(
    source: Source, rows: Sequence[PlanRow], detector: Detector, config: ExtractConfig
) -> tuple[Calibration | None, list[tuple[PlanRow, DecodedVideo]], str]:
    """Decodes some of ``rows`` and detects in their frames; also what was decoded, and why there is no calibration."""
    pool = open_pool(config.video)
    tried: list[tuple[PlanRow, DecodedVideo]] = []
    failures: Counter[str] = Counter()
    example = ""
    with pool, RowDecoder(source, pool, config.video.frames) as decoder:
        # The decoding processes take a moment to start, once.
        for starting in [decoder.submit(rows[0]) for _ in range(pool.workers)]:
            _result(starting)
        started, left = time.perf_counter(), list(rows)
        while left and len(tried) < _READ:
            now, left = left[:_READ], left[_READ:]
            for row, decoding in [(row, decoder.submit(row)) for row in now]:
                result = _result(decoding)
                if isinstance(result, DecodedVideo):
                    tried.append((row, result))
                else:
                    failures[result.reason] += 1
                    example = example or result.message
        decode_seconds = (time.perf_counter() - started) / max(len(tried), 1)
    if not tried:
        return None, tried, f"none of the {sum(failures.values())} videos that were tried can be read: {example}"
    frames = [frame for _, decoded in tried for frame in decoded.frames]
    detected, detect_seconds = _time_detector(detector, frames)
    device = str(getattr(detector, "device", "cpu"))
    return (
        Calibration(
            device=device,
            read=len(tried),
            failures=dict(failures.most_common()),
            frames=len(frames),
            detected=detected,
            decode_seconds=decode_seconds,
            detect_seconds=detect_seconds,
            overlaps=device != "cpu",
        ),
        tried,
        "",
    )


def _result(decoding: Future[DecodedVideo]) -> DecodedVideo | VideoError:
    try:
        return decoding.result()
    except VideoError as error:
        return error


def _time_detector(detector: Detector, frames: Sequence[NDArray[np.uint8]]) -> tuple[int, float]:
    """How many frames went through the detector, and the seconds that each took."""
    batch = detector.max_batch
    detector.detect(frames[:batch])  # the first time compiles, tunes and takes memory
    started, detected = time.perf_counter(), 0
    while detected < len(frames) and time.perf_counter() - started < _DETECT_SECONDS:
        detected += len(detector.detect(frames[detected : detected + batch]))
    return detected, (time.perf_counter() - started) / detected
