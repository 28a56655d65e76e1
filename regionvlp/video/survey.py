"""What a video file holds, found by walking over its packets without decoding any.

In: a path. Out: a :class:`Survey`: the facts a person asks for (:class:`VideoInfo`) and the table of packets that the
readers plan with. Header frame counts lie (HMDB51: one too many; Matroska and fragmented MP4: none), so the packets
are counted.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from regionvlp.errors import VideoError
from regionvlp.video.decoded import MAX_PIXELS
from regionvlp.video.failures import disk_failure, ffmpeg_words, from_ffmpeg, out_of_memory, read_head

# Tags that are no UTF-8 must not keep a video from being read; PyAV 19 replaces what it cannot decode by itself.
_ODD_TAGS: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}

# FFmpeg's names of the two families of containers whose timestamps can be relied on.
MP4 = "mov,mp4,m4a,3gp,3g2,mj2"
MATROSKA = "matroska,webm"
# Formats that hold no pictures but name files that do. A video in a folder must not lead to others.
_LISTS = {"concat", "dash", "hls", "imf"}
_MKVMERGE = "_STATISTICS_WRITING_APP"
_SLACK = 0.2  # seconds by which what Matroska notes may miss the pictures: writers round, and count sound in
_CLOCK = re.compile(r"(\d+):(\d\d):(\d\d\.\d+)")
_TICK_EPSILON = 1e-6
# The frame that is shown first is among so many packets; a smaller stamp further on is a jump of the clock.
_REORDERED = 32
# Where nothing in the file tells its rate, this one turns indices into seconds.
_DEFAULT_FPS = 25.0


@dataclass(frozen=True)
class VideoInfo:
    """The facts about the best video stream of a file, as FFmpeg chooses it.

    Attributes:
        container: FFmpeg's name of the container, such as ``mov,mp4,m4a,3gp,3g2,mj2``.
        codec: FFmpeg's name of the codec, such as ``h264``.
        width, height: pixels as stored; a rotation tag may swap them in the decoded frames.
        fps: average frames per second.
        duration: seconds from the first packet to the end of the last one, None where packets have no times.
        packets: packets that show a picture: the best guess at the number of frames without decoding.
        frames_announced: the larger of ``packets`` and what the header promises; a cut file has fewer packets.
    """

    container: str
    codec: str
    width: int
    height: int
    fps: float
    duration: float | None
    packets: int
    frames_announced: int


@dataclass(frozen=True)
class Survey:
    """A :class:`VideoInfo` and the packets in the order of the file.

    Attributes:
        info: the facts.
        pts: time at which each packet's picture is shown, in units of ``time_base``.
        dts: time at which each packet is decoded, in units of ``time_base``.
        keys: positions in ``pts`` of the packets at which decoding can start.
        discarded: packets that are in the file and never shown (edit lists, hidden pictures of VP8).
        time_base: seconds per unit.
        end: pictures from this time on were not asked for; None: all were.
        stop: packets that are decoded from this time on are of no use for what was asked for.
        lasts: seconds for which the last picture that was asked for is shown; infinite where another follows it.
    """

    info: VideoInfo
    pts: list[int | None]
    dts: list[int | None]
    keys: list[int]
    discarded: int
    time_base: Fraction
    end: int | None
    stop: int | None
    lasts: float

    def display_times(self) -> list[float | None]:
        """Returns the seconds at which each packet's picture is shown, rising; all None where one has no time."""
        stamps = [stamp for stamp in self.pts if stamp is not None]
        if len(stamps) < len(self.pts):
            return [None] * len(self.pts)
        return [float(stamp * self.time_base) for stamp in sorted(stamps)]

    def shown_times(self) -> list[float | None]:
        """Returns the seconds of the frames that were asked for, in display order; all None where one has no time."""
        return self.display_times()[: self.info.packets]


def probe(path: Path, *, max_seconds: float | None = None) -> VideoInfo:
    """Reads the facts about a video without decoding it: milliseconds for a clip.

    Args:
        path: the file.
        max_seconds: look at the first so many seconds only.

    Raises:
        VideoError: stage ``open``: it cannot be opened, or has no video stream.
    """
    return survey(path, max_seconds=max_seconds).info


@contextmanager
def open_video(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Opens a file and gives its best video stream, to be decoded with one thread.

    Neither the stream nor a packet of it may be used after the block: they would read freed memory.
    """
    head = read_head(path)
    # A name such as 'a%03d.gif' means a numbered series of files to FFmpeg unless it is told the format.
    known_format = "gif" if head.startswith(b"GIF8") else None
    try:
        # The absolute path cannot be taken for a URL or an option, and nothing that a file refers to is fetched.
        container = av.open(
            os.path.abspath(path),
            format=known_format,
            options={"protocol_whitelist": "file"},
            **_ODD_TAGS,
        )
    except MemoryError as error:
        raise out_of_memory(path, stage="open") from error
    except av.FFmpegError as error:
        raise from_ffmpeg(error, path, head=head) from error
    with container:
        if container.format.name in _LISTS:
            raise VideoError(f"'{path}' is a list of other files, not a video", stage="open", reason="not-a-video")
        stream = container.streams.best("video")
        if not isinstance(stream, VideoStream):
            raise VideoError(f"'{path}' holds no pictures, only sound or text", stage="open", reason="no-video-stream")
        _refuse_unknown(container, stream, path)
        # One process per core decodes more clips than many threads in one decoder.
        stream.codec_context.thread_count = 1
        yield container, stream


def _refuse_unknown(container: InputContainer, stream: VideoStream, path: Path) -> None:
    """Refuses a stream that cannot be decoded because of what it is, not because of damage."""
    if "enc_key_id" in stream.metadata:  # Matroska and WebM; MP4 marks its packets instead
        raise VideoError(f"the pictures of '{path}' are encrypted", stage="open", reason="encrypted")
    # PyAV's types promise a codec context; there is none where FFmpeg has no decoder.
    if getattr(stream, "codec_context", None) is None:
        if not _has_packets(container, stream):
            raise VideoError(f"the header of '{path}' is cut off", stage="open", reason="damaged")
        raise VideoError(
            f"the pictures of '{path}' are of a codec that this FFmpeg cannot decode, or encrypted",
            stage="open",
            reason="no-decoder",
            hint="convert it to H.264, where you may",
        )


def _has_packets(container: InputContainer, stream: VideoStream) -> bool:
    try:
        return any(packet.size for packet in container.demux(stream))
    except av.FFmpegError:
        return False


def shown_packets(
    container: InputContainer, stream: VideoStream, path: Path, faults: list[str]
) -> Iterator[av.Packet[VideoStream]]:
    """Yields the packets of a stream from where the container stands; a damaged rest ends it and joins ``faults``."""
    try:
        for packet in container.demux(stream):
            # Size 0 is PyAV's mark of the end, or AVI's "show the last picture again"; to a decoder it means flush.
            if packet.size:
                if packet.has_sidedata("encryption_info"):
                    raise VideoError(f"the pictures of '{path}' are encrypted", stage="decode", reason="encrypted")
                yield packet
    except MemoryError as error:
        raise out_of_memory(path, stage="decode") from error
    except av.FFmpegError as error:
        if failed := disk_failure(error, path, stage="decode"):
            raise failed from error
        faults.append(ffmpeg_words(error))


def survey(path: Path, *, max_seconds: float | None = None) -> Survey:
    """Walks over the packets of a video, or of its first ``max_seconds``, without decoding them.

    Raises:
        VideoError: it cannot be opened, has no video stream, or its pictures are too large.
    """
    with open_video(path) as (container, stream):
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > MAX_PIXELS:
            raise VideoError(f"'{path}' has pictures of {width}x{height}", stage="open", reason="too-large")
        codec = stream.codec_context.codec.canonical_name
        time_base = Fraction(stream.time_base or Fraction(1, 1000))
        pts: list[int | None] = []
        dts: list[int | None] = []
        keys: list[int] = []
        discarded, last_duration, goes_on = 0, 0, False
        begin: int | None = None
        end: int | None = None
        stop: int | None = None
        limit = math.inf if max_seconds is None else max_seconds
        for packet in shown_packets(container, stream, path, faults=[]):
            if is_past(packet, stop):
                goes_on = True
                break
            if packet.is_discard or (codec == "vp8" and _is_hidden_vp8(packet)):
                discarded += 1
                continue
            shown = packet.dts if packet.pts is None else packet.pts
            if limit < math.inf and shown is not None and (begin is None or (shown < begin and len(pts) < _REORDERED)):
                # The first tick that is not asked for; a sum of binary fractions may miss it by a little.
                begin, end = shown, shown + math.ceil(limit / time_base - _TICK_EPSILON)
                # AVI stamps packets in the order of the file: one that is decoded later may be shown before.
                stop = end + (_REORDERED if container.format.name == "avi" else 0)
            if packet.is_keyframe:
                keys.append(len(pts))
            pts.append(packet.pts)
            dts.append(packet.dts)
            last_duration = packet.duration or last_duration
        packets = sum(1 for stamp in pts if end is None or stamp is None or stamp < end)
        clock = _Clock.of(pts, dts, last_duration, time_base)
        duration = clock.duration
        # A header speaks of the whole video, not of its first seconds.
        promised = _promised(container, stream, clock) if end is None else 0
        info = VideoInfo(
            container=container.format.name,
            codec=codec,
            width=width,
            height=height,
            fps=_fps(stream, packets, duration),
            duration=None if duration is None else min(duration, limit),
            packets=packets,
            frames_announced=max(packets, promised),
        )
    lasts = math.inf if goes_on or packets < len(pts) else float(last_duration * time_base)
    return Survey(info, pts, dts, keys, discarded, time_base, end, stop, lasts)


def is_past(packet: av.Packet[VideoStream], stop: int | None) -> bool:
    """Whether this packet and all that follow are decoded at ``stop`` or later, and so shown later still."""
    return stop is not None and packet.dts is not None and packet.dts >= stop


def _is_hidden_vp8(packet: av.Packet[VideoStream]) -> bool:
    """Whether a VP8 packet is a picture that others refer to and nobody sees (RFC 6386, section 9.1)."""
    return not memoryview(packet)[0] & 0x10


def _promised(container: InputContainer, stream: VideoStream, clock: _Clock) -> int:
    """Returns how many frames the header promises, 0 if it promises none or something absurd."""
    packets = len(clock)
    if container.format.name == MP4:
        # An MP4 header counts frames that its edit list hides; FFmpeg's index of the file does not.
        return sum(not entry.is_discard for entry in stream.index_entries)
    if container.format.name == MATROSKA:
        # Matroska counts no frames, but most writers note how long the pictures last.
        noted = _CLOCK.fullmatch(stream.metadata.get("DURATION", ""))
        if noted is None or not clock.duration:
            return 0
        seconds = int(noted[1]) * 3600 + int(noted[2]) * 60 + float(noted[3])
        # FFmpeg notes where the clock stands at the end, which begins where the recorder's began; mkvmerge, whose mark
        # stands beside it, how long it ran.
        missing = seconds - (clock.duration if _MKVMERGE in stream.metadata else clock.end)
        return packets + round(missing * packets / clock.duration) if missing > _SLACK else packets
    if container.format.name == "avi" and clock.step > 1.5:
        # An AVI header counts ticks of the clock, also those that bring no new picture: recordings that lost some.
        return packets + max(0, int((stream.frames - max(clock.stamps)) / clock.step) - 1)
    # Each frame takes a byte or more.
    return stream.frames if stream.frames <= container.size else 0


@dataclass(frozen=True)
class _Clock:
    """What the stamps of the packets say of time."""

    stamps: list[int]
    last_duration: int
    time_base: Fraction
    packets: int

    @classmethod
    def of(cls, pts: list[int | None], dts: list[int | None], last_duration: int, time_base: Fraction) -> _Clock:
        shown = [decoded if stamp is None else stamp for stamp, decoded in zip(pts, dts, strict=True)]
        return cls([stamp for stamp in shown if stamp is not None], last_duration, time_base, len(pts))

    def __len__(self) -> int:
        return self.packets

    @property
    def step(self) -> float:
        """Units of the time base from one picture to the next, on average; 0 where that is not known."""
        return (max(self.stamps) - min(self.stamps)) / (len(self.stamps) - 1) if len(self.stamps) > 1 else 0.0

    @property
    def ticks(self) -> int:
        """Units of the time base from zero to the end of the last picture."""
        return max(self.stamps) + self.last_duration if self.stamps else 0

    @property
    def end(self) -> float:
        """Seconds at which the last picture ends."""
        return float(self.ticks * self.time_base)

    @property
    def duration(self) -> float | None:
        """Seconds from the first picture to the end of the last one; None where packets have no times."""
        return float((self.ticks - min(self.stamps)) * self.time_base) if self.stamps else None


def _fps(stream: VideoStream, packets: int, duration: float | None) -> float:
    rate = stream.average_rate or stream.guessed_rate
    if rate:
        return float(rate)
    return packets / duration if duration else _DEFAULT_FPS
