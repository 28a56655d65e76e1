"""Fills an index: encodes clips, writes them as segments, and takes out what is gone.

In: clips with their regions. Out: an index folder in which each call has happened as a whole or not at all. Killed at
any moment and started again, the same clips give the same index.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from regionvlp.search.clips import ClipInput
from regionvlp.search.encoders.base import Encoder
from regionvlp.search.encoders.labels import document
from regionvlp.search.folder import (
    Contents,
    EncoderRecord,
    IndexManifest,
    Unread,
    only_writer,
    remove_unnamed,
    without,
)
from regionvlp.search.index import Index
from regionvlp.search.segment import Rows, Segment, write_segment
from regionvlp.search.words import Words

BATCH = 256  # clips that are published together
SMALL = 16_384  # rows; smaller segments are joined when an indexing ends
LARGEST = 65_536  # rows of a joined segment
_SPARSE = 0.2  # share of rows taken out from which a segment is written anew

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Encodings:
    """Clips as they are written.

    Attributes:
        rows: of the segment. documents: the labels of each clip as words, by id.
    """

    rows: Rows
    documents: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.rows)


class IndexWriter:
    """The one writer of an index. Use it as a context manager.

    Args:
        folder: the index; made if need be.
        encoders: what reads the clips, in their order.
        tokens: whether tokens are stored, of encoders that have any.
        cut: how files are cut into clips, JSON values; another way makes another index.
        source: where clips come from, JSON values, for information.

    Raises:
        InputError: the folder is another index, or something else, or another process is writing to it.
        ShardError: what is there is damaged, or the disk refuses.
    """

    def __init__(
        self,
        folder: Path,
        encoders: Sequence[Encoder],
        *,
        tokens: bool = False,
        cut: Mapping[str, Any] | None = None,
        source: Mapping[str, Any] | None = None,
    ) -> None:
        assert encoders, "an index without an encoder finds nothing"
        records = tuple(
            EncoderRecord(one.name, one.identity(), one.place(), one.width, tokens and one.has_tokens)
            for one in encoders
        )
        self._wanted = IndexManifest(records, dict(cut or {}), dict(source or {}))
        self.encoders, self._folder = list(encoders), folder
        self._stack = ExitStack()
        self._words = Words(folder) if any(not one.width for one in encoders) else None

    def __enter__(self) -> Self:
        self.records = IndexManifest.create_or_check(self._folder, self._wanted).encoders
        with self._stack as stack:
            stack.enter_context(only_writer(self._folder))
            self.contents = Contents.read(self._folder)
            remove_unnamed(self._folder, self.contents)
            self._places = dict(_places(self._folder, self.contents, self.records))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def stamps(self) -> dict[str, str]:
        """The stamp of every clip that the index holds, by id."""
        return {clip_id: stamp for clip_id, (_, _, stamp, _) in self._places.items()}

    @property
    def files(self) -> dict[str, set[str]]:
        """The clips of every file that the index holds: ids by video id."""
        found: dict[str, set[str]] = {}
        for clip_id, (_, _, _, video_id) in self._places.items():
            found.setdefault(video_id, set()).add(clip_id)
        return found

    def add(self, inputs: Sequence[ClipInput]) -> None:
        """Encodes clips and adds them, in place of those of the same ids.

        Raises:
            ShardError: the disk refuses, or an encoder gives numbers that are none; the index is as before.
        """
        if inputs:
            self.publish([self.encoded(inputs)])

    def encoded(self, inputs: Sequence[ClipInput]) -> Encodings:
        """Encodes clips, at least one; nothing is written yet, and their frames are not needed any more."""
        made = [encoder.encode_clips(inputs) for encoder in self.encoders]
        documents = {item.clip.clip_id: document(item.evidence) for item in inputs} if self._words is not None else {}
        return Encodings(Rows.of(inputs, made, self.records), documents)

    def publish(self, parts: Sequence[Encodings]) -> None:
        """Adds encoded clips, all at once, in place of those of the same ids.

        Raises:
            ShardError: the disk refuses; the index is as before.
        """
        if not parts:
            return
        rows = Rows.joined([part.rows for part in parts])
        if self._words is not None:
            self._words.put({clip_id: text for part in parts for clip_id, text in part.documents.items()})
        name, count = write_segment(self._folder, self._next_number(), [rows])
        ids = rows.clips.column("clip_id").to_pylist()
        contents = without(self.contents, self._rows_of(ids))
        self._publish(replace(contents, segments={**contents.segments, name: count}, presence=()))
        for row, (clip_id, stamp, video_id) in enumerate(
            zip(*(rows.clips.column(key).to_pylist() for key in ("clip_id", "stamp", "video_id")), strict=True)
        ):
            self._places[clip_id] = (name, row, stamp, video_id)

    def remove(self, clip_ids: Iterable[str]) -> int:
        """Takes clips out; returns how many there were."""
        gone = [clip_id for clip_id in clip_ids if clip_id in self._places]
        if gone:
            self._publish(replace(without(self.contents, self._rows_of(gone)), presence=()))
            for clip_id in gone:
                del self._places[clip_id]
        return len(gone)

    def note(self, *, unread: Iterable[Unread] | None = None, done: Iterable[str] | None = None) -> None:
        """Remembers which files failed, and which parts of the videos are indexed."""
        changes: dict[str, Any] = {}
        if unread is not None:
            changes["unread"] = tuple(sorted(unread, key=lambda row: row.video_id))
        if done is not None:
            changes["done"] = tuple(sorted(done))
        if any(getattr(self.contents, name) != value for name, value in changes.items()):
            self._publish(replace(self.contents, **changes))

    def relocate(self, paths: Mapping[str, str]) -> None:
        """Notes where files lie that lay elsewhere: absolute paths by video id; those that are not named stay.

        Raises:
            ShardError: the disk refuses; the index is as before.
        """
        contents, number, names = self.contents, self._next_number(), dict[str, str]()
        for name, count in contents.segments.items():
            names[name] = name
            segment = Segment(self._folder, name, self.records)
            if segment.moved(paths):
                pieces = (piece.at(paths) for piece in segment.pieces(np.arange(count)))
                names[name], _ = write_segment(self._folder, number, pieces)
                number += 1
        if any(name != now for name, now in names.items()):
            segments = {names[name]: count for name, count in contents.segments.items()}
            dropped = {names[name]: rows for name, rows in contents.dropped.items()}
            self._publish(replace(contents, segments=segments, dropped=dropped))
            self._places = {clip_id: (names[place[0]], *place[1:]) for clip_id, place in self._places.items()}

    def finish(self) -> None:
        """Joins small segments in the order of their ids, and learns what tells whether anything answers a query.

        Needed once at the end, and harmless where nothing was added.
        """
        self._join()
        if self._words is not None:
            self._words.keep(self._places)
        if not self.contents.presence and self._places:
            learnt = Index(self._folder, opened=self.encoders).judges
            self._publish(replace(self.contents, presence=tuple(learnt)))

    def _publish(self, contents: Contents) -> None:
        before = self.contents
        self.contents = contents.write(self._folder)
        remove_unnamed(self._folder, self.contents)
        assert self.contents.generation == before.generation + 1

    def _rows_of(self, clip_ids: Iterable[str]) -> dict[str, list[int]]:
        rows: dict[str, list[int]] = {}
        for clip_id in clip_ids:
            if clip_id in self._places:
                name, row, _, _ = self._places[clip_id]
                rows.setdefault(name, []).append(row)
        return rows

    def _next_number(self) -> int:
        # Never a number that a reader may know from before.
        used = max((int(name.rpartition("-")[2]) for name in self.contents.segments), default=0)
        return 1 + max(used, self.contents.generation)

    def _join(self) -> None:
        contents = self.contents
        small = [
            name
            for name, count in contents.segments.items()
            if count < SMALL or len(contents.dropped.get(name, ())) > _SPARSE * count
        ]
        if len(small) < 2 and not any(name in contents.dropped for name in small):
            return
        places = sorted((clip_id, *place) for clip_id, place in self._places.items() if place[0] in small)
        segments = {name: Segment(self._folder, name, self.records) for name in small}
        number, joined = self._next_number(), dict[str, int]()
        for start in range(0, len(places), LARGEST):
            part = places[start : start + LARGEST]
            name, count = write_segment(self._folder, number + len(joined), _pieces(segments, part))
            joined[name] = count
            for row, (clip_id, _, _, stamp, video_id) in enumerate(part):
                self._places[clip_id] = (name, row, stamp, video_id)
        kept = {name: count for name, count in contents.segments.items() if name not in small}
        dropped = {name: rows for name, rows in contents.dropped.items() if name in kept}
        self._publish(replace(contents, segments={**kept, **joined}, dropped=dropped))


def _places(
    folder: Path, contents: Contents, records: Sequence[EncoderRecord]
) -> Iterator[tuple[str, tuple[str, int, str, str]]]:
    """Where each clip that counts lies: its id, and segment, row, stamp and file."""
    for name in contents.segments:
        clips, dropped = Segment(folder, name, records).clips, set(contents.dropped.get(name, ()))
        columns = (clips.column(key).to_pylist() for key in ("clip_id", "stamp", "video_id"))
        for row, (clip_id, stamp, video_id) in enumerate(zip(*columns, strict=True)):
            if row not in dropped:
                yield clip_id, (name, row, stamp, video_id)


def _pieces(segments: Mapping[str, Segment], places: Sequence[tuple[str, str, int, str, str]]) -> Iterator[Rows]:
    """The rows of some places in their order: neighbours that lie in one segment together."""
    start = 0
    while start < len(places):
        stop = start + 1
        while stop < len(places) and places[stop][1] == places[start][1]:
            stop += 1
        rows = np.array([place[2] for place in places[start:stop]], np.int64)
        yield from segments[places[start][1]].pieces(rows)
        start = stop
