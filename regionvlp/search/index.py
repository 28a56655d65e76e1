"""Opening an index and asking it: :func:`open_index` and :meth:`Index.search`.

In: a folder that ``regionvlp index`` made, a sentence. Out: :class:`~regionvlp.search.answers.Answers`.
Shape letters: N clips that the segments hold, those that were taken out included; Q queries.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from regionvlp.errors import InputError, ShardError, VideoError
from regionvlp.regions import cast_features
from regionvlp.search.answers import Answers
from regionvlp.search.certificate import Asked, check_how
from regionvlp.search.clips import Clip, Evidence
from regionvlp.search.encoders.base import Encoder, Floats, Query, StoredTokens
from regionvlp.search.encoders.opening import open_again
from regionvlp.search.filters import Filters
from regionvlp.search.folder import Contents, IndexManifest, Unread
from regionvlp.search.from_shards import ShardTokens
from regionvlp.search.looking import FRAMES, like_file, look_again
from regionvlp.search.moments import Moment, moments, without_copies
from regionvlp.search.presence import Crowd, Judge, Jury, VectorCrowd, WordCrowd, probability
from regionvlp.search.rank import Gallery, Ranked, fused, reranked, top
from regionvlp.search.results import Found, results_of
from regionvlp.search.segment import CLIPS_SCHEMA, Segment
from regionvlp.search.words import MOST_WORDS, Words, tokens

DEPTH = 1000  # clips of each encoder that are fused and joined to moments
SAME_MEANING = 0.98  # cosine of copies
TO_STAND_OUT = 3  # clips of an index; among fewer none can
RERANKED = 100  # clips that are compared token by token
_ATTEMPTS = 5  # at opening an index that is being written


class Index:
    """An opened index. It stays what it was when it was opened, whatever a writer does meanwhile.

    Args:
        folder: the index.
        encoders: names that stand for encoders that were moved since, see :func:`open_index`.
        device: where checkpoints run.
        from_shards: where no tokens are stored, make them of the shards.
        opened: its encoders, where they are at hand.

    Attributes:
        manifest, contents: what it is, and what of it counts.
    """

    def __init__(
        self,
        folder: Path,
        encoders: Sequence[str] = (),
        device: str = "cpu",
        from_shards: bool = False,
        opened: Sequence[Encoder] = (),
    ) -> None:
        self.folder, self._given, self._device = folder, tuple(encoders), device
        self._opened = list(opened)
        self.manifest = IndexManifest.read(folder)
        self._shards = ShardTokens(folder, self.manifest) if from_shards else None
        self.contents, self._segments = _opened(folder, self.manifest)
        self._starts = np.cumsum([0, *(segment.rows for segment in self._segments)])
        self.live = np.ones(int(self._starts[-1]), np.bool_)
        for segment, start in zip(self._segments, self._starts, strict=False):
            self.live[start + np.array(self.contents.dropped.get(segment.name, []), np.int64)] = False
        self.words = Words(folder)

    def __len__(self) -> int:
        return int(self.live.sum())

    def __repr__(self) -> str:
        return f"<Index {str(self.folder)!r}: {len(self):,} clips, {', '.join(r.name for r in self.manifest.encoders)}>"

    @property
    def unread(self) -> Sequence[Unread]:
        """Files that could not be indexed."""
        return self.contents.unread

    @cached_property
    def encoders(self) -> list[Encoder]:
        """The encoders, opened at the first query.

        Raises:
            InputError: one is gone, or is another one than the index was made with; or none has the tokens that
                ``from_shards`` asks for.
        """
        opened = self._opened or [open_again(record, self._given, self._device) for record in self.manifest.encoders]
        if self._shards is not None and not any(encoder.has_tokens for encoder in opened):
            names = ", ".join(encoder.name for encoder in opened)
            raise InputError(
                f"there is nothing to make of the shards: {names} compares no tokens", "leave --from-shards out"
            )
        return opened

    @cached_property
    def clips(self) -> pa.Table:
        """The table of all clips, see ``segment``; rows are numbered through, those taken out included."""
        return pa.concat_tables([CLIPS_SCHEMA.empty_table(), *(segment.clips for segment in self._segments)])

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {clip_id: row for row, clip_id in enumerate(self.clips.column("clip_id").to_pylist()) if self.live[row]}

    @cached_property
    def galleries(self) -> dict[int, Gallery]:
        """The vectors of each encoder that has any, by its number."""
        return {
            k: Gallery([segment.array(f"pooled-{k}.npy") for segment in self._segments])
            for k, record in enumerate(self.manifest.encoders)
            if record.width
        }

    @cached_property
    def jury(self) -> Jury:
        """What says whether anything answers a query, see ``presence``."""
        files = pc.dictionary_encode(self.clips.column("video_id")).combine_chunks().indices.to_numpy().astype(np.int64)
        ids = self.clips.column("clip_id").to_pylist() if any(not one.width for one in self.manifest.encoders) else []
        crowds: list[Crowd] = [
            VectorCrowd(self.galleries[k], files, self.live)
            if record.width
            else WordCrowd(self.words, ids, files, self.live)
            for k, record in enumerate(self.manifest.encoders)
        ]
        return Jury(crowds, files, self.live)

    @cached_property
    def judges(self) -> Sequence[Judge]:
        """What the standings of each encoder are worth: stored when an indexing ends, else learnt now."""
        return self.contents.presence or self.jury.learn(self.encoders)

    def search(
        self,
        query: str = "",
        top: int = 10,
        *,
        like: str | None = None,
        folder: str | None = None,
        after: float | None = None,
        before: float | None = None,
        shortest: float | None = None,
        longest: float | None = None,
        rerank: bool = True,
        fine: bool = False,
        certificate: str = "held",
    ) -> Answers:
        """The moments that answer a sentence.

        Args:
            query: the sentence. Not needed with ``like``.
            top: the most results.
            like: a moment to find others like: ``clip.mp4@12s``, or ``photo.jpg``; of the index, or any file where an
                encoder of the index looks at frames.
            folder: only files below it, or whose id fits it as a pattern (``*.jpg``).
            after, before: only files that changed after or before that moment, seconds since 1970.
            shortest, longest: only files of such a length, in seconds.
            rerank: compare the first hundred token by token, where there are tokens.
            fine: look at the frames of the results again, for boxes on a finer grid; a second or two each on a CPU.
            certificate: how it is worked out what a result would be without each of its boxes: ``held`` (cheap),
                ``reencode`` (exact, a second or more each on a CPU) or ``none``; see :mod:`~.certificate`.

        Raises:
            InputError: there is nothing to search for or in, or ``fine`` and no encoder looks at frames.
            ShardError: a file of the index is damaged.
        """
        if not query.strip() and like is None:
            raise InputError("the query is empty", "say what to look for")
        if not len(self):
            raise InputError(f"the index {self.folder} holds no clip", "add some with 'regionvlp index'")
        if top < 1:
            raise InputError(f"top is {top}", "ask for at least 1 result")
        notes: list[str] = []
        how = check_how(certificate)
        allowed = Filters(folder, after, before, shortest, longest).allowed(self.clips, self.live)
        queries = self._like(like) if like is not None else [e.encode_queries([query])[0] for e in self.encoders]
        if query.strip() and like is not None:
            raise InputError("a query and 'like' were given", "give one of them")
        first = RERANKED if rerank else 0
        notes += [note for query in queries for note in query.notes]
        hidden = self._row_or_none(like) if like is not None else None
        found = self.find(queries, top, allowed, first, hidden)
        present = 1.0 if like is not None else self._present(queries, found.coarse, allowed)
        if self._made_again(first):
            notes.append(
                f"the first {RERANKED} were read from the shards and encoded again: 'index --tokens' saves that"
            )
        notes += _about(query)
        if not int(allowed.sum()):
            notes.append("no clip fits the filters")
        looked = self._looked_at(found.told, notes) if fine else {}
        results = results_of(self, found, looked, how)
        worked_out = any(box.matters is not None for one in results for word in one.words for box in word.boxes)
        return Answers(query or f"like {like}", present, results, tuple(notes), how if worked_out else "none")

    def find(
        self,
        queries: Sequence[Query],
        top: int,
        allowed: NDArray[np.bool_] | None = None,
        first: int = RERANKED,
        hidden: int | None = None,
    ) -> Found:
        """The moments that answer a query, of which nothing is told yet.

        Args:
            queries: the query as each encoder understands it. top: the most moments.
            allowed: [N], which clips count; all by default. first: how many clips are compared token by token.
            hidden: a row that is no answer.
        """
        allowed = self.live if allowed is None else allowed
        # Of a picture from elsewhere, encoders that do not look know nothing.
        known = [k for k, one in enumerate(queries) if one.text or one.pooled is not None] or list(range(len(queries)))
        coarse = [self._coarse(k, queries[k], max(DEPTH, top), allowed) for k in known]
        rankings = [self._fine(k, queries[k], one, first) for k, one in zip(known, coarse, strict=True)]
        ranking, shares = fused(rankings) if len(rankings) > 1 else (rankings[0], [])
        if hidden is not None:
            ranking = _without(ranking, {hidden})
        every = self._moments(ranking)
        asked = [
            Asked(k, self.encoders[k], queries[k], one, min(first, len(one)) if self._compares(k, queries[k]) else 0)
            for k, one in zip(known, rankings, strict=True)
        ]
        return Found(asked, coarse, shares, every, without_copies(every, self.look, self.alike, top))

    def rank_all(self, queries: Sequence[str], rerank: int = RERANKED) -> Floats:
        """[Q, N] float32: how well every clip answers every query, for measuring; -inf where a clip does not count.

        Args:
            queries: Q sentences.
            rerank: how many are compared token by token, where tokens are stored; :meth:`search` does so many.
        """
        scores = np.full((len(queries), len(self.live)), -np.inf, np.float32)
        encoded = [encoder.encode_queries(list(queries), words=False) for encoder in self.encoders]
        for q in range(len(queries)):
            rankings = [
                self._fine(k, mine[q], self._coarse(k, mine[q], max(len(self), 1), self.live), rerank)
                for k, mine in enumerate(encoded)
            ]
            ranking = fused(rankings)[0] if len(rankings) > 1 else rankings[0]
            scores[q, ranking.rows] = ranking.scores
        return scores

    def row(self, place: str) -> int:
        """The row of a moment: ``clip.mp4@12s`` (its window whose middle is nearest), or an id alone (its first).

        Raises:
            InputError: the index holds no such file, or nothing at that time.
        """
        name, seconds = _moment(place)
        if name in self._row_of and seconds is None:
            return self._row_of[name]
        ids = self.clips.column("video_id")
        wanted = np.flatnonzero(pc.equal(ids, name).to_numpy(zero_copy_only=False) & self.live)
        if not len(wanted):
            wanted = np.flatnonzero(pc.equal(self.clips.column("path"), os.path.abspath(name)).to_numpy() & self.live)
        if not len(wanted):
            raise InputError(f"the index holds no '{name}'", "name a file as results do, such as holiday/clip.mp4@12s")
        start, end = (self.clips.column(key).to_numpy()[wanted] for key in ("start", "end"))
        if seconds is None:
            return int(wanted[np.argmin(start)])
        inside = (start <= seconds) & (seconds <= end)
        if not inside.any():
            raise InputError(f"'{name}' has no clip at {seconds:g} s in the index", f"it ends at {end.max():g} s")
        return int(wanted[inside][np.argmin(np.abs((start + end)[inside] / 2 - seconds))])

    def _row_or_none(self, place: str) -> int | None:
        """The row of a moment; None where the index does not hold it."""
        try:
            return self.row(place)
        except InputError:
            return None

    @property
    def frames(self) -> int:
        """How many frames of a clip were looked at, at most."""
        return int(self.manifest.cut.get("frames", FRAMES))

    def clip(self, row: int) -> Clip:
        """The clip of a row."""
        segment, inside = self._place(row)
        return segment.clip(inside)

    def evidence(self, row: int) -> Evidence:
        """The regions of a row, or the cells that stand for them."""
        segment, inside = self._place(row)
        return segment.evidence(inside)

    def thumbnail(self, row: int) -> bytes:
        """The small JPEG of a row; empty where there is none."""
        segment, inside = self._place(row)
        return segment.thumbnail(inside)

    def row_of(self, clip_id: str) -> int:
        """The row of a clip by its id."""
        return self._row_of[clip_id]

    def _place(self, row: int) -> tuple[Segment, int]:
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self._segments[number], row - int(self._starts[number])

    def _coarse(self, k: int, query: Query, depth: int, allowed: NDArray[np.bool_]) -> Ranked:
        """The best clips for encoder ``k``, by their vectors or words."""
        record = self.manifest.encoders[k]
        if not record.width:
            return self._matched(query, depth, allowed)
        assert query.pooled is not None, f"{record.name} gave a query without a vector"
        return self.galleries[k].best(query.pooled, depth, allowed)

    def _fine(self, k: int, query: Query, ranked: Ranked, first: int) -> Ranked:
        """A ranking whose first clips are compared token by token, where there are tokens."""
        if not (first and len(ranked) and self._compares(k, query)):
            return ranked
        rows = ranked.rows[:first]
        stored = self.tokens(k, rows.tolist())
        if stored is None:
            return ranked
        tokens, mask = ([getattr(one, name) for one in stored] for name in ("tokens", "mask"))
        pooled = self.galleries[k].vectors(rows)
        known = cast_features(np.stack(tokens), np.float32)
        scores = self.encoders[k].token_scores(query, known, np.stack(mask), pooled)
        return reranked(ranked, scores)

    def tokens(self, k: int, rows: Sequence[int]) -> list[StoredTokens] | None:
        """The tokens of encoder ``k`` of some rows; None where there are none."""
        if self.manifest.encoders[k].tokens:
            places = map(self._place, rows)
            return [tokens for segment, row in places if (tokens := segment.tokens(k, row)) is not None]
        if self._shards is None or not self.encoders[k].has_tokens:
            return None
        return self._shards.of(self.encoders[k], [self.clip(row) for row in rows])

    def _compares(self, k: int, query: Query) -> bool:
        """Whether encoder ``k`` can compare a query token by token."""
        known = self.manifest.encoders[k].tokens or (self._shards is not None and self.encoders[k].has_tokens)
        return bool(known and query.about)

    def _made_again(self, first: int) -> bool:
        """Whether any encoder's tokens were made anew for a search."""
        pairs = zip(self.encoders, self.manifest.encoders, strict=True)
        return bool(first) and self._shards is not None and any(e.has_tokens and not r.tokens for e, r in pairs)

    def _matched(self, query: Query, depth: int, allowed: NDArray[np.bool_]) -> Ranked:
        """The clips that hold words of the query; behind them, all others with a score of 0."""
        scores = np.zeros(len(allowed), np.float32)
        for clip_id, score in self.words.match(query.text).items():
            if (row := self._row_of.get(clip_id)) is not None:
                scores[row] = score
        rows = np.flatnonzero(allowed)
        return top(rows, scores[rows], depth)

    def _like(self, place: str) -> list[Query]:
        """The queries by which clips like a moment are found: of the index, or of a file that it does not hold."""
        row = self._row_or_none(place)
        if row is None:
            file, time = _moment(place) if not os.path.isfile(place) else (place, None)
            if not os.path.isfile(file) or not any(encoder.reads_pictures for encoder in self.encoders):
                self.row(place)  # says what is wrong
            return like_file(Path(file), time, self.encoders, self.frames, float(self.manifest.cut.get("seconds", 0)))
        segment, inside = self._place(row)
        text = " ".join(sorted(set(segment.evidence(inside).labels)))
        return [
            Query(
                text if not record.width else "",
                self.galleries[k].vectors(np.array([row]))[0] if record.width else None,
            )
            for k, record in enumerate(self.manifest.encoders)
        ]

    def _looked_at(self, found: Sequence[Moment], notes: list[str]) -> dict[int, tuple[int, Evidence, StoredTokens]]:
        """For each moment's row, which encoder looked again, at what, and what it saw."""
        eyes = [k for k, one in enumerate(self.encoders) if one.reads_pictures and one.has_tokens]
        if not eyes:
            raise InputError(
                "no encoder of the index can say where in a frame a word lies", "leave the finer boxes out"
            )
        looked: dict[int, tuple[int, Evidence, StoredTokens]] = {}
        clips = [self.clip(moment.row) for moment in found]
        for moment, again in zip(found, look_again(clips, self.encoders[eyes[0]], self.frames), strict=True):
            if isinstance(again, VideoError):
                notes.append(f"no finer boxes of {self.clip(moment.row).video_id}: {again.message}")
            else:
                looked[moment.row] = (eyes[0], *again)
        return looked

    def _moments(self, ranking: Ranked) -> list[Moment]:
        worst = float(ranking.scores[-1]) if len(ranking) else 0.0
        listed = (
            (int(row), float(score), self.clip(int(row))) for row, score in zip(*vars(ranking).values(), strict=True)
        )
        return moments(listed, worst)

    def look(self, row: int) -> int:
        """64 bits that are alike for clips that look alike."""
        segment, inside = self._place(row)
        return segment.look(inside)

    def alike(self, one: int, other: int) -> bool:
        """Whether two clips mean the same: to every encoder with vectors, or else by the names of what they show."""
        rows = np.array([one, other])
        pairs = [gallery.vectors(rows) for gallery in self.galleries.values()]
        if pairs:
            return all(float(first @ second) >= SAME_MEANING for first, second in pairs)
        labels = [set(segment.evidence(inside).labels) for segment, inside in (self._place(one), self._place(other))]
        return labels[0] == labels[1]

    def _present(self, queries: Sequence[Query], rankings: Sequence[Ranked], allowed: NDArray[np.bool_]) -> float:
        """The probability that anything answers; 0 where no clip fits the filters, a half where it cannot be told."""
        if not allowed.any():
            return 0.0
        if len(self) < TO_STAND_OUT:
            return 0.5
        judges = self.jury.narrowed(self.judges, self.encoders, allowed)
        parts = zip(judges, self.jury.crowds, queries, rankings, strict=True)
        return probability([judge.logit(crowd.standing(query, allowed, one)) for judge, crowd, query, one in parts])


def open_index(
    folder: str | os.PathLike[str], *, encoders: Sequence[str] = (), device: str = "cpu", from_shards: bool = False
) -> Index:
    """Opens an index for searching.

    Args:
        folder: what ``regionvlp index --out`` made.
        encoders: where its encoders are now, if they were moved: ``labels:FOLDER``, or the folder of a checkpoint.
        device: where checkpoints run.
        from_shards: re-rank the first hundred also where no tokens are stored: their regions are read from the shards
            and encoded at every query, which takes seconds.

    Raises:
        InputError: the folder is no index. ShardError: it is damaged, or of another version.
    """
    return Index(Path(folder).absolute(), encoders, device, from_shards)


def _opened(folder: Path, manifest: IndexManifest) -> tuple[Contents, list[Segment]]:
    """The contents and their segments. A writer may replace them between two looks; then they are looked up again."""
    generation = -1
    for _ in range(_ATTEMPTS):
        contents = Contents.read(folder)
        try:
            segments = [Segment(folder, name, manifest.encoders) for name in contents.segments]
            for segment in segments:
                segment.hold()
            return contents, segments
        except ShardError:
            if contents.generation == generation:
                raise
            generation = contents.generation
    raise ShardError(f"{folder} changes faster than it can be opened", "try again in a moment")


def _about(query: str) -> list[str]:
    """What one should know of a query to judge what it finds."""
    count = len(tokens(query))
    if query.strip() and not count:
        return ["no word in the query: what comes first does so by chance"]
    if count > MOST_WORDS:
        return [f"a query of {count:,} words: encoders may read no more than its beginning"]
    return []


def _without(ranking: Ranked, rows: set[int]) -> Ranked:
    kept = np.array([row not in rows for row in ranking.rows.tolist()], np.bool_)
    return Ranked(ranking.rows[kept], ranking.scores[kept])


def _moment(place: str) -> tuple[str, float | None]:
    """``clip.mp4@12s`` as file and seconds; without seconds where it names a file alone."""
    name, at, time = place.rpartition("@")
    try:
        return (name, float(time.removesuffix("s"))) if at else (place, None)
    except ValueError:
        return place, None


def parse_moment(text: str) -> float:
    """A day or moment such as ``2026-03-01`` or ``2026-03-01T12:00`` as seconds since 1970, in local time.

    Raises:
        InputError: it is none.
    """
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise InputError(f"'{text}' is no date", "write it as 2026-03-01") from None
