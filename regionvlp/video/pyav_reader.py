"""The default reader: PyAV, forward through the whole file, or from key frame to key frame where that is exact."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from regionvlp.errors import VideoError
from regionvlp.video.decoded import DecodedVideo, check_enough, frame_times
from regionvlp.video.forward import read_forward
from regionvlp.video.sampling import uniform_indices
from regionvlp.video.seeking import NotExact, plan_sections, read_sections
from regionvlp.video.survey import Survey, survey


def read(path: Path, count: int, max_seconds: float | None, min_decoded: float) -> DecodedVideo:
    """Reads a video with PyAV; arguments and errors are those of :func:`~regionvlp.video.readers.read_frames`."""
    found = survey(path, max_seconds=max_seconds)
    return _by_seeking(path, found, count, min_decoded) or _by_reading_on(path, found, count, min_decoded)


def _by_seeking(path: Path, found: Survey, count: int, min_decoded: float) -> DecodedVideo | None:
    """Decodes only from key frames to wanted frames, or returns None where that does not pay or is not exact."""
    packets, announced = found.info.packets, found.info.frames_announced
    wanted = uniform_indices(packets, count)
    plan = plan_sections(found, wanted)
    if plan is None:
        return None
    check_enough(path, packets, announced, min_decoded)
    try:
        pictures, frames_read = read_sections(path, found, plan)
    except NotExact:
        return None
    times = found.display_times()
    return DecodedVideo(
        frames=[pictures[index] for index in wanted],
        frame_index=np.asarray(wanted, dtype=np.int64),
        frame_time=frame_times(wanted, [times[index] for index in wanted], found.info.fps),
        frames_announced=announced,
        frames_decoded=packets,
        packets_skipped=0,
        frames_read=frames_read,
        reader="pyav",
    )


def _by_reading_on(path: Path, found: Survey, count: int, min_decoded: float) -> DecodedVideo:
    """Decodes everything, and once more if other frames came out than the packets made believe."""
    announced = found.info.frames_announced
    wanted = uniform_indices(found.info.packets, count)
    result = read_forward(path, found, wanted)
    decoded = frames_read = len(result.stamps)
    check_enough(path, decoded, announced, min_decoded, result.faults)
    if decoded != found.info.packets and (true := uniform_indices(decoded, count)) != wanted:
        wanted, result = true, read_forward(path, found, true)
        frames_read += len(result.stamps)
    if len(result.stamps) != decoded:
        raise VideoError(f"'{path}' changed while it was read", stage="decode", reason="io-error", transient=True)
    return DecodedVideo(
        frames=[result.pictures[index] for index in wanted],
        frame_index=np.asarray(wanted, dtype=np.int64),
        frame_time=frame_times(wanted, [result.stamps[index] for index in wanted], found.info.fps),
        frames_announced=announced,
        frames_decoded=decoded,
        packets_skipped=len(result.faults),
        frames_read=frames_read,
        reader="pyav",
    )
