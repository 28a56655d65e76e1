"""Finds the videos below a folder and gives each its id.

In: the folder that the user named. Out: a sorted list of :class:`VideoFile`. The id of a video is its path relative
to the folder, in POSIX form, extension kept; it travels through shards, annotations and reports, so names that could
collide, leave the folder or break a line-based list are refused here, once, for all that follows.
"""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from regionvlp.errors import InputError

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".gif", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ts", ".ogv"}
)
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})

# Folders that systems put beside the user's own files; their thumbnails and deleted clips are nobody's data set.
_SYSTEM_FOLDERS = frozenset({"lost+found", "__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information"})
_IMAGE_MARKS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\x00", b"MM\x00*")
_WINDOWS_DRIVE = re.compile(r"[A-Za-z]:/")


@dataclass(frozen=True)
class VideoFile:
    """One video on disk.

    Attributes:
        video_id: path below the searched folder, POSIX form, extension kept.
        path: where to open it.
        bytes: its size; 0 for a broken link, which is listed so that it becomes a failure row.
        mtime_ns: time of its last change, nanoseconds.
    """

    video_id: str
    path: Path
    bytes: int
    mtime_ns: int


def find_videos(root: Path) -> list[VideoFile]:
    """Lists all videos and images below a folder, sorted by id.

    A file counts by its suffix (in any case of letters), an image also by its first bytes if it has no suffix at all
    (CC3M stores its pictures so). Linked files and folders are followed, each real folder once: the folder itself
    wins over links to it. Hidden files and folders are left out, as are named pipes, sockets and devices.

    Args:
        root: a folder, or one video or image, whose id is then its name.

    Raises:
        InputError: ``root`` is missing or unreadable, holds no video, or holds names that cannot be ids.
    """
    if root.is_file():
        if root.suffix.lower() not in VIDEO_SUFFIXES | IMAGE_SUFFIXES:
            raise InputError(f"'{root}' is neither a folder nor a video", _looked_for())
        found = [_described(root.name, root)]
    elif root.is_dir():
        found = [_described(name, Path(path)) for name, path in _walk(os.fspath(root))]
        found.sort(key=lambda video: video.video_id)
    else:
        raise InputError(f"'{root}' does not exist", "name a folder with videos")
    if not found:
        raise InputError(f"no video lies below '{root}'", _looked_for())
    _refuse_bad_ids(found)
    return found


def check_video_id(video_id: str) -> None:
    """Checks that a text can be a video's id, wherever it comes from.

    Raises:
        InputError: it is empty, absolute, has empty, ``.`` or ``..`` parts, a backslash, a control character, a line
            separator, or bytes that are no text.
    """
    fault = _fault_of(video_id)
    if fault:
        raise InputError(f"{video_id!a} cannot be the id of a video: {fault}", "rename the file")


def _fault_of(video_id: str) -> str:
    """Returns what is wrong with an id, or an empty string."""
    if video_id.startswith("/") or _WINDOWS_DRIVE.match(video_id):
        return "it is an absolute path"
    if any(part in {"", ".", ".."} for part in video_id.split("/")):
        return "it has an empty part, '.' or '..'"
    if "\\" in video_id:
        return "it holds a backslash"
    # Cc: control characters, Zl and Zp: line and paragraph separators, Cs: bytes that were not UTF-8.
    kinds = set() if video_id.isascii() and video_id.isprintable() else set(map(unicodedata.category, video_id))
    if kinds & {"Cc", "Zl", "Zp"}:
        return "it holds a control character or a line break"
    if "Cs" in kinds:
        return "it is not valid UTF-8"
    return ""


def _walk(root: str) -> Iterator[tuple[str, str]]:
    """Yields (id, path) of every video below ``root``, in no useful order."""
    # Links are entered after all real folders, so that a folder is listed under its own name whenever it has one.
    folders, linked = deque([("", root)]), deque[tuple[str, str]]()
    seen: set[tuple[int, int]] = set()
    while folders or linked:
        prefix, folder = (folders or linked).popleft()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            raise InputError(
                f"the folder '{folder}' cannot be listed: {error.strerror}", "make it readable or move it away"
            ) from error
        for entry in entries:
            if entry.name.startswith(".") or entry.name in _SYSTEM_FOLDERS:
                continue
            kind = _kind(entry)
            if kind == "folder":
                (linked if entry.is_symlink() else folders).append((f"{prefix}{entry.name}/", entry.path))
            elif kind == "file" and _is_wanted(entry):
                yield prefix + entry.name, entry.path


def _kind(entry: os.DirEntry[str]) -> str:
    """Returns ``folder``, ``file`` (also for a broken link) or ``other``."""
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
        return "file" if entry.is_symlink() and not os.path.exists(entry.path) else "other"
    except OSError:  # a link to itself
        return "file"


def _is_wanted(entry: os.DirEntry[str]) -> bool:
    suffix = os.path.splitext(entry.name)[1].lower()
    if suffix:
        return suffix in VIDEO_SUFFIXES or suffix in IMAGE_SUFFIXES
    return looks_like_image(entry.path)


def looks_like_image(path: str | Path) -> bool:
    """Whether a file begins like a picture. False for what cannot be read."""
    try:
        with open(path, "rb") as file:
            head = file.read(16)
    except OSError:
        return False
    return head.startswith(_IMAGE_MARKS) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def _described(video_id: str, path: Path) -> VideoFile:
    try:
        status = path.stat()
    except OSError:  # a broken link is listed with the link's own time
        return VideoFile(video_id, path, 0, path.lstat().st_mtime_ns)
    return VideoFile(video_id, path, status.st_size if stat.S_ISREG(status.st_mode) else 0, status.st_mtime_ns)


def _refuse_bad_ids(found: list[VideoFile]) -> None:
    """Refuses names that cannot be ids, and pairs of names that a reader or another system takes for one."""
    faults = [f"{video.video_id!a}: {fault}" for video in found if (fault := _fault_of(video.video_id))]
    # Names that differ in case only stay: data sets made on Linux have them. Names that differ only in how an accent
    # is composed look the same everywhere and are one file on macOS.
    composed: dict[str, str] = {}
    for video in found:
        other = composed.setdefault(unicodedata.normalize("NFC", video.video_id), video.video_id)
        if other != video.video_id:
            faults.append(f"{other!a} and {video.video_id!a}: they differ only in how an accent is written")
    if faults:
        more = f" (and {len(faults) - 5} more)" if len(faults) > 5 else ""
        raise InputError(f"names that cannot be ids: {'; '.join(faults[:5])}{more}", "rename these files")


def _looked_for() -> str:
    names = " ".join(sorted(suffix.removeprefix(".") for suffix in VIDEO_SUFFIXES | IMAGE_SUFFIXES))
    return f"looked for {names}, in folders below it too; hidden ones are left out"
