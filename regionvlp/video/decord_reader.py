"""decord by choice: random access for H.264 in MP4 only, forward with its own ``next`` for some kinds, else refused.

Both ways were compared with PyAV reading forward, kind by kind. Random access is exact on H.264 in MP4 without an edit
list; on AVI, MPEG streams and HEVC it silently gives other frames, up to 20 and more away. ``next`` is exact on the
containers of :data:`_FORWARD`; on MPEG-TS it passes over the first group of pictures and repeats the last picture. A
kind that nobody compared is not read. Its count of frames is not trusted either: where the packets do not settle the
count, a pass with PyAV does.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import decord
import numpy as np
from numpy.typing import NDArray

from regionvlp.errors import VideoError
from regionvlp.video.decoded import DecodedVideo, check_enough, frame_times
from regionvlp.video.forward import first_matrix, read_forward
from regionvlp.video.sampling import FrameRule
from regionvlp.video.survey import MATROSKA, MP4, Survey, survey
from regionvlp.video.upright import is_mirrored
from regionvlp.video.window import Window, find_span

decord.logging.set_level(decord.logging.QUIET)

_FORWARD = {MP4, MATROSKA, "avi", "flv", "asf", "mpeg", "mxf"}
_HINT = "--decoder pyav reads more kinds of files and passes over damage"


def read(path: Path, rule: FrameRule, window: Window, min_decoded: float) -> DecodedVideo:
    """Reads a video with decord; arguments and errors are those of :func:`~regionvlp.video.readers.read_frames`."""
    found = survey(path, max_seconds=window.end)
    if found.info.container not in _FORWARD or is_mirrored(first_matrix(path)):
        kind = found.info.container if found.info.container not in _FORWARD else "mirrored pictures"
        raise VideoError(f"decord is not exact on '{path}' ({kind})", stage="open", reason="unreadable", hint=_HINT)
    video = _open(path)
    faults: list[str] = []
    if random_access := _is_exact(path, found, len(video)):
        stamps = found.shown_times()
    else:
        truth = read_forward(path, found, ())
        stamps, faults = truth.stamps, truth.faults
    span = find_span(window, stamps, found.info.fps, found.lasts)
    announced = max(found.info.frames_announced - span.first, len(span))
    check_enough(path, len(span), announced, min_decoded, faults, window)
    wanted = span.sample(rule)
    try:
        frames = list(video.get_batch(wanted).asnumpy()) if random_access else _read_on(video, wanted)
    except (decord.DECORDError, StopIteration) as error:
        raise _refusal(f"decord cannot decode '{path}'", error, stage="decode") from error
    return DecodedVideo(
        frames=frames,
        frame_index=np.asarray(wanted, dtype=np.int64),
        frame_time=frame_times(wanted, [stamps[index] for index in wanted], found.info.fps),
        frames_announced=announced,
        frames_decoded=len(span),
        packets_skipped=len(faults),
        frames_read=len(frames) if random_access else len(stamps) + wanted[-1] + 1,
        reader="decord",
    )


def _open(path: Path) -> Any:
    try:
        return decord.VideoReader(str(path.absolute()), ctx=decord.cpu(0), num_threads=1)
    except decord.DECORDError as error:
        raise _refusal(f"decord cannot open '{path}'", error, stage="open") from error


def _is_exact(path: Path, found: Survey, decord_count: int) -> bool:
    """Whether random access gives the frames that reading forward gives."""
    whole = found if found.end is None else survey(path)
    stamps = [stamp for stamp in whole.pts if stamp is not None]
    return (
        whole.info.container == MP4
        and whole.info.codec == "h264"
        and whole.discarded == 0
        and len(set(stamps)) == len(whole.pts) == decord_count
    )


def _read_on(video: Any, wanted: list[int]) -> list[NDArray[np.uint8]]:
    """Reads every frame up to the last wanted one; decord's ``skip_frames`` would seek where key frames stand."""
    frames: list[NDArray[np.uint8]] = []
    for index in range(max(wanted) + 1):
        picture = video.next()
        if index == wanted[len(frames)]:
            frames.append(picture.asnumpy())
    return frames


def _refusal(message: str, error: Exception, *, stage: str) -> VideoError:
    """The error for a file that decord gives up on, with what it said, without the places in its source."""
    lines = str(error).strip().splitlines()
    words = re.sub(r"\[[\d:]+\] \S+:\d+: ", "", lines[-1]) if lines else "the video ended early"
    return VideoError(f"{message}: {words}", stage=stage, reason="unreadable", hint=_HINT)
