"""PyAV reading forward: every packet is decoded once, bad ones are counted and skipped, wanted pictures are kept.

This is the way that was exact on every file tried, and the truth that other ways are held against.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from regionvlp.errors import VideoError
from regionvlp.video.decoded import MAX_PIXELS
from regionvlp.video.failures import ffmpeg_words, out_of_memory
from regionvlp.video.survey import Survey, is_past, open_video, shown_packets


@dataclass
class Pass:
    """What one pass over a file gave.

    Attributes:
        pictures: upright RGB uint8 ``[height, width, 3]`` by position in display order.
        stamps: seconds of every frame that came out, None where the container gives none.
        faults: FFmpeg's words for each packet that was skipped.
    """

    pictures: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    stamps: list[float | None] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def read_forward(path: Path, survey: Survey, wanted: Collection[int]) -> Pass:
    """Decodes a video from its start to its end and converts the wanted frames to RGB.

    Args:
        path: the file.
        survey: what :func:`~regionvlp.video.survey.survey` found in it.
        wanted: positions in display order; those past the last frame are missing from the result.

    Raises:
        VideoError: the file cannot be opened or read, or a wanted picture is too large for memory.
    """
    result, chosen = Pass(), frozenset(wanted)
    with open_video(path) as (container, stream):
        for frame in _frames(container, stream, path, survey.end, result.faults):
            if survey.end is not None and frame.pts is not None and frame.pts >= survey.end:
                continue
            if len(result.stamps) in chosen:
                result.pictures[len(result.stamps)] = upright_rgb(frame, path)
            # Not frame.time: frames that come out when the decoder is emptied do not know their time base.
            result.stamps.append(None if frame.pts is None else float(frame.pts * survey.time_base))
    return result


def _frames(
    container: InputContainer, stream: VideoStream, path: Path, end: int | None, faults: list[str]
) -> Iterator[VideoFrame]:
    """Yields the frames in display order, skipping what cannot be decoded."""
    for packet in shown_packets(container, stream, path, faults):
        if is_past(packet, end):
            break
        yield from _decode(stream, packet, path, faults)
    yield from _decode(stream, None, path, faults)


def _decode(
    stream: VideoStream, packet: av.Packet[VideoStream] | None, path: Path, faults: list[str]
) -> list[VideoFrame]:
    """Returns the frames that come out for a packet, or for None all that the decoder still holds."""
    try:
        return stream.codec_context.decode(packet)
    except MemoryError as error:
        raise out_of_memory(path, stage="decode") from error
    except av.FFmpegError as error:
        faults.append(ffmpeg_words(error))
        return []


def upright_rgb(frame: VideoFrame, path: Path) -> NDArray[np.uint8]:
    """Converts a frame to RGB uint8 ``[height, width, 3]`` and turns it the way a player shows it."""
    if frame.width * frame.height > MAX_PIXELS:
        raise VideoError(f"'{path}' has a picture of {frame.width}x{frame.height}", stage="decode", reason="too-large")
    try:
        # One thread: the default starts one per core for every picture.
        picture = np.asarray(frame.to_ndarray(format="rgb24", threads=1), dtype=np.uint8)
        return np.ascontiguousarray(np.rot90(picture, round(frame.rotation / 90)))
    except MemoryError as error:
        raise out_of_memory(path, stage="decode") from error
    except av.FFmpegError as error:
        words = f"'{path}' has a picture that cannot be turned into RGB: {ffmpeg_words(error)}"
        raise VideoError(words, stage="decode", reason="damaged") from error
