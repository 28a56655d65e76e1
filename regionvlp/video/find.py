"""Finds the videos below a folder and gives each its id.

In: the folder that the user named. Out: a sorted list of :class:`VideoFile`. The id of a video is its path relative
to the folder, in POSIX form, extension kept; it travels through shards, annotations and reports, so names that could
collide, leave the folder or break a line-based list are refused here, once, for all that follows.
"""

from __future__ import annotations

import logging
import os
import re
import stat
import threading
import unicodedata
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from regionvlp.errors import InputError

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".gif", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ts", ".ogv"}
    # What cameras, discs and broadcasters write.
    | {".mts", ".m2ts", ".m2t", ".vob", ".mxf", ".asf", ".f4v", ".3g2", ".mpe", ".m2v", ".qt", ".divx", ".ogm", ".dv"}
)
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".jfif", ".jpe", ".avif"})
# What lies beside videos and is meant for others: captions, subtitles, features, notes.
_SIDECARS = frozenset(
    {".txt", ".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".srt", ".vtt", ".ass", ".xml", ".md", ".yaml", ".yml"}
    | {".npy", ".npz", ".pkl", ".parquet", ".log", ".html", ".part", ".ini", ".db"}
)

# Folders that systems put beside the user's own files; their thumbnails and deleted clips are nobody's data set.
_SYSTEM_FOLDERS = frozenset({"lost+found", "__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information"})
_IMAGE_MARKS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\x00", b"MM\x00*")
_WINDOWS_DRIVE = re.compile(r"[A-Za-z]:/")
_NAMED = 5  # bad names in an error; more are logged

log = logging.getLogger(__name__)


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
    """Lists all videos and images below a folder, sorted by id; see :func:`walk_videos`.

    Args:
        root: a folder, or one video or image, whose id is then its name.

    Raises:
        InputError: ``root`` is missing or unreadable, holds no video, or holds names that cannot be ids.
    """
    folder = root.parent if root.is_file() else root
    found = [VideoFile(video_id, folder / video_id, size, mtime) for video_id, size, mtime in walk_videos(root)]
    found.sort(key=lambda video: video.video_id)
    refuse_bad_ids(video.video_id for video in found)
    return found


def walk_videos(root: Path) -> Iterator[tuple[str, int, int]]:
    """Yields id, size (bytes) and time of change (ns) of all videos and images below a folder, in no useful order.

    A file counts by its suffix (in any case of letters), an image also by its first bytes if it has no suffix at all
    (CC3M stores its pictures so). Linked files and folders are followed, each real folder once: the folder itself
    wins over links to it. Hidden files and folders are left out, as are named pipes, sockets and devices.

    Sizes are 0 for broken links. Ids are not checked: see :func:`refuse_bad_ids`.

    Args:
        root: a folder, or one video or image, whose id is then its name.

    Raises:
        InputError: ``root`` is missing or unreadable, or holds no video.
    """
    if root.is_file():
        if root.suffix.lower() not in VIDEO_SUFFIXES | IMAGE_SUFFIXES:
            hint = f"{_looked_for()}; a list of videos ends in .csv, .tsv, .txt, .jsonl or .parquet"
            raise InputError(f"'{root}' is neither a folder nor a video", hint)
        yield root.name, *_size_and_time(os.fspath(root))
        return
    if not root.is_dir():
        raise InputError(f"'{root}' does not exist", "name a folder with videos")
    empty, left_out = True, LeftOut()
    for video_id, path in walk_files(os.fspath(root)):
        if is_wanted(path):
            empty = False
            yield video_id, *_size_and_time(path)
        else:
            left_out.add(video_id)
    left_out.say(os.fspath(root))
    if empty:
        raise InputError(f"no video lies below '{root}'", _looked_for())


class LeftOut:
    """Counts the files of a folder or a tar that are not taken for videos, so that none vanishes without a word.

    Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._first = ""

    def add(self, name: str, why: str = "") -> None:
        """Notes a file; what plainly belongs to somebody else does not count.

        Args:
            name: its path.
            why: what to call its kind; by default its suffix.
        """
        suffix = os.path.splitext(name)[1].lower()
        if not why and suffix in _SIDECARS:
            return
        with self._lock:
            self._counts[why or suffix or "no suffix"] += 1
            self._first = self._first or name

    def say(self, where: str) -> None:
        """Logs the counts by kind, where there are any."""
        if self._counts:
            kinds = ", ".join(f"{count} {kind}" for kind, count in self._counts.most_common(_NAMED))
            log.warning("%s: left out as no videos: %s (such as %s)", where, kinds, ascii(self._first))


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


def walk_files(root: str) -> Iterator[tuple[str, str]]:
    """Yields the path below ``root``, in POSIX form, and the path of every file there, in no useful order.

    Hidden files, named pipes, sockets and devices are left out; links are followed, each real folder once.

    Raises:
        InputError: a folder cannot be listed.
    """
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
            elif kind == "file":
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


def is_wanted(path: str, *, look: bool = True) -> bool:
    """Whether a file counts as a video or picture: by its suffix or, if ``look`` and it has none, by its content."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix:
        return suffix in VIDEO_SUFFIXES or suffix in IMAGE_SUFFIXES
    return look and looks_like_image(path)


def looks_like_image(path: str | Path) -> bool:
    """Whether a file begins like a picture. False for what cannot be read."""
    try:
        with open(path, "rb") as file:
            head = file.read(16)
    except OSError:
        return False
    return head.startswith(_IMAGE_MARKS) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def _size_and_time(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:  # a broken link is listed with the link's own time
        return 0, os.lstat(path).st_mtime_ns
    return status.st_size if stat.S_ISREG(status.st_mode) else 0, status.st_mtime_ns


def refuse_bad_ids(video_ids: Iterable[str]) -> None:
    """Refuses ids that :func:`check_video_id` refuses, and pairs that a reader or another system takes for one.

    Where there are more than a few, each is logged on a line of its own before the error counts them.

    Raises:
        InputError: there is such an id.
    """
    faults = []
    # Names that differ in case only stay: data sets made on Linux have them. Names that differ only in how an accent
    # is composed look the same everywhere and are one file on macOS.
    composed: dict[str, str] = {}
    for video_id in video_ids:
        if fault := _fault_of(video_id):
            faults.append(f"{video_id!a}: {fault}")
        elif not video_id.isascii():
            other = composed.setdefault(unicodedata.normalize("NFC", video_id), video_id)
            if other != video_id:
                faults.append(f"{other!a} and {video_id!a}: they differ only in how an accent is written")
    if not faults:
        return
    if len(faults) > _NAMED:
        for fault in faults:
            log.warning("%s", fault)
    more = f" (and {len(faults) - _NAMED} more, listed above)" if len(faults) > _NAMED else ""
    # Of a list that names files somewhere else, no file has to be renamed.
    elsewhere = any(words in fault for fault in faults for words in ("absolute path", "'..'", "backslash"))
    hint = "write them as paths below --root, with / and without '..'" if elsewhere else "rename these files"
    raise InputError(f"{len(faults)} names that cannot be ids: {'; '.join(faults[:_NAMED])}{more}", hint)


def _looked_for() -> str:
    names = " ".join(sorted(suffix.removeprefix(".") for suffix in VIDEO_SUFFIXES | IMAGE_SUFFIXES))
    return f"looked for {names}, in folders below it too; hidden ones are left out"
