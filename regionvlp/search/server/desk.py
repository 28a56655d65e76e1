"""The opened index of a server: one search at a time, the last answers remembered, opened anew when it has grown."""

from __future__ import annotations

import io
import logging
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from regionvlp.errors import InputError, RegionVLPError
from regionvlp.search.answers import Answers
from regionvlp.search.folder import CONTENTS_NAME
from regionvlp.search.index import Index, open_index
from regionvlp.search.server.metrics import Metrics

REMEMBERED = 256  # answers
MOST_FOLDERS = 200  # that the page offers to choose from
_PICTURE_SIDE = 1024  # pixels that are kept of a picture to search by
_MOST_PIXELS = 80_000_000
WARMING_QUERY, WARMING_RESULTS = "something to warm up with", 50

log = logging.getLogger(__name__)


class BusyError(RegionVLPError):
    """More searches wait than may; a client comes back later."""


@dataclass(frozen=True)
class Question:
    """One search, see :meth:`~regionvlp.search.index.Index.search`."""

    query: str = ""
    like: str | None = None
    top: int = 10
    folder: str | None = None
    after: float | None = None
    before: float | None = None
    shortest: float | None = None
    longest: float | None = None


class Opened:
    """An index as it was at one moment, with what the page says about it.

    Args:
        index: opened.
        number: counts up with every opening.
    """

    def __init__(self, index: Index, number: int) -> None:
        self.index, self.number = index, number

    @cached_property
    def lengths(self) -> dict[str, float]:
        """The length of each file in seconds, as far as the index tells: the end of its last clip."""
        clips = self.index.clips
        names = clips.column("video_id").combine_chunks().dictionary_encode()
        longest = np.full(len(names.dictionary), -1.0)
        live = self.index.live
        np.maximum.at(longest, names.indices.to_numpy()[live], clips.column("end").to_numpy()[live])
        pairs = zip(names.dictionary.to_pylist(), longest.tolist(), strict=True)
        return {name: length for name, length in pairs if length >= 0}

    @cached_property
    def folders(self) -> list[str]:
        """The folders that hold files, with those above them; at most 200."""
        found = {"/".join(parts[:depth]) for parts in map(_parts, self.lengths) for depth in range(1, len(parts))}
        return sorted(found)[:MOST_FOLDERS]

    @cached_property
    def reads_pictures(self) -> bool:
        """Whether a picture from outside can be searched by."""
        return any(getattr(encoder, "reads_pictures", False) for encoder in self.index.encoders)

    def first_rows(self, count: int) -> list[int]:
        """The first clip of each of the first files, to look at before anything is asked."""
        seen: dict[str, int] = {}
        ids = self.index.clips.column("video_id")
        for row in np.flatnonzero(self.index.live).tolist():
            if len(seen) == count:
                break
            seen.setdefault(ids[row].as_py(), row)
        return list(seen.values())


def _parts(name: str) -> list[str]:
    return name.split("/")


class Desk:
    """Answers questions about an index.

    Args:
        folder: the index. encoders, device: as of :func:`~regionvlp.search.index.open_index`.
        most_waiting: searches that may wait for their turn.
    """

    def __init__(
        self, folder: Path, encoders: Sequence[str] = (), device: str = "cpu", *, most_waiting: int = 100
    ) -> None:
        self._folder, self._encoders, self._device = folder, tuple(encoders), device
        self._stamp = self._changed()
        self.opened = Opened(open_index(folder, encoders=encoders, device=device), 1)
        self.metrics = Metrics()
        self._remembered: OrderedDict[tuple[int, Question], Answers] = OrderedDict()
        self._waiting = threading.BoundedSemaphore(most_waiting)
        self._searching, self._memory = threading.Lock(), threading.Lock()

    def warm(self) -> None:
        """Opens the encoders and asks once, so that the first client waits for neither."""
        opened = self.opened
        if len(opened.index):
            opened.index.search(WARMING_QUERY, top=WARMING_RESULTS)
        _ = opened.reads_pictures, opened.folders
        self._gauges(opened)

    def refresh(self) -> bool:
        """Opens the index anew if it has changed; whether it had. Searches go on in the old one meanwhile.

        An index that cannot be opened just now is left as it was, with a warning.
        """
        stamp = self._changed()
        if stamp == self._stamp:
            return False
        try:
            index = open_index(self._folder, encoders=self._encoders, device=self._device)
        except RegionVLPError as error:
            log.warning("the index has changed and cannot be opened; answers are of before: %s", error)
            return False
        before = self.opened
        if index.manifest.encoders == before.index.manifest.encoders:
            index.encoders = before.index.encoders
        opened = Opened(index, before.number + 1)
        _ = opened.reads_pictures, opened.folders
        self.opened, self._stamp = opened, stamp
        self._gauges(opened)
        return True

    def ask(self, question: Question) -> tuple[Opened, Answers]:
        """The answers, and the index that they are of.

        Raises:
            InputError: the question cannot be answered. BusyError: too many are waiting. ShardError: the index is
                damaged.
        """
        opened = self.opened
        key = (opened.number, question)
        with self._memory:
            known = self._remembered.get(key)
            if known is not None:
                self._remembered.move_to_end(key)
                return opened, known
        if question.like is not None:
            opened.index.row(question.like)  # one of the index: never a file of this machine that a client names
        answers = self._search(opened, question)
        with self._memory:
            self._remembered[key] = answers
            while len(self._remembered) > REMEMBERED:
                self._remembered.popitem(last=False)
        return opened, answers

    def ask_by_picture(self, data: bytes, top: int) -> tuple[Opened, Answers]:
        """Answers to a picture in a file format such as JPEG or PNG.

        Raises:
            InputError: it is none, or no encoder of the index reads pictures. BusyError: see :meth:`ask`.
        """
        opened = self.opened
        if not opened.reads_pictures:
            raise InputError("no encoder of this index reads pictures", "make an index with one that does")
        with tempfile.TemporaryDirectory(prefix="regionvlp-") as folder:
            path = Path(folder) / "picture.jpg"
            _write_picture(data, path)
            answers = self._search(opened, Question(like=str(path), top=top))
        return opened, Answers("like the picture", answers.present, answers.results, answers.notes)

    def _search(self, opened: Opened, question: Question) -> Answers:
        if not self._waiting.acquire(blocking=False):
            raise BusyError("too many searches are waiting", "ask again in a moment")
        try:
            with self._searching:
                started = time.perf_counter()
                answers = opened.index.search(**vars(question))
                self.metrics.searched(time.perf_counter() - started)
                return answers
        finally:
            self._waiting.release()

    def _changed(self) -> int:
        try:
            return (self._folder / CONTENTS_NAME).stat().st_mtime_ns
        except OSError:
            return 0

    def _gauges(self, opened: Opened) -> None:
        self.metrics.gauge("index_clips", "Clips that the index holds.", len(opened.index))
        self.metrics.gauge("index_files", "Files that the index holds.", len(opened.lengths))
        self.metrics.gauge("index_openings", "How often the index was opened.", opened.number)


def _write_picture(data: bytes, path: Path) -> None:
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise InputError("the picture is too large", "make it smaller")
            image.draft("RGB", (_PICTURE_SIDE, _PICTURE_SIDE))
            upright = ImageOps.exif_transpose(image).convert("RGB")
        upright.thumbnail((_PICTURE_SIDE, _PICTURE_SIDE))
        upright.save(path, format="JPEG", quality=95)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise InputError("that is no picture", "send a JPEG, PNG or WebP file") from None
