"""From the moments that a search found to results: with their words, the boxes that answer them, and certificates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from regionvlp.search.answers import Copy, Result, word_answers
from regionvlp.search.certificate import Asked, Certifier, How
from regionvlp.search.clips import Evidence
from regionvlp.search.encoders.base import Floats, StoredTokens
from regionvlp.search.moments import Moment
from regionvlp.search.rank import Ranked

if TYPE_CHECKING:
    from regionvlp.search.index import Index

Looked = tuple[int, Evidence, StoredTokens]  # which encoder looked again, at what, and what it saw


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        asked: by encoder that was asked. coarse: the ranking of each by vectors or words alone.
        shares: by encoder, what it gave to the score of each row, where there are several.
        every: all moments, best first. told: those to tell, copies folded into them.
    """

    asked: Sequence[Asked]
    coarse: Sequence[Ranked]
    shares: Sequence[Mapping[int, float]]
    every: Sequence[Moment]
    told: Sequence[Moment]

    def certifier(self, index: Index, how: How) -> Certifier:
        """What works out certificates of this search; a copy that is folded into a result is no rival of any."""
        folded = {id(copy) for moment in self.told for copy in moment.copies}
        return Certifier(index, self.asked, [one for one in self.every if id(one) not in folded], how)


def results_of(index: Index, found: Found, looked: Mapping[int, Looked], how: How) -> tuple[Result, ...]:
    """What is told of a search.

    Args:
        index: that was searched. found: what was found.
        looked: by row, what was looked at again; such boxes are no part of any score, and get no certificate.
        how: the kind of certificate.
    """
    certifier = found.certifier(index, how)
    names = [index.manifest.encoders[one.k].name for one in found.asked]
    results = []
    for rank, moment in enumerate(found.told, start=1):
        shares = {name: round(of.get(moment.row, 0.0), 6) for name, of in zip(names, found.shares, strict=False)}
        result = result_of(index, moment, found.asked, shares, looked.get(moment.row))
        results.append(result if moment.row in looked else certifier.certified(result, moment.row, rank))
    return tuple(results)


def result_of(
    index: Index, moment: Moment, asked: Sequence[Asked], shares: dict[str, float], looked: Looked | None = None
) -> Result:
    """A moment with the boxes that answer the words, without a certificate."""
    clip, evidence = index.clip(moment.row), index.evidence(moment.row)
    words: Sequence[str] = ()
    weights: Floats | None = None
    for one in asked if looked is None else [one for one in asked if one.k == looked[0]]:
        words = words or one.query.words
        if not one.query.words:
            continue
        if looked is None:
            known = index.tokens(one.k, [moment.row])
            stored = known[0] if known else None
        else:
            _, evidence, stored = looked
        weights = one.encoder.word_weights(one.query, evidence, stored)
        if weights is not None and (np.nan_to_num(weights) > 0).any():
            words = one.query.words
            break
    copies = [(copy, index.clip(copy.row)) for copy in moment.copies]
    return Result(
        video_id=clip.video_id,
        path=clip.path,
        start=round(moment.start, 3),
        end=round(moment.end, 3),
        score=moment.score,
        words=word_answers(words, weights, evidence, clip),
        shares=shares,
        copies=tuple(Copy(c.video_id, c.path, round(m.start, 3), round(m.end, 3)) for m, c in copies),
        clip_id=clip.clip_id,
    )
