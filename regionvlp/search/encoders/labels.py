"""Encoders of what a detector said it saw: its labels as words, or as a sentence.

``labels`` matches words (BM25, in :mod:`regionvlp.search.words`). ``labels:FOLDER_OR_NAME`` joins the labels of a clip
into a sentence, the surest first, and has a sentence encoder compare it with the query: on photos a sentence found more
than half as much again at rank 1 as words did. What a clip shows is as much the mean of its labels' own vectors as that
of the sentence, which the order of the labels sways. Either encoder says which region answers a word: the one whose
label is nearest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regionvlp.search.clips import ATTRIBUTE_SCORE, ClipInput, Evidence, names
from regionvlp.search.encoders.base import EncodedClips, Floats, Query, StoredTokens, unit, words_of
from regionvlp.search.encoders.sentences import SentenceEncoder
from regionvlp.search.words import stem, tokens

# Chosen on 36 photos and 19 clips with CenterNet's and SSD's labels, in the middle of a plateau: least scores of 0.1 to
# 0.2 and 5 to 12 labels were compared. The sentence alone finds 2 (photos) to 6 (clips) in a hundred fewer at rank 1.
LABEL_SCORE = 0.15  # of a region, for its label to describe a clip
MOST_LABELS = 8  # of a clip, in its sentence
NOTHING = "nothing"  # the sentence of a clip in which nothing was recognised
# Of two regions whose labels are about as near to a word, the surer one is meant.
_SURENESS = 0.15
KEPT_LABELS = 20_000  # whose vectors are kept


def described(evidence: Evidence) -> dict[str, float]:
    """The labels that describe a clip with their weights, the surest first; never none."""
    return dict(list(names(evidence, LABEL_SCORE).items())[:MOST_LABELS]) or {NOTHING: 1.0}


def document(evidence: Evidence) -> str:
    """The labels of a clip as text to match words in: each once, a line each."""
    return "\n".join(names(evidence, LABEL_SCORE))


class LabelWords:
    """``labels``: the words of labels. The index ranks by BM25 itself; this says what a word points at."""

    name = "labels"
    width = 0
    has_tokens = False
    reads_pictures = False

    def identity(self) -> dict[str, Any]:
        return {"kind": "labels", "least": LABEL_SCORE, "attribute": ATTRIBUTE_SCORE}

    def place(self) -> str:
        return ""

    def encode_clips(self, clips: Sequence[ClipInput]) -> EncodedClips:
        return EncodedClips(pooled=None)

    def encode_queries(self, texts: Sequence[str], words: bool = True) -> list[Query]:
        return [Query(text, None, words_of(text) if words else ()) for text in texts]

    def token_scores(self, query: Query, tokens: Floats, mask: NDArray[np.bool_], pooled: Floats) -> Floats:
        raise AssertionError("labels have no tokens")

    def word_weights(self, query: Query, evidence: Evidence, stored: StoredTokens | None) -> Floats | None:
        """The score of each region whose label holds the word, 0 for the others."""
        in_label = [{stem(token) for token in tokens(label)} for label in evidence.labels]
        rows = [
            [
                score if stem(word.lower()) in held else 0.0
                for held, score in zip(in_label, evidence.scores, strict=True)
            ]
            for word in query.words
        ]
        return np.array(rows, np.float32).reshape(len(query.words), len(evidence.labels))


class LabelSentences:
    """``labels:FOLDER_OR_NAME``: labels joined to a sentence, compared by a sentence encoder.

    Args:
        sentences: the encoder.
        name: as the user named it.
    """

    has_tokens = False
    reads_pictures = False

    def __init__(self, sentences: SentenceEncoder, name: str) -> None:
        self.name, self.width, self._sentences = name, sentences.width, sentences
        self._labels: dict[str, Floats] = {}

    def identity(self) -> dict[str, Any]:
        about = {"kind": "label sentences", "least": LABEL_SCORE, "attribute": ATTRIBUTE_SCORE, "most": MOST_LABELS}
        about |= {"pooled": "sentence + mean of labels"}
        return {**about, **self._sentences.identity()}

    def place(self) -> str:
        return str(self._sentences.folder)

    def encode_clips(self, clips: Sequence[ClipInput]) -> EncodedClips:
        return EncodedClips(self.vectors([clip.evidence for clip in clips]))

    def vectors(self, clips: Sequence[Evidence]) -> Floats:
        """[B, D] of length 1: what B clips are, of which no more than their regions is known."""
        found = [described(clip) for clip in clips]
        return unit(self._sentences.encode([", ".join(shown) for shown in found]) + self._means(found))

    def held(self, pooled: Floats, whole: Evidence, parts: Sequence[Evidence]) -> Floats:
        """[B, D] of length 1: a clip with some of its regions only, its sentence as if they were all there.

        Args:
            pooled: [D] of the clip. whole: all of its regions. parts: B choices of them.
        """
        mean, *means = self._means([described(clip) for clip in (whole, *parts)])
        # The vector halves the angle between sentence and mean, both of length 1: one is the other's reflection.
        pooled = unit(pooled)
        return unit(2 * (pooled @ mean) * pooled - mean + np.array(means).reshape(len(parts), -1))

    def _means(self, found: Sequence[Mapping[str, float]]) -> Floats:
        """[B, D] of length 1: the mean direction of the labels of each clip, by their weights."""
        vectors = self._label_vectors([label for shown in found for label in shown])
        weights = [weight for shown in found for weight in shown.values()]
        ends = np.cumsum([len(shown) for shown in found])
        parts = np.split(vectors * np.array(weights, np.float32)[:, None], ends[:-1])
        return unit(np.stack([part.sum(0) for part in parts]))

    def encode_queries(self, texts: Sequence[str], words: bool = True) -> list[Query]:
        pointing = [words_of(text) if words else [] for text in texts]
        vectors = self._sentences.encode([*texts, *(word for row in pointing for word in row)])
        queries, start = [], len(texts)
        for text, row, pooled in zip(texts, pointing, vectors, strict=False):
            queries.append(Query(text, pooled, row, {"words": vectors[start : start + len(row)]}))
            start += len(row)
        return queries

    def token_scores(self, query: Query, tokens: Floats, mask: NDArray[np.bool_], pooled: Floats) -> Floats:
        raise AssertionError("sentences of labels have no tokens")

    def word_weights(self, query: Query, evidence: Evidence, stored: StoredTokens | None) -> Floats | None:
        """The cosine of word and label, and a little of the region's own score."""
        if not len(query.words) or not any(evidence.labels):
            return None
        labels = self._label_vectors([label or NOTHING for label in evidence.labels])
        weights: Floats = query.about["words"] @ labels.T + _SURENESS * evidence.scores
        weights[:, [not label for label in evidence.labels]] = np.nan
        return weights

    def _label_vectors(self, labels: Sequence[str]) -> Floats:
        """[n, width] float32; detectors say the same few thousand things again and again, so they are kept."""
        new = list(dict.fromkeys(label for label in labels if label not in self._labels))
        if len(self._labels) + len(new) > KEPT_LABELS:
            self._labels, new = {}, list(dict.fromkeys(labels))
        self._labels.update(zip(new, self._sentences.encode(new), strict=True))
        return np.stack([self._labels[label] for label in labels])
