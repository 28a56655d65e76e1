"""The default reader: PyAV, forward through the whole file, or from key frame to key frame where that is exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from regionvlp.errors import VideoError
from regionvlp.video.decoded import DecodedVideo, check_enough, frame_times
from regionvlp.video.forward import read_forward
from regionvlp.video.sampling import FrameRule
from regionvlp.video.seeking import NotExact, plan_sections, read_sections
from regionvlp.video.survey import Survey, survey
from regionvlp.video.window import Span, Window, find_span


def read(path: Path, rule: FrameRule, window: Window, min_decoded: float) -> DecodedVideo:
    """Reads a video with PyAV; arguments and errors are those of :func:`~regionvlp.video.readers.read_frames`."""
    found = survey(path, max_seconds=window.end)
    span = find_span(window, found.shown_times(), found.info.fps, found.lasts)
    # What a header promises beyond the packets that are there, it promises of the frames after the window's start.
    announced = max(found.info.frames_announced - span.first, len(span))
    expected = _Expected(path, found, span, announced, min_decoded, window)
    return _by_seeking(expected, rule) or _by_reading_on(expected, rule)


@dataclass(frozen=True)
class _Expected:
    """What the packets of a file promise of a window."""

    path: Path
    found: Survey
    span: Span
    announced: int
    min_decoded: float
    window: Window

    def check(self, decoded: int, faults: Sequence[str] = ()) -> None:
        check_enough(self.path, decoded, self.announced, self.min_decoded, faults, self.window)


def _by_seeking(expected: _Expected, rule: FrameRule) -> DecodedVideo | None:
    """Decodes only from key frames to wanted frames, or returns None where that does not pay or is not exact."""
    path, found, span = expected.path, expected.found, expected.span
    wanted = span.sample(rule)
    plan = plan_sections(found, wanted)
    if plan is None:
        return None
    expected.check(len(span))
    try:
        pictures, frames_read = read_sections(path, found, plan)
    except NotExact:
        return None
    times = found.display_times()
    return DecodedVideo(
        frames=[pictures[index] for index in wanted],
        frame_index=np.asarray(wanted, dtype=np.int64),
        frame_time=frame_times(wanted, [times[index] for index in wanted], found.info.fps),
        frames_announced=expected.announced,
        frames_decoded=len(span),
        packets_skipped=0,
        frames_read=frames_read,
        reader="pyav",
    )


def _by_reading_on(expected: _Expected, rule: FrameRule) -> DecodedVideo:
    """Decodes everything, and once more if other frames came out than the packets made believe."""
    path, found = expected.path, expected.found
    wanted = expected.span.sample(rule)
    result = read_forward(path, found, wanted)
    decoded = frames_read = len(result.stamps)
    span = find_span(expected.window, result.stamps, found.info.fps, found.lasts)
    expected.check(len(span), result.faults)
    if (true := span.sample(rule)) != wanted:
        wanted, result = true, read_forward(path, found, true)
        frames_read += len(result.stamps)
    if len(result.stamps) != decoded:
        raise VideoError(f"'{path}' changed while it was read", stage="decode", reason="io-error", transient=True)
    return DecodedVideo(
        frames=[result.pictures[index] for index in wanted],
        frame_index=np.asarray(wanted, dtype=np.int64),
        frame_time=frame_times(wanted, [result.stamps[index] for index in wanted], found.info.fps),
        frames_announced=expected.announced,
        frames_decoded=len(span),
        packets_skipped=len(result.faults),
        frames_read=frames_read,
        reader="pyav",
    )
