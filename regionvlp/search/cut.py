"""Answers as files: clips cut out without encoding anew, and an edit list for video editors.

A cut without encoding begins at a key frame: the last one at or before the moment's start. So a clip holds its moment
whole, and up to a few seconds before it.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
from av.stream import Stream

from regionvlp.errors import InputError, first_line
from regionvlp.search.answers import Result
from regionvlp.store.files import replacing
from regionvlp.video.find import IMAGE_SUFFIXES

_ODD = re.compile(r"[^\w.-]+")
EDL_FPS = 25  # frames per second of the edit list's time codes


def cut(results: Sequence[Result], folder: Path) -> tuple[list[Path], list[str]]:
    """Copies the moment of each result into a file of its own.

    Args:
        results: best first. folder: made if need be.

    Returns:
        The files, and a line for each result that could not be cut.

    Raises:
        InputError: the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror or error}", "name another folder") from None
    files, faults = [], []
    for rank, result in enumerate(results, start=1):
        source = Path(result.path)
        if not result.path or not source.is_file():
            faults.append(f"{result.video_id} is not where it was, and was not cut")
            continue
        stem = _ODD.sub("_", Path(result.video_id).stem)[:80]
        try:
            files.append(_cut(source, result, folder / f"{rank:02d}-{stem}-{result.start:.0f}s"))
        except (OSError, ValueError) as error:
            faults.append(f"{result.video_id} cannot be cut: {first_line(error)}")
    return files, faults


def _cut(source: Path, result: Result, stem: Path) -> Path:
    suffix = source.suffix.lower()
    if suffix in IMAGE_SUFFIXES or suffix == ".gif":
        target = stem.with_name(stem.name + source.suffix)
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)
        return target
    # Matroska takes every codec that the usual containers hold; MP4 files stay MP4, which every player plays.
    kind = ("mp4", ".mp4") if suffix in (".mp4", ".m4v", ".mov") else ("matroska", ".mkv")
    target = stem.with_name(stem.name + kind[1])
    with replacing(target) as temporary:
        remux(source, temporary, result.start, result.end, container=kind[0])
    return target


def remux(source: Path, target: Path, start: float, end: float, *, container: str) -> None:
    """Copies the packets of a stretch, picture and sound, from the key frame before it on.

    Args:
        start, end: seconds from the first picture of the file.

    Raises:
        OSError, ValueError: FFmpeg cannot read or write it, or there is nothing to copy.
    """
    with av.open(str(source)) as reading, av.open(str(target), "w", format=container) as writing:
        if not reading.streams.video:
            raise ValueError("it has no video")
        pictures = reading.streams.video[0]
        streams: dict[int, Stream] = {pictures.index: writing.add_stream_from_template(pictures)}
        for sound in reading.streams.audio[:1]:
            streams[sound.index] = writing.add_stream_from_template(sound)
        first = (pictures.start_time or 0) * (pictures.time_base or Fraction(1))
        reading.seek(int((first + Fraction(start)) / (pictures.time_base or 1)), stream=pictures)
        chosen = [stream for stream in reading.streams if stream.index in streams]
        origin: Fraction | None = None
        copied = 0
        for packet in reading.demux(chosen):
            if packet.dts is None or packet.pts is None or packet.time_base is None:
                continue
            at = packet.pts * packet.time_base - first
            if packet.stream is pictures and origin is None:
                if not packet.is_keyframe:
                    continue
                origin = packet.dts * packet.time_base
            if origin is None or (at >= end and packet.stream is not pictures):
                continue
            # Pictures are stored out of order: one that is shown later may be needed by one that is shown in time.
            if packet.stream is pictures and packet.dts * packet.time_base - first >= end:
                break
            if packet.dts * packet.time_base < origin:
                continue
            shift = int(origin / packet.time_base)
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            packet.stream = streams[packet.stream.index]
            writing.mux(packet)
            copied += 1
        if not copied:
            raise ValueError("it holds nothing there")


def write_edit_list(path: Path, results: Sequence[Result], title: str) -> None:
    """Writes moments as a CMX 3600 edit list, one after the other, in time codes of 25 frames a second.

    Raises:
        InputError: the file cannot be written.
    """
    lines, at = [f"TITLE: {' '.join(title.split())[:70]}", "FCM: NON-DROP FRAME", ""], 0.0
    for number, result in enumerate(results, start=1):
        length = max(result.end - result.start, 1 / EDL_FPS)
        codes = " ".join(map(time_code, (result.start, result.start + length, at, at + length)))
        lines += [f"{number:03d}  AX       V     C        {codes}", f"* FROM CLIP NAME: {result.video_id}"]
        lines += [f"* SOURCE FILE: {result.path}", ""] if result.path else [""]
        at += length
    try:
        with replacing(path) as temporary:
            temporary.write_text("\n".join(lines), encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}", "name another file") from None


def time_code(seconds: float) -> str:
    """``HH:MM:SS:FF`` at 25 frames a second."""
    frames = round(seconds * EDL_FPS)
    rest, frame = divmod(frames, EDL_FPS)
    return f"{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}:{frame:02d}"
