"""PyAV reading forward: every packet is decoded once, bad ones are counted and skipped, wanted pictures are kept.

This is the way that was exact on every file tried, and the truth that other ways are held against.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from regionvlp.video.failures import ffmpeg_words, out_of_memory
from regionvlp.video.survey import Survey, is_past, open_video, shown_packets
from regionvlp.video.upright import matrix_of, upright_rgb

# AVI stamps packets in the order of the file. With pictures that are shown in another, the stamps that come out go back
# and forth, and a few of them may rise by chance.
_ODD_IN_AVI = {"h264", "hevc"}


@dataclass
class Pass:
    """What one pass over a file gave.

    Attributes:
        pictures: upright RGB uint8 ``[height, width, 3]`` by position in display order.
        stamps: seconds of every frame that came out, None where the container gives none. Of a survey that ends early,
            the last few may stand behind that end, for only the whole row of stamps tells whether they can be trusted.
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
        for frame in _frames(container, stream, path, survey.stop, result.faults):
            if len(result.stamps) in chosen:
                result.pictures[len(result.stamps)] = upright_rgb(frame, path)
            # Not frame.time: frames that come out when the decoder is emptied do not know their time base.
            result.stamps.append(None if frame.pts is None else float(frame.pts * survey.time_base))
    if survey.info.container == "avi" and survey.info.codec in _ODD_IN_AVI and not _rise(result.stamps):
        result.stamps = [None] * len(result.stamps)
    return result


def _rise(stamps: Sequence[float | None]) -> bool:
    return all(a is None or b is None or a < b for a, b in pairwise(stamps))


def first_matrix(path: Path) -> tuple[int, int, int, int] | None:
    """The display matrix of the first picture that can be decoded, see :func:`~regionvlp.video.upright.matrix_of`."""
    with open_video(path) as (container, stream):
        frame = next(_frames(container, stream, path, None, []), None)
        return None if frame is None else matrix_of(frame)


def _frames(
    container: InputContainer, stream: VideoStream, path: Path, stop: int | None, faults: list[str]
) -> Iterator[VideoFrame]:
    """Yields the frames in display order, skipping what cannot be decoded."""
    for packet in shown_packets(container, stream, path, faults):
        if is_past(packet, stop):
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
