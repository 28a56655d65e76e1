"""Why a video cannot be used: the short words that failure rows are counted by, and how FFmpeg's errors map to them.

Every failure of this package is a :class:`~regionvlp.errors.VideoError` whose ``reason`` is a key of
:data:`REASONS` and whose ``stage`` is ``open`` or ``decode``.
"""

from __future__ import annotations

import os
import stat
from functools import partial
from pathlib import Path

import av

from regionvlp.errors import VideoError

REASONS = {
    "missing-file": "nothing lies at the path, or it is a broken link",
    "ambiguous-file": "a list names a file without its extension, and there are several",
    "empty-file": "the file has no bytes",
    "not-a-video": "the content is no video that FFmpeg knows (a text or web page under a video's name)",
    "not-an-image": "the content is no picture that Pillow knows",
    "no-video-stream": "the file holds sound or subtitles only",
    "no-frames": "the file is sound but holds no picture (within the time asked for)",
    "no-decoder": "the pictures are of a codec that this FFmpeg has no decoder for",
    "encrypted": "the pictures are encrypted, and no key is known",
    "damaged": "it begins like a video or picture, but too little of it can be decoded",
    "unreadable": "decord or torchcodec gives up on this file or is not exact on its kind; PyAV may read it",
    "too-large": "a picture has more than 2**27 pixels",
    "io-error": "the disk or network failed while reading, or permission is missing",
    "out-of-memory": "decoding needs more memory than one decoder may take",
    "timeout": "decoding took longer than video.time_limit",
    "decoder-crashed": "the decoding process died",
    "internal": "a bug in a reader; the message holds its last line",
}

_PIECE = 1 << 20

# How the files of the usual containers begin: (offset, bytes).
_VIDEO_MARKS = (
    (4, b"ftyp"),
    (4, b"moov"),
    (4, b"mdat"),
    (0, b"\x1aE\xdf\xa3"),  # Matroska, WebM
    (0, b"RIFF"),
    (0, b"GIF8"),
    (0, b"\x00\x00\x01\xba"),  # MPEG program stream
    (0, b"\x00\x00\x01\xb3"),  # MPEG pictures alone
    (0, b"\x06\x0e\x2b\x34"),  # MXF
    (0, b"FLV"),
    (0, b"OggS"),
    (0, b"\x30\x26\xb2\x75"),  # ASF: wmv
)


def read_head(path: Path) -> bytes:
    """Returns the first 16 bytes of a file that may be a video.

    Raises:
        VideoError: the file is missing, empty, a folder, or cannot be read.
    """
    try:
        if stat.S_ISREG(path.stat().st_mode) and path.stat().st_size == 0:
            raise VideoError(f"'{path}' is empty", stage="open", reason="empty-file")
        with path.open("rb") as file:
            return file.read(16)
    except OSError as error:
        raise from_os(error, path, stage="open") from error


def from_os(error: OSError, path: Path, *, stage: str) -> VideoError:
    """Turns an operating-system error on ``path`` into a :class:`VideoError`."""
    words = error.strerror or str(error)
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return VideoError(f"'{path}' does not exist or is a broken link", stage=stage, reason="missing-file")
    if isinstance(error, IsADirectoryError):
        return VideoError(f"'{path}' is a folder", stage=stage, reason="not-a-video")
    transient = not isinstance(error, PermissionError)
    return VideoError(f"'{path}' cannot be read: {words}", stage=stage, reason="io-error", transient=transient)


def from_ffmpeg(error: av.FFmpegError, path: Path, *, head: bytes) -> VideoError:
    """Turns FFmpeg's refusal to open ``path``, whose first bytes are ``head``, into a :class:`VideoError`."""
    if failed := disk_failure(error, path, stage="open"):
        return failed
    words = ffmpeg_words(error)
    if any(head[offset : offset + len(mark)] == mark for offset, mark in _VIDEO_MARKS):
        return VideoError(f"'{path}' begins like a video but is damaged: {words}", stage="open", reason="damaged")
    return VideoError(f"'{path}' is not a video: {words}", stage="open", reason="not-a-video")


def disk_failure(error: av.FFmpegError, path: Path, *, stage: str) -> VideoError | None:
    """The disk's or network's part in an error of FFmpeg; None where the file can be read, so that it is damaged.

    FFmpeg's demuxers give the codes of the operating system (EIO, EACCES, ...) for a header that is cut off too. Only
    reading the bytes tells the two apart.
    """
    if not isinstance(error, OSError):
        return None
    try:
        with path.open("rb") as file:
            announced = os.fstat(file.fileno()).st_size
            if sum(map(len, iter(partial(file.read, _PIECE), b""))) >= announced:
                return None
    except OSError as failed:
        return from_os(failed, path, stage=stage)
    return VideoError(f"'{path}' ends before its size", stage=stage, reason="io-error", transient=True)


def ffmpeg_words(error: av.FFmpegError) -> str:
    """Returns what FFmpeg said, in one line without the path: the code's meaning and the last line of its log."""
    words = " ".join((error.strerror or str(error)).split())
    text = " ".join(str(error.log[-1]).split()) if error.log else ""
    return f"{words}; {text}" if text else words


def out_of_memory(path: Path, *, stage: str) -> VideoError:
    """The error for a file whose decoding ran into the memory limit."""
    return VideoError(f"'{path}' needs more memory than a decoder may take", stage=stage, reason="out-of-memory")
