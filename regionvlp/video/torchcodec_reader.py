"""torchcodec by choice: optional, and only for kinds of files on which its exact mode was found exact.

It reads by index only, and gives other frames on AVI, on MPEG streams and with edit lists; those it is not asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from regionvlp.errors import InputError, VideoError
from regionvlp.video.decoded import DecodedVideo, check_enough, frame_times
from regionvlp.video.forward import first_matrix
from regionvlp.video.sampling import FrameRule
from regionvlp.video.survey import MATROSKA, MP4, Survey, survey
from regionvlp.video.upright import is_mirrored
from regionvlp.video.window import Window, find_span

try:
    from torchcodec.decoders import VideoDecoder
except (ImportError, OSError, RuntimeError) as error:  # a wheel for another torch, or no FFmpeg libraries
    raise InputError(
        f"torchcodec is installed but cannot be loaded: {str(error).strip().splitlines()[0]}",
        "it needs FFmpeg's shared libraries and the torch it was built for; --decoder pyav needs neither",
    ) from error


def read(path: Path, rule: FrameRule, window: Window, min_decoded: float) -> DecodedVideo:
    """Reads a video with torchcodec; arguments and errors are those of :func:`~regionvlp.video.readers.read_frames`."""
    found = survey(path, max_seconds=window.end)
    times = found.shown_times()
    span = find_span(window, times, found.info.fps, found.lasts)
    announced = max(found.info.frames_announced - span.first, len(span))
    check_enough(path, len(span), announced, min_decoded, window=window)
    wanted = span.sample(rule)
    try:
        decoder = VideoDecoder(str(path.absolute()), dimension_order="NHWC", seek_mode="exact", num_ffmpeg_threads=1)
        exact = _is_exact(path, found, decoder)
        frames = list(decoder.get_frames_at(indices=wanted).data.numpy()) if exact else []
    except (RuntimeError, IndexError, ValueError) as error:
        words = str(error).strip().splitlines()[0]
        raise VideoError(
            f"torchcodec cannot decode '{path}': {words}",
            stage="decode",
            reason="unreadable",
            hint="--decoder pyav reads more kinds of files and passes over damage",
        ) from error
    if not exact:
        raise VideoError(
            f"torchcodec is not exact on '{path}' ({found.info.codec} in {found.info.container})",
            stage="open",
            reason="unreadable",
            hint="--decoder pyav reads it",
        )
    return DecodedVideo(
        frames=frames,
        frame_index=np.asarray(wanted, dtype=np.int64),
        frame_time=frame_times(wanted, [times[index] for index in wanted], found.info.fps),
        frames_announced=announced,
        frames_decoded=len(span),
        packets_skipped=0,
        frames_read=len(frames),
        reader="torchcodec",
    )


def _is_exact(path: Path, found: Survey, decoder: Any) -> bool:
    """Whether access by index gives the frames that reading forward gives."""
    whole = found if found.end is None else survey(path)
    stamps = [stamp for stamp in whole.pts if stamp is not None]
    return (
        whole.info.container in {MP4, MATROSKA, "gif"}
        and whole.discarded == 0
        and len(set(stamps)) == len(whole.pts) == len(decoder)
        and not is_mirrored(first_matrix(path))
    )
