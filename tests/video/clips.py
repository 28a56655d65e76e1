"""Clips made on the spot: each picture shows its own number in black and white cells, which survive any codec."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

SIDE = 64
_BITS = 16
_CELL = SIDE // 4


def numbered(number: int, side: int = SIDE) -> NDArray[np.uint8]:
    """A picture [side, side, 3] whose 16 cells are the bits of a number, white for one."""
    bits = np.array([number >> bit & 1 for bit in range(_BITS)], dtype=np.uint8).reshape(4, 4)
    grey = np.kron(bits, np.ones((side // 4, side // 4), dtype=np.uint8)) * 255
    return np.repeat(grey[:, :, None], 3, axis=2)


def number_of(picture: NDArray[np.uint8]) -> int:
    """The number that a picture of :func:`numbered` shows."""
    cell = picture.shape[0] // 4
    inner = picture.reshape(4, cell, 4, cell, 3)[:, cell // 4 : -cell // 4, :, cell // 4 : -cell // 4]
    means = inner.mean(axis=(1, 3, 4)).reshape(-1)
    assert ((means < 80) | (means > 175)).all(), "a blurred picture: two frames in one, or damage"
    return sum(int(mean > 127) << bit for bit, mean in enumerate(means))


def make_clip(
    path: Path,
    frames: int = 30,
    *,
    codec: str = "libx264",
    fps: int = 25,
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    shift: int = 0,
    side: int = SIDE,
) -> Path:
    """Writes a clip of numbered pictures; ``shift`` moves all timestamps by so many frames."""
    with av.open(path, "w", options=muxer or {}) as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.width = stream.height = side
        stream.pix_fmt = {"gif": "rgb8", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
        stream.codec_context.thread_count = 1
        step = Fraction(1, fps)
        for number in [*range(frames), None]:
            frame = None if number is None else av.VideoFrame.from_ndarray(numbered(number, side), format="rgb24")
            if frame is not None:
                frame.pts, frame.time_base = number, step
            for packet in stream.encode(frame):
                if shift:
                    ticks = int(shift * step / packet.time_base)
                    packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
                container.mux(packet)
    return path


def make_sound(path: Path) -> Path:
    """Writes a file with a sound track and no pictures."""
    with av.open(path, "w") as container:
        stream = container.add_stream("aac", rate=16000)
        for start in range(0, 16000, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def numbers(pictures: Sequence[NDArray[np.uint8]]) -> list[int]:
    return [number_of(picture) for picture in pictures]
