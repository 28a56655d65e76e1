"""PyAV from key frame to key frame: of long files, only the packets before each wanted frame are decoded.

A file with an index is sought in. One without (MPEG streams, FLV, AVI) is walked over, most packets undecoded.

Exact by construction or not used: a frame is named by the rank of its timestamp among all packets, every frame that
comes out on the way must be the next one in that ranking, and any surprise raises :class:`NotExact`, upon which the
caller reads forward.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from regionvlp.video.failures import out_of_memory
from regionvlp.video.survey import MATROSKA, MP4, Survey, open_video, shown_packets
from regionvlp.video.upright import upright_rgb

# Below so many packets, reading forward costs a second or two and seeking saves little.
_LONG = 1500
# What is read from an index, and what is walked over packet by packet, for it has none or one that cannot be relied on.
_CODECS = {MP4: {"h264", "hevc", "vp9", "av1", "mpeg4"}, MATROSKA: {"h264", "hevc", "vp8", "vp9", "av1"}}
_WALKED = {
    "mpegts": {"h264", "hevc", "mpeg2video"},
    "flv": {"h264", "flv1"},
    "avi": {"h264", "mpeg4", "mjpeg", "msmpeg4v3"},
    "mpeg": {"mpeg1video", "mpeg2video"},
    "asf": {"wmv1", "wmv2", "msmpeg4v3"},
}


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

    It is planned if the file is long, of a kind whose timestamps can be trusted, and at most half of it has to be
    decoded.

    Args:
        survey: the packets of the file.
        wanted: rising positions in display order.
    """
    stamps = [stamp for stamp in survey.pts if stamp is not None]
    key_stamps = [stamps[key] for key in survey.keys] if len(stamps) == len(survey.pts) else []
    trusted = (
        len(stamps) > _LONG
        and survey.info.codec in _CODECS.get(survey.info.container, _WALKED.get(survey.info.container, set()))
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
    with open_video(path) as (container, stream):
        try:
            if survey.info.container in _CODECS:
                return pictures, sum(
                    _seek_to(container, stream, survey, _Section(path, plan, key, set(indices), pictures))
                    for key, indices in plan.sections.items()
                )
            return pictures, _walk(container, stream, path, plan, pictures)
        except MemoryError as error:
            raise out_of_memory(path, stage="decode") from error
        except av.FFmpegError as error:
            raise NotExact(str(error)) from error


class _Section:
    """Frames that come out from a key frame on, each held against the one that has to come next."""

    def __init__(
        self, path: Path, plan: Plan, key: int, wanted: set[int], pictures: dict[int, NDArray[np.uint8]]
    ) -> None:
        self.key, self.key_stamp, self.wanted = key, plan.stamps[key], wanted
        self._path, self._plan, self._pictures = path, plan, pictures
        self._next = bisect_right(plan.shown, self.key_stamp) - 1
        self.decoded = 0

    def decode(self, stream: VideoStream, packet: av.Packet[VideoStream] | None) -> bool:
        """Decodes a packet, or for None all that the decoder still holds; whether all wanted frames are there now."""
        for frame in stream.codec_context.decode(packet):
            self.decoded += 1
            if frame.pts is not None and frame.pts < self.key_stamp:
                continue  # the leading pictures of an open group, incomplete without the group before
            if self._next == len(self._plan.shown) or frame.pts != self._plan.shown[self._next]:
                raise NotExact("a frame came out that was not the next one")
            if self._next in self.wanted:
                self._pictures[self._next] = upright_rgb(frame, self._path)
                self.wanted.discard(self._next)
            self._next += 1
            if not self.wanted:
                return True
        return False


def _seek_to(container: InputContainer, stream: VideoStream, survey: Survey, section: _Section) -> int:
    """Decodes a section of a file with an index; returns the number of frames decoded."""
    # MP4 is indexed by decoding times, Matroska by display times.
    target = survey.dts[section.key] if survey.info.container == MP4 else None
    container.seek(section.key_stamp if target is None else target, stream=stream, backward=True)
    started = False
    for packet in container.demux(stream):
        if not started and packet.pts != section.key_stamp:
            if packet.pts is None or packet.pts > section.key_stamp:
                raise NotExact("the seek went past the key frame")
            continue
        started = True
        if section.decode(stream, packet if packet.size else None):
            return section.decoded
    raise NotExact("the file ended before the wanted frame")


def _walk(
    container: InputContainer, stream: VideoStream, path: Path, plan: Plan, pictures: dict[int, NDArray[np.uint8]]
) -> int:
    """Goes over the packets of a file without an index and decodes those of the sections; returns how many frames."""
    left = deque(sorted(plan.sections.items()))
    section: _Section | None = None
    decoded, faults = 0, list[str]()
    for position, packet in enumerate(shown_packets(container, stream, path, faults)):
        if packet.pts != plan.stamps[position]:
            raise NotExact("a packet came that was not the next one")
        if left and position == left[0][0]:
            key, indices = left.popleft()
            if section is None:
                stream.codec_context.flush_buffers()
                section = _Section(path, plan, key, set(indices), pictures)
            else:  # the frames of the section before are still on their way out
                section.wanted.update(indices)
        if section and section.decode(stream, packet):
            decoded, section = decoded + section.decoded, None
            if not left:
                return decoded
    if section is None or faults or not section.decode(stream, None):
        raise NotExact("the file ended before the wanted frame")
    return decoded + section.decoded
