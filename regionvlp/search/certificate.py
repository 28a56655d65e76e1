"""The certificate: what becomes of a result if a region that is given as a reason had never been seen.

In: a search, a clip of a result, sets of its regions. Out: for each set, score and rank that the result would have.

``held`` is cheap: the part of a score that is made of the clip as a whole stays what it is, and only what is made of
regions is worked out again. That is the token term of a model, with the tokens of these regions masked; of words, the
words that no label has any more, at the length that the labels had; of a sentence of labels, the mean of their own
vectors, beside the sentence. ``reencode`` is exact for every encoder, see :mod:`regionvlp.search.reencoding`.

A rank is that among all results of the search, its filters included. The other results stay as they are, those of
windows that overlap with this one's included: they belong to it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from regionvlp.errors import InputError
from regionvlp.regions import cast_features
from regionvlp.search.answers import Result, WordAnswer
from regionvlp.search.clips import Evidence, names
from regionvlp.search.encoders.base import Encoder, Floats, Query, StoredTokens
from regionvlp.search.encoders.labels import LABEL_SCORE, LabelSentences, LabelWords
from regionvlp.search.moments import Moment
from regionvlp.search.rank import RRF, Ranked
from regionvlp.search.words import stem, tokens

if TYPE_CHECKING:
    from regionvlp.search.index import Index

How = Literal["held", "reencode", "none"]
Drops = Sequence[Collection[int]]  # sets of regions, by their numbers in the evidence


@dataclass(frozen=True)
class Asked:
    """A query as one encoder of an index understood it.

    Attributes:
        k: the encoder's number. encoder, query: itself, and the query in its space.
        ranked: its ranking. first: how many of that were compared token by token.
    """

    k: int
    encoder: Encoder
    query: Query
    ranked: Ranked
    first: int


def check_how(how: str) -> How:
    """A kind of certificate.

    Raises:
        InputError: there is no such kind.
    """
    for known in get_args(How):
        if how == known:
            return known  # type: ignore[no-any-return]
    raise InputError(f"there is no certificate '{how}'", f"write one of {', '.join(get_args(How))}")


class Certifier:
    """Works out certificates of one search.

    Args:
        index: that was searched. asked: by encoder. moments: all that were found, those that are folded into others
            left out. how: see the top of this file.
    """

    def __init__(self, index: Index, asked: Sequence[Asked], moments: Sequence[Moment], how: How) -> None:
        self._index, self._asked, self._how = index, asked, how
        self._rows = np.array([moment.row for moment in moments], np.int64)
        self._scores = np.array([moment.score for moment in moments], np.float64)

    def certified(self, result: Result, row: int, rank: int) -> Result:
        """A result whose boxes say what it would be without them.

        Args:
            row: of its clip. rank: of the result, from 1.
        """
        if self._how == "none" or not any(word.boxes for word in result.words):
            return result
        drops = [{box.region} for word in result.words for box in word.boxes]
        drops += [{box.region for box in word.boxes} for word in result.words if word.boxes]
        distinct = list(dict.fromkeys(map(frozenset, drops)))
        found = dict(zip(distinct, self.without(row, distinct), strict=True))

        def word_without(word: WordAnswer) -> WordAnswer:
            boxes = tuple(replace(box, **_fields(found[frozenset({box.region})], rank)) for box in word.boxes)
            whole = found[frozenset(box.region for box in word.boxes)] if boxes else None
            return replace(word, boxes=boxes, **_fields(whole, rank))

        return replace(result, words=tuple(word_without(word) for word in result.words))

    def without(self, row: int, drops: Drops) -> list[tuple[float, int] | None]:
        """Score and rank of a clip without each set of its regions; None where no encoder can tell."""
        evidence = self._index.evidence(row)
        scores = [self._rescored(one, row, evidence, drops) for one in self._asked]
        if all(one is None for one in scores):
            return [None] * len(drops)
        if len(self._asked) > 1:
            parts = [_share(one, row, new, len(self._asked)) for one, new in zip(self._asked, scores, strict=True)]
            total = np.sum([np.broadcast_to(part, len(drops)) for part in parts], axis=0)
        else:
            assert scores[0] is not None
            total = scores[0].astype(np.float64)
        return [(float(score), self._rank(row, float(score))) for score in total]

    def _rescored(self, one: Asked, row: int, evidence: Evidence, drops: Drops) -> Floats | None:
        if self._how == "reencode":
            from regionvlp.search.reencoding import reencoded

            return reencoded(self._index, one, row, evidence, drops)
        return held(self._index, one, row, evidence, drops)

    def _rank(self, row: int, score: float) -> int:
        others = self._rows != row
        if len(self._asked) == 1:
            rows = _rivals(self._asked[0], row)
            others &= np.isin(self._rows, rows)
        scores, rows = self._scores[others], self._rows[others]
        same = np.isclose(scores, score, rtol=0, atol=1e-7)
        return 1 + int(((scores > score) & ~same).sum()) + int((same & (rows < row)).sum())


def held(index: Index, one: Asked, row: int, evidence: Evidence, drops: Drops) -> Floats | None:
    """[len(drops)]: what an encoder's score of a clip becomes without each set of regions.

    None where nothing in its score is made of regions alone.
    """
    score = score_of(one.ranked, row)
    if score is None:
        return None
    if isinstance(one.encoder, LabelWords):
        given = {
            word: index.words.match(word).get(index.clip(row).clip_id, 0.0) for word in set(tokens(one.query.text))
        }
        left = [
            {stem(t) for name in names(evidence.without(drop), LABEL_SCORE) for t in tokens(name)} for drop in drops
        ]
        return np.array([sum(s for word, s in given.items() if stem(word) in words) for words in left], np.float32)
    if isinstance(one.encoder, LabelSentences):
        (pooled,) = index.galleries[one.k].vectors(np.array([row]))
        parts = one.encoder.held(pooled, evidence, [evidence, *(evidence.without(drop) for drop in drops)])
        return changed(score, parts @ np.asarray(one.query.pooled, np.float32))
    stored = index.tokens(one.k, [row]) if row in one.ranked.rows[: one.first] else None
    if not stored:
        return None
    masks = np.stack([_masked(stored[0], evidence, drop) for drop in drops])
    known = cast_features(stored[0].tokens[None], np.float32)
    pooled = index.galleries[one.k].vectors(np.array([row]))
    found = one.encoder.token_scores(
        one.query, np.repeat(known, len(drops), 0), masks, np.repeat(pooled, len(drops), 0)
    )
    return np.where(masks.any(1), found, one.ranked.scores[-1])  # a clip of nothing comes last


def changed(score: float, scores: Floats) -> Floats:
    """A score, changed by what sets the others of ``scores`` apart from the first.

    That is of the whole clip, worked out as the others are; what is stored is in half precision.
    """
    found: Floats = (score + scores[1:] - scores[0]).astype(np.float32)
    return found


def score_of(ranked: Ranked, row: int) -> float | None:
    """The score of a row; None where the ranking does not reach it."""
    place = np.flatnonzero(ranked.rows == row)
    return float(ranked.scores[place[0]]) if len(place) else None


def _masked(stored: StoredTokens, evidence: Evidence, drop: Collection[int]) -> NDArray[np.bool_]:
    """[N]: the mask of the tokens without those of some regions."""
    mask = stored.mask.copy()
    for region in drop:
        mask &= (stored.frames != evidence.frame[region]) | (stored.slots != evidence.slot[region])
    return mask


def _rivals(one: Asked, row: int) -> NDArray[np.int64]:
    """The rows whose scores can be compared with a row's: those that were compared as it was."""
    first = one.ranked.rows[: one.first]
    return first if row in first else one.ranked.rows


def _share(one: Asked, row: int, scores: Floats | None, encoders: int) -> Floats:
    """What an encoder gives to a fused score; see :func:`~regionvlp.search.rank.fused`."""
    if scores is None:
        known = score_of(one.ranked, row)
        if known is None:
            return np.zeros(1, np.float32)
        scores = np.array([known], np.float32)
    rivals = one.ranked.scores[np.isin(one.ranked.rows, _rivals(one, row)) & (one.ranked.rows != row)]
    ranks = 1 + (rivals[None] > scores[:, None]).sum(1) + (rivals[None] == scores[:, None]).sum(1) / 2
    shares: Floats = ((RRF + 1) / (encoders * (RRF + ranks))).astype(np.float32)
    return shares


def _fields(found: tuple[float, int] | None, rank: int) -> dict[str, Any]:
    if found is None:
        return {"score_without": None, "rank_without": None, "matters": None}
    return {"score_without": round(found[0], 6), "rank_without": found[1], "matters": found[1] > rank}
