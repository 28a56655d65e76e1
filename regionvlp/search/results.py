"""From the moments that a search found to results: with their words, the boxes that answer them, and certificates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from regionvlp.search.answers import Copy, Result, word_answers
from regionvlp.search.certificate import Asked, Certifier, How
from regionvlp.search.clips import Evidence
from regionvlp.search.encoders.base import Floats, StoredTokens
from regionvlp.search.moments import Moment

if TYPE_CHECKING:
    from regionvlp.search.index import Index

Looked = tuple[int, Evidence, StoredTokens]  # which encoder looked again, at what, and what it saw


def results_of(
    index: Index,
    asked: Sequence[Asked],
    found: Sequence[Moment],
    every: Sequence[Moment],
    shares: Sequence[Mapping[int, float]],
    looked: Mapping[int, Looked],
    how: How,
) -> tuple[Result, ...]:
    """What is told of a search.

    Args:
        index: that was searched. asked: by encoder. found: the moments to tell, best first. every: all moments.
        shares: by encoder, what it gave to the score of each row, where there are several.
        looked: by row, what was looked at again; such boxes are no part of any score, and get no certificate.
        how: the kind of certificate.
    """
    folded = {id(copy) for moment in found for copy in moment.copies}
    certifier = Certifier(index, asked, [moment for moment in every if id(moment) not in folded], how)
    names = [index.manifest.encoders[one.k].name for one in asked]
    told = []
    for rank, moment in enumerate(found, start=1):
        given = {name: round(share.get(moment.row, 0.0), 6) for name, share in zip(names, shares, strict=False)}
        result = _result(index, moment, asked, given, looked.get(moment.row))
        told.append(result if moment.row in looked else certifier.certified(result, moment.row, rank))
    return tuple(told)


def _result(
    index: Index, moment: Moment, asked: Sequence[Asked], shares: dict[str, float], looked: Looked | None
) -> Result:
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
