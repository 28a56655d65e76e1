"""How well an index knows that it has no answer: each query is asked once with its file and once without.

In: an index, captions of its files. Out: for each encoder and for all together, how well the probabilities tell the two
apart, and whether they are what they say.
Shape letters: n queries, asked or not with an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regionvlp.search.evaluate import gallery
from regionvlp.search.index import Index
from regionvlp.search.presence import probability

BINS = 10
_DRAWS = 200  # of answers as the probabilities have it
Floats = NDArray[np.float64]


def absent(index: Index, captions: Sequence[tuple[str, str]], seed: int = 0) -> dict[str, Any]:
    """Asks every caption twice.

    Args:
        index: opened. captions: (video id as the index calls it, sentence) each. seed: of the draws.

    Returns:
        ``queries``, and ``encoders``: by name, and for several ``together``, what :func:`measures` gives.
    """
    ids, column = gallery(index)
    sentences = [caption for _, caption in captions]
    logits = np.zeros((len(index.encoders), 2, len(captions)))
    for k, (encoder, crowd, judge) in enumerate(zip(index.encoders, index.jury.crowds, index.judges, strict=True)):
        for n, query in enumerate(encoder.encode_queries(sentences, words=False)):
            without = index.live & (column != ids[captions[n][0]])
            for asked, allowed in enumerate((without, index.live)):
                logits[k, asked, n] = judge.logit(crowd.standing(query, allowed))
    names = [record.name for record in index.manifest.encoders]
    by_name = dict(zip(names, logits, strict=True))
    found = {name: measures(*_probabilities(rows[None]), seed) for name, rows in by_name.items()}
    if len(names) > 1:
        found["together"] = measures(*_probabilities(logits), seed)
    return {"queries": len(captions), "encoders": found}


def _probabilities(logits: Floats) -> tuple[Floats, Floats]:
    """Without and with an answer, [n] each, of logits [encoders, 2, n]."""
    without, given = (
        np.array([probability(logits[:, asked, n]) for n in range(logits.shape[2])]) for asked in range(2)
    )
    return without, given


def measures(without: Floats, given: Floats, seed: int = 0) -> dict[str, Any]:
    """What probabilities are worth.

    Args:
        without: [n] for queries that have no answer. given: [n] for those that have one. seed: of the draws.

    Returns:
        ``auc``: the share of pairs in which the query with an answer has the higher probability, ties for half.
        ``ece``: expected calibration error (Guo et al., 2017): by how much probability and share of answers differ, on
        average over ten bins. ``ece_by_chance``: what that would be for as many queries if every probability were true.
        ``curve``: for each bin that is not empty ``queries``, their mean ``probability``, and the share ``present``.
    """
    values = np.concatenate([without, given])
    there = np.repeat([0.0, 1.0], [len(without), len(given)])
    rng = np.random.default_rng(seed)
    drawn = [calibration_error(values, (rng.random(len(values)) < values).astype(np.float64)) for _ in range(_DRAWS)]
    return {
        "auc": area(without, given),
        "ece": calibration_error(values, there),
        "ece_by_chance": float(np.mean(drawn)),
        "curve": [
            {
                "queries": int(mine.sum()),
                "probability": float(values[mine].mean()),
                "present": there[mine].mean().item(),
            }
            for mine in _bins(values)
        ],
    }


def area(without: Floats, given: Floats) -> float:
    """The area under the curve of true against false alarms, by ranks."""
    values = np.concatenate([without, given])
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float((ranks[len(without) :].sum() - len(given) * (len(given) + 1) / 2) / (len(without) * len(given)))


def calibration_error(values: Floats, there: Floats) -> float:
    """See :func:`measures`; ``there`` [n] is 1 where there is an answer, 0 elsewhere."""
    return float(sum(mine.mean() * abs(values[mine].mean() - there[mine].mean()) for mine in _bins(values)))


def _bins(values: Floats) -> list[NDArray[np.bool_]]:
    which = np.minimum((values * BINS).astype(int), BINS - 1)
    return [which == number for number in range(BINS) if (which == number).any()]
