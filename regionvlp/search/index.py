"""Opening an index and asking it: :func:`open_index` and :meth:`Index.search`.

In: a folder that ``regionvlp index`` made, a sentence. Out: :class:`~regionvlp.search.answers.Answers`.
Shape letters: N clips that the segments hold, those that were taken out included; Q queries.
"""

from __future__ import annotations

import fnmatch
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
from regionvlp.search.answers import Answers, Copy, Result, presence, word_answers
from regionvlp.search.clips import Clip, Evidence
from regionvlp.search.encoders.base import Encoder, Floats, Query, StoredTokens
from regionvlp.search.encoders.opening import open_again
from regionvlp.search.folder import Contents, IndexManifest, Unread
from regionvlp.search.from_shards import ShardTokens
from regionvlp.search.looking import FRAMES, like_file, look_again
from regionvlp.search.moments import Moment, moments, without_copies
from regionvlp.search.rank import Gallery, Ranked, fused, reranked, top
from regionvlp.search.segment import Segment
from regionvlp.search.words import MOST_WORDS, Words, tokens

DEPTH = 1000  # clips of each encoder that are fused and joined to moments
SAME_MEANING = 0.98  # cosine of copies
RERANKED = 100  # clips that are compared token by token
_ATTEMPTS = 5  # at opening an index that is being written


class Index:
    """An opened index. It stays what it was when it was opened, whatever a writer does meanwhile.

    Args:
        folder: the index.
        encoders: names that stand for encoders that were moved since, see :func:`open_index`.
        device: where checkpoints run.
        from_shards: where no tokens are stored, make them of the shards.

    Attributes:
        manifest, contents: what it is, and what of it counts.
    """

    def __init__(
        self, folder: Path, encoders: Sequence[str] = (), device: str = "cpu", from_shards: bool = False
    ) -> None:
        self.folder, self._given, self._device = folder, tuple(encoders), device
        self.manifest = IndexManifest.read(folder)
        self._shards = ShardTokens(folder, self.manifest) if from_shards else None
        self.contents, self._segments = _opened(folder, self.manifest)
        self._starts = np.cumsum([0, *(segment.rows for segment in self._segments)])
        self.live = np.ones(int(self._starts[-1]), np.bool_)
        for segment, start in zip(self._segments, self._starts, strict=False):
            self.live[start + np.array(self.contents.dropped.get(segment.name, []), np.int64)] = False
        self._words = Words(folder)

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
        opened = [open_again(record, self._given, self._device) for record in self.manifest.encoders]
        if self._shards is not None and not any(encoder.has_tokens for encoder in opened):
            names = ", ".join(encoder.name for encoder in opened)
            raise InputError(
                f"there is nothing to make of the shards: {names} compares no tokens", "leave --from-shards out"
            )
        return opened

    @cached_property
    def clips(self) -> pa.Table:
        """The table of all clips, see ``segment``; rows are numbered through, those taken out included."""
        return pa.concat_tables([segment.clips for segment in self._segments])

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {clip_id: row for row, clip_id in enumerate(self.clips.column("clip_id").to_pylist()) if self.live[row]}

    @cached_property
    def _galleries(self) -> dict[int, Gallery]:
        return {
            k: Gallery([segment.array(f"pooled-{k}.npy") for segment in self._segments])
            for k, record in enumerate(self.manifest.encoders)
            if record.width
        }

    def search(
        self,
        query: str = "",
        top: int = 10,
        *,
        like: str | None = None,
        folder: str | None = None,
        after: float | None = None,
        rerank: bool = True,
        fine: bool = False,
    ) -> Answers:
        """The moments that answer a sentence.

        Args:
            query: the sentence. Not needed with ``like``.
            top: the most results.
            like: a moment to find others like: ``clip.mp4@12s``, or ``photo.jpg``; of the index, or any file where an
                encoder of the index looks at frames.
            folder: only files below it, or whose id fits it as a pattern (``*.jpg``).
            after: only files that changed after that moment, seconds since 1970.
            rerank: compare the first hundred token by token, where there are tokens.
            fine: look at the frames of the results again, for boxes on a finer grid; a second or two each on a CPU.

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
        allowed = self._allowed(folder, after)
        queries = self._like(like) if like is not None else [e.encode_queries([query])[0] for e in self.encoders]
        if query.strip() and like is not None:
            raise InputError("a query and 'like' were given", "give one of them")
        first = RERANKED if rerank else 0
        notes += [note for query in queries for note in query.notes]
        # Of a picture from elsewhere, encoders that do not look know nothing.
        asked = [k for k, one in enumerate(queries) if one.text or one.pooled is not None] or list(range(len(queries)))
        rankings = [self._ranked(k, queries[k], max(DEPTH, top), allowed, first) for k in asked]
        ranking, shares = fused(rankings) if len(rankings) > 1 else (rankings[0], [])
        if like is not None and (row := self._row_or_none(like)) is not None:
            ranking = _without(ranking, {row})
        found = self._moments(ranking, top)
        best = [float(one.scores[0]) if len(one) else 0.0 for one in rankings]
        present = self._present(best) if like is None else 1.0
        if self._made_again(first):
            notes.append(
                f"the first {RERANKED} were read from the shards and encoded again: 'index --tokens' saves that"
            )
        notes += _about(query)
        if not int(allowed.sum()):
            notes.append("no clip fits the filters")
        names = [self.manifest.encoders[k].name for k in asked]
        looked = self._looked_at(found, notes) if fine else {}
        results = tuple(self._result(moment, queries, shares, names, looked.get(moment.row)) for moment in found)
        return Answers(query or f"like {like}", present, results, tuple(notes))

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
                self._ranked(k, mine[q], max(len(self), 1), self.live, rerank) for k, mine in enumerate(encoded)
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

    def _allowed(self, folder: str | None, after: float | None) -> NDArray[np.bool_]:
        allowed = self.live.copy()
        if folder is not None:
            ids = self.clips.column("video_id")
            below = folder.replace(os.sep, "/").strip("/")
            if any(sign in below for sign in "*?["):
                names = pc.unique(ids).to_pylist()
                fitting = pa.array([name for name in names if fnmatch.fnmatchcase(name, below)], pa.string())
                allowed &= pc.is_in(ids, value_set=fitting).to_numpy(zero_copy_only=False)
            else:
                fits = pc.or_(pc.starts_with(ids, below + "/"), pc.equal(ids, below))
                allowed &= fits.to_numpy(zero_copy_only=False)
        if after is not None:
            paths = self.clips.column("path")
            late = pa.array([path for path in pc.unique(paths).to_pylist() if _changed(path) > after], pa.string())
            allowed &= pc.is_in(paths, value_set=late).to_numpy(zero_copy_only=False)
        return allowed

    def _ranked(self, k: int, query: Query, depth: int, allowed: NDArray[np.bool_], first: int) -> Ranked:
        """The best clips for encoder ``k``, the first of them compared token by token."""
        record = self.manifest.encoders[k]
        if not record.width:
            return self._matched(query, depth, allowed)
        assert query.pooled is not None, f"{record.name} gave a query without a vector"
        ranked = self._galleries[k].best(query.pooled, depth, allowed)
        if not (first and query.about and len(ranked)):
            return ranked
        rows = ranked.rows[:first]
        stored = self._tokens(k, rows.tolist())
        if stored is None:
            return ranked
        tokens, mask = ([getattr(one, name) for one in stored] for name in ("tokens", "mask"))
        pooled = self._galleries[k].vectors(rows)
        known = cast_features(np.stack(tokens), np.float32)
        scores = self.encoders[k].token_scores(query, known, np.stack(mask), pooled)
        return reranked(ranked, scores)

    def _tokens(self, k: int, rows: Sequence[int]) -> list[StoredTokens] | None:
        """The tokens of encoder ``k`` of some rows; None where there are none."""
        if self.manifest.encoders[k].tokens:
            places = map(self._place, rows)
            return [tokens for segment, row in places if (tokens := segment.tokens(k, row)) is not None]
        if self._shards is None or not self.encoders[k].has_tokens:
            return None
        return self._shards.of(self.encoders[k], [self.clip(row) for row in rows])

    def _made_again(self, first: int) -> bool:
        """Whether any encoder's tokens were made anew for a search."""
        pairs = zip(self.encoders, self.manifest.encoders, strict=True)
        return bool(first) and self._shards is not None and any(e.has_tokens and not r.tokens for e, r in pairs)

    def _matched(self, query: Query, depth: int, allowed: NDArray[np.bool_]) -> Ranked:
        """The clips that hold words of the query; behind them, all others with a score of 0."""
        scores = np.zeros(len(allowed), np.float32)
        for clip_id, score in self._words.match(query.text).items():
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
                self._galleries[k].vectors(np.array([row]))[0] if record.width else None,
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

    def _moments(self, ranking: Ranked, wanted: int) -> list[Moment]:
        worst = float(ranking.scores[-1]) if len(ranking) else 0.0
        listed = (
            (int(row), float(score), self.clip(int(row))) for row, score in zip(*vars(ranking).values(), strict=True)
        )
        return without_copies(moments(listed, worst), self._look, self._alike, wanted)

    def _look(self, row: int) -> int:
        segment, inside = self._place(row)
        return segment.look(inside)

    def _alike(self, one: int, other: int) -> bool:
        """Whether two clips mean the same: to every encoder with vectors, or else by the names of what they show."""
        rows = np.array([one, other])
        pairs = [gallery.vectors(rows) for gallery in self._galleries.values()]
        if pairs:
            return all(float(first @ second) >= SAME_MEANING for first, second in pairs)
        labels = [set(segment.evidence(inside).labels) for segment, inside in (self._place(one), self._place(other))]
        return labels[0] == labels[1]

    def _present(self, best: Sequence[float]) -> float:
        null = self.contents.null
        if len(null) != len(best):  # the indexing never ended
            return 0.5
        return float(np.mean([presence(score, known) for score, known in zip(best, null, strict=True)]))

    def _result(
        self,
        moment: Moment,
        queries: Sequence[Query],
        shares: Sequence[dict[int, float]],
        names: Sequence[str],
        looked: tuple[int, Evidence, StoredTokens] | None = None,
    ) -> Result:
        segment, inside = self._place(moment.row)
        clip, evidence = segment.clip(inside), segment.evidence(inside)
        words: Sequence[str] = ()
        weights: Floats | None = None
        for k, query in enumerate(queries) if looked is None else [(looked[0], queries[looked[0]])]:
            words = words or query.words
            if not query.words:
                continue
            if looked is None:
                found = self._tokens(k, [moment.row])
                stored = found[0] if found else None
            else:
                _, evidence, stored = looked
            weights = self.encoders[k].word_weights(query, evidence, stored)
            if weights is not None and (np.nan_to_num(weights) > 0).any():
                words = query.words
                break
        copies = [(copy, self.clip(copy.row)) for copy in moment.copies]
        return Result(
            video_id=clip.video_id,
            path=clip.path,
            start=round(moment.start, 3),
            end=round(moment.end, 3),
            score=moment.score,
            words=word_answers(words, weights, evidence),
            shares={name: round(share.get(moment.row, 0.0), 6) for name, share in zip(names, shares, strict=False)},
            copies=tuple(Copy(c.video_id, c.path, round(m.start, 3), round(m.end, 3)) for m, c in copies),
            clip_id=clip.clip_id,
        )


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


def _changed(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return float("-inf")


def parse_moment(text: str) -> float:
    """A day or moment such as ``2026-03-01`` or ``2026-03-01T12:00`` as seconds since 1970, in local time.

    Raises:
        InputError: it is none.
    """
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise InputError(f"'{text}' is no date", "write it as 2026-03-01") from None
