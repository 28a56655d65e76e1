"""Not there: the probability that anything in an index answers a query.

In: an index, queries. Out: a probability for each query, and what it takes to work that out (:class:`Judge`).

A best score says little: some sentences are near to everything, and a gallery of beaches answers every sentence about
water. Three things are looked at (:class:`Standing`): how high the best clip scores beside what sentences about other
things reach at best in this gallery; how far it stands out from the other clips of this query; and how far it is ahead
of the next file. What they are worth is learnt by each encoder from each gallery itself, without a caption: sentences
about other things are turned towards a clip by a random amount, and asked once with the clip's file and once without.
A logistic regression tells the two apart; so a probability is that of an answer where one query in two has one.

Shape letters: N clips of an index, S clips of a sample, D width, n queries.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from regionvlp.search.encoders.base import Encoder, Floats, Query, unit
from regionvlp.search.rank import Gallery, Ranked, top
from regionvlp.search.words import Words, tokens

SAMPLE = 2000  # clips that stand for all where a query's own mean and spread are measured
REHEARSALS = 512  # queries that are made up, each asked twice
# Of what people say of a clip an encoder may see nothing, and a detector name some of it in other clips alone. How
# often, no gallery tells: these were chosen on 36 photos and 19 clips; 0.2 to 0.35 are about as good.
BLIND = 0.3
MISSED = 0.25
FEWEST = 8  # files, to learn from; of fewer, DEFAULT is taken
# Bias, height, contrast, lead: about what is learnt from photos and from the demo's world.
DEFAULT = (-1.5, 0.5, 0.3, 0.5)
DEPTH = 100  # clips of a ranking in which the best of another file is looked for
RIDGE = 1.0
_ITERATIONS = 50
Bools = NDArray[np.bool_]
Files = NDArray[np.int64]


@dataclass(frozen=True)
class Standing:
    """How the best clip of a query stands, in the units of the encoder's scores.

    Attributes:
        best: its score.
        contrast: how far it stands out: of vectors, in standard deviations above the mean of all clips; of words, the
            share that it holds of what the query's words score at best, each for itself.
        lead: by how much it is ahead of the best clip of another file; 0 where there is none.
    """

    best: float
    contrast: float
    lead: float


@dataclass(frozen=True)
class Judge:
    """What an encoder's standings are worth in one gallery.

    Attributes:
        mean, spread: of the best scores of sentences about other things.
        weights: bias, and weights of height, contrast and lead; height and lead are in units of ``spread``.
    """

    mean: float
    spread: float
    weights: tuple[float, ...]

    def features(self, standing: Standing) -> list[float]:
        """Height, contrast and lead."""
        return [(standing.best - self.mean) / self.spread, standing.contrast, standing.lead / self.spread]

    def logit(self, standing: Standing) -> float:
        """The logarithm of the odds that anything answers."""
        return float(self.weights[0] + np.dot(self.weights[1:], self.features(standing)))


def probability(logits: ArrayLike) -> float:
    """What several encoders say together, between 0 and 1: the mean of their logits, since they see the same clips."""
    return float(1 / (1 + np.exp(-np.clip(np.mean(np.asarray(logits)), -30, 30))))


class Crowd(Protocol):
    """All clips of an index as one encoder sees them."""

    def standing(self, query: Query, allowed: Bools, ranked: Ranked | None = None) -> Standing:
        """How the best of the allowed clips [N] stands; ``ranked``, where the ranking of their scores is at hand."""

    def rehearse(self, others: Sequence[Query], count: int, rng: np.random.Generator) -> Iterator[tuple[Query, int]]:
        """Made-up queries, each with the row of the clip that it was turned to."""


class VectorCrowd:
    """A crowd of vectors.

    Args:
        gallery: N vectors. files: [N], the number of each clip's file. live: [N], which clips count.
    """

    def __init__(self, gallery: Gallery, files: Files, live: Bools) -> None:
        self._gallery, self._files = gallery, files
        rows = np.flatnonzero(live)
        self._rows = rows[np.linspace(0, len(rows) - 1, min(SAMPLE, len(rows))).astype(np.int64)]

    @functools.cached_property
    def _sample(self) -> Floats:
        return self._gallery.vectors(self._rows)

    def standing(self, query: Query, allowed: Bools, ranked: Ranked | None = None) -> Standing:
        assert query.pooled is not None
        ranked = self._gallery.best(query.pooled, DEPTH, allowed) if ranked is None else ranked
        scores = self._sample[allowed[self._rows]] @ query.pooled
        if not len(ranked):
            return Standing(0.0, 0.0, 0.0)
        spread = float(scores.std()) if len(scores) else 0.0
        best = float(ranked.scores[0])
        contrast = (best - float(scores.mean())) / spread if spread > 1e-6 else 0.0
        return Standing(best, contrast, _lead(ranked, self._files))

    def rehearse(self, others: Sequence[Query], count: int, rng: np.random.Generator) -> Iterator[tuple[Query, int]]:
        """A sentence's vector, and up to as much of how the clip differs from the mean of all."""
        mean = self._sample.mean(0)
        for row in rng.choice(self._rows, count):
            other = others[int(rng.integers(len(others)))].pooled
            toward = unit(self._gallery.vectors(np.array([row]))[0] - mean)
            assert other is not None
            yield Query("", unit(other + _share(rng) * toward)), int(row)


class WordCrowd:
    """A crowd of labels.

    Args:
        words: the table. clip_ids: of the N rows. files: [N], the number of each clip's file. live: [N].
    """

    def __init__(self, words: Words, clip_ids: Sequence[str], files: Files, live: Bools) -> None:
        self._words, self._clip_ids, self._files, self._live = words, clip_ids, files, live
        self._row_of = {clip_id: row for row, clip_id in enumerate(clip_ids) if live[row]}
        self._postings = functools.lru_cache(maxsize=256)(self._posting)

    def standing(self, query: Query, allowed: Bools, ranked: Ranked | None = None) -> Standing:
        total, most = np.zeros(len(self._files), np.float32), 0.0
        for word in dict.fromkeys(tokens(query.text)):
            rows, scores = self._postings(word)
            total[rows] += scores
            most += float(scores[allowed[rows]].max(initial=0.0))
        rows = np.flatnonzero(allowed)
        ranked = top(rows, total[rows], DEPTH)
        if not len(ranked):
            return Standing(0.0, 0.0, 0.0)
        best = float(ranked.scores[0])
        return Standing(best, best / most if most > 0 else 0.0, 0.0)

    def rehearse(self, others: Sequence[Query], count: int, rng: np.random.Generator) -> Iterator[tuple[Query, int]]:
        """A sentence, a share of the words that the clip's labels have, and some that only others have."""
        chosen = rng.choice(np.flatnonzero(self._live), count)
        texts = self._words.texts([self._clip_ids[row] for row in chosen])
        held = {int(row): list(dict.fromkeys(tokens(texts.get(self._clip_ids[row], "")))) for row in chosen}
        for row in chosen:
            share = _share(rng)
            kept = [word for word in held[int(row)] if rng.uniform() < share]
            other = others[int(rng.integers(len(others)))].text
            elsewhere = held[int(rng.choice(chosen))]
            kept += [word for word in elsewhere if rng.uniform() < MISSED * (1 - share)]
            yield Query(" ".join([other, *kept]), None), int(row)

    def _posting(self, word: str) -> tuple[NDArray[np.int64], Floats]:
        """The rows that hold a word, and what it gives to the score of each; scores of several words add up."""
        found = {self._row_of[clip]: score for clip, score in self._words.match(word).items() if clip in self._row_of}
        return np.fromiter(found, np.int64, len(found)), np.fromiter(found.values(), np.float32, len(found))


def _share(rng: np.random.Generator) -> float:
    """How much of a clip a made-up query has: nothing where an encoder is blind to what people would say."""
    return 0.0 if rng.uniform() < BLIND else float(rng.uniform())


def _lead(ranked: Ranked, files: Files) -> float:
    """By how much the first is ahead of the first of another file; of the last, where there is no other."""
    other = np.flatnonzero(files[ranked.rows] != files[ranked.rows[0]])
    return float(ranked.scores[0] - ranked.scores[other[0]]) if len(other) else 0.0


class Jury:
    """The judges of all encoders of an index.

    Args:
        crowds: what each encoder sees. files: [N], the number of each clip's file. live: [N], which clips count.
    """

    def __init__(self, crowds: Sequence[Crowd], files: Files, live: Bools) -> None:
        self.crowds, self.files, self.live = crowds, files, live
        self._narrow: tuple[bytes, tuple[Judge, ...]] = b"", ()

    def learn(self, encoders: Sequence[Encoder]) -> tuple[Judge, ...]:
        """A judge for each encoder."""
        pairs = zip(self.crowds, encoders, strict=True)
        return tuple(judge(crowd, encoder, self.files, self.live) for crowd, encoder in pairs)

    def narrowed(self, judges: Sequence[Judge], encoders: Sequence[Encoder], allowed: Bools) -> Sequence[Judge]:
        """The judges of a search in some of the clips [N] alone: the best of few clips scores less by chance."""
        if int(allowed.sum()) * 2 >= int(self.live.sum()) or not allowed.any():
            return judges
        if self._narrow[0] != allowed.tobytes():
            nulls = [
                null(crowd, encoder.encode_queries(unrelated_sentences(), words=False), allowed)
                for crowd, encoder in zip(self.crowds, encoders, strict=True)
            ]
            found = tuple(Judge(*known, one.weights) for known, one in zip(nulls, judges, strict=True))
            self._narrow = allowed.tobytes(), found
        return self._narrow[1]


def judge(crowd: Crowd, encoder: Encoder, files: Files, live: Bools) -> Judge:
    """Learns what standings are worth.

    Args:
        crowd: all clips as ``encoder`` sees them. files: [N], the number of each clip's file. live: [N], which count.
    """
    others = encoder.encode_queries(unrelated_sentences(), words=False)
    mean, spread = null(crowd, others, live)
    plain = Judge(mean, spread, DEFAULT)
    if len(np.unique(files[live])) < FEWEST:
        return plain
    rng = np.random.default_rng(0)
    features, there = [], []
    for query, row in crowd.rehearse(others, REHEARSALS, rng):
        for allowed in (live, live & (files != files[row])):
            features.append(plain.features(crowd.standing(query, allowed)))
            there.append(allowed is live)
    return Judge(mean, spread, logistic(np.array(features), np.array(there)))


def null(crowd: Crowd, others: Sequence[Query], allowed: Bools) -> tuple[float, float]:
    """Mean and spread of the best scores of sentences about other things among the allowed clips [N]."""
    best = [crowd.standing(query, allowed).best for query in others]
    return float(np.mean(best)), max(float(np.std(best)), 1e-3)


def logistic(features: NDArray[np.float64], true: Bools) -> tuple[float, ...]:
    """Bias and weights of a logistic regression, by Newton's method; weights are held small in standard units.

    Args:
        features: [n, k]. true: [n].
    """
    mean, spread = features.mean(0), features.std(0)
    known = spread > 1e-9  # what never changes has no weight
    scaled = (features - mean)[:, known] / spread[known]
    columns = np.concatenate([np.ones((len(scaled), 1)), scaled], axis=1)
    penalty = RIDGE * np.diag([1e-6] + [1.0] * scaled.shape[1])
    found = np.zeros(columns.shape[1])
    for _ in range(_ITERATIONS):
        chance = 1 / (1 + np.exp(-np.clip(columns @ found, -30, 30)))
        slope = columns.T @ (chance - true) + penalty @ found
        step = np.linalg.solve((columns * (chance * (1 - chance))[:, None]).T @ columns + penalty, slope)
        found = found - step
        if np.abs(step).max() < 1e-9:
            break
    weights = np.zeros(features.shape[1])
    weights[known] = found[1:] / spread[known]
    return (float(found[0] - weights @ mean), *map(float, weights))


@functools.cache
def unrelated_sentences() -> tuple[str, ...]:
    """Sentences such as people write of their videos, of which one collection shows few."""
    text = (resources.files("regionvlp.search") / "unrelated.txt").read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line)


Crowds = Callable[[int], Crowd]
