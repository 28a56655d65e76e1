"""PyAV seeking to key frames: for long files, only the packets before each wanted frame are decoded.

Exact by construction or not used: a frame is named by the rank of its timestamp among all packets, every frame that
comes out on the way must be the next one in that ranking, and any surprise raises :class:`NotExact`, upon which the
caller reads forward.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from regionvlp.video.failures import out_of_memory
from regionvlp.video.forward import upright_rgb
from regionvlp.video.survey import MATROSKA, MP4, Survey, open_video

# Below so many packets, reading forward costs a second or two and seeking saves little.
_LONG = 1500
_CODECS = {MP4: {"h264", "hevc", "vp9", "av1", "mpeg4"}, MATROSKA: {"h264", "hevc", "vp8", "vp9", "av1"}}


class NotExact(Exception):
    """Seeking did not lead where the packets said it would."""


@dataclass(frozen=True)
class Plan:
    """What to decode.

    Attributes:
        stamps: timestamps of all packets in the order of the file.
        shown: the same in display order: the frame of index ``i`` carries ``shown[i]``.
        sections: by position of the key frame in ``stamps``, the indices of the frames to decode from there.
    """

    stamps: list[int]
    shown: list[int]
    sections: dict[int, list[int]]


def plan_sections(survey: Survey, wanted: list[int]) -> Plan | None:
    """Plans which stretches of a file to decode, or returns None where reading forward is the way.

    Seeking is planned if the file is long, of a kind whose timestamps can be trusted, and at most half of it has to
    be decoded.

    Args:
        survey: the packets of the file.
        wanted: rising positions in display order.
    """
    stamps = [stamp for stamp in survey.pts if stamp is not None]
    key_stamps = [stamps[key] for key in survey.keys] if len(stamps) == len(survey.pts) else []
    trusted = (
        len(stamps) > _LONG
        and survey.info.codec in _CODECS.get(survey.info.container, set())
        and survey.discarded == 0
        and len(set(stamps)) == len(survey.pts)
        and survey.keys[:1] == [0]
        and key_stamps == sorted(key_stamps)
        and stamps[0] == min(stamps)
    )
    if not trusted:
        return None
    shown = sorted(stamps)
    sections: dict[int, list[int]] = {}
    for index in wanted:
        # The last key frame shown at or before the wanted one. In an open group of pictures, frames decoded after a
        # key frame but shown before it need the group before, and are found there by this rule.
        key = survey.keys[bisect_right(key_stamps, shown[index]) - 1]
        sections.setdefault(key, []).append(index)
    place = {stamp: position for position, stamp in enumerate(stamps)}
    cost = sum(max(place[shown[index]] for index in indices) - key + 1 for key, indices in sections.items())
    return Plan(stamps, shown, sections) if 2 * cost <= len(stamps) else None


def read_sections(path: Path, survey: Survey, plan: Plan) -> tuple[dict[int, NDArray[np.uint8]], int]:
    """Decodes the planned stretches.

    Returns:
        Upright RGB uint8 ``[height, width, 3]`` by position in display order, and the number of frames decoded.

    Raises:
        NotExact: a seek, a packet or a frame was not the expected one; nothing that was read can be trusted.
        VideoError: the file cannot be opened, or a picture is too large for memory.
    """
    pictures: dict[int, NDArray[np.uint8]] = {}
    frames_read = 0
    with open_video(path) as (container, stream):
        try:
            for key, indices in plan.sections.items():
                found, decoded = _read_section(container, stream, path, survey, plan, key, indices)
                pictures.update(found)
                frames_read += decoded
        except MemoryError as error:
            raise out_of_memory(path, stage="decode") from error
        except av.FFmpegError as error:
            raise NotExact(str(error)) from error
    return pictures, frames_read


def _read_section(
    container: InputContainer,
    stream: VideoStream,
    path: Path,
    survey: Survey,
    plan: Plan,
    key: int,
    indices: list[int],
) -> tuple[dict[int, NDArray[np.uint8]], int]:
    """Decodes from the key packet at position ``key`` until the last of ``indices`` has come out."""
    key_stamp = plan.stamps[key]
    # MP4 is indexed by decoding times, Matroska by display times.
    target = survey.dts[key] if survey.info.container == MP4 else None
    container.seek(key_stamp if target is None else target, stream=stream, backward=True)
    pictures: dict[int, NDArray[np.uint8]] = {}
    expected = bisect_right(plan.shown, key_stamp) - 1
    decoded, started = 0, False
    for packet in container.demux(stream):
        if not started and packet.pts != key_stamp:
            if packet.pts is None or packet.pts > key_stamp:
                raise NotExact("the seek went past the key frame")
            continue
        started = True
        for frame in stream.codec_context.decode(packet if packet.size else None):
            decoded += 1
            if frame.pts is not None and frame.pts < key_stamp:
                continue  # the leading pictures of an open group, incomplete without the group before
            if expected == len(plan.shown) or frame.pts != plan.shown[expected]:
                raise NotExact("a frame came out that was not the next one")
            if expected in indices:
                pictures[expected] = upright_rgb(frame, path)
            expected += 1
            if len(pictures) == len(indices):
                return pictures, decoded
    raise NotExact("the file ended before the wanted frame")
