"""What certificates are worth: whether a result hangs on the boxes that are shown for it more than on any others.

In: an index, captions. Out: how often the first result of a query loses its rank without its first boxes, without as
many random regions of the same clip; and how far ``held`` agrees with ``reencode``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regionvlp.errors import InputError
from regionvlp.search.index import Index
from regionvlp.search.results import result_of

STEPS = (1, 2, 4, 8, 16)  # regions that are taken away at once
RANDOM = 4  # random regions, or sets of them, that one query is compared with
MOST = 200  # queries; more say little more
Without = list[tuple[float, int] | None]


def deletion(index: Index, sentences: Sequence[str], exact: bool = True, seed: int = 0) -> dict[str, Any]:
    """Takes regions away from the first result of each query.

    Args:
        index: opened. sentences: queries; of more than 200, some are drawn.
        exact: encode clips again as well. seed: of what is drawn.

    Returns:
        ``queries``, that have any box; ``curve``: for each number of ``regions`` how many ``queries`` have so many
        boxes, and the shares (percent) that lose their rank without the ``shown`` and without ``random`` ones;
        ``agreement``: the rank correlation (Spearman's) of what ``held`` and ``reencode`` take from the scores, over
        all that was taken away, and ``same_rank``: in how many of 100 both say whether the rank is lost; None unless
        ``exact``.

    Raises:
        InputError: no query finds a box, or what clips were made of is gone.
    """
    rng = np.random.default_rng(seed)
    chosen = [sentences[i] for i in sorted(rng.permutation(len(sentences))[:MOST])]
    rows: list[tuple[int, int, bool, bool]] = []  # regions, query, shown, lost
    pairs: list[tuple[float, float, bool, bool]] = []  # how far it falls, whether it is lost: held, exact
    for number, sentence in enumerate(chosen):
        asked = [encoder.encode_queries([sentence])[0] for encoder in index.encoders]
        found = index.find(asked, 1)
        if not found.told:
            continue
        moment = found.told[0]
        boxes = _in_order(result_of(index, moment, found.asked, {}))
        drops = list(_drops(boxes, len(index.evidence(moment.row).labels), rng))
        sets = [drop for _, _, drop in drops]
        held = found.certifier(index, "held").without(moment.row, sets)
        rows += [(n, number, shown, _lost(one)) for (n, shown, _), one in zip(drops, held, strict=True) if one]
        if exact and sets:
            again = found.certifier(index, "reencode").without(moment.row, sets)
            pairs += _pairs(moment.score, held, again)
    if not rows:
        raise InputError("no query finds a box", "index with tokens, or with an encoder of labels")
    table = np.array(rows)
    return {
        "queries": len(np.unique(table[:, 1])),
        "curve": [_step(table[table[:, 0] == n]) for n in STEPS if (table[:, 0] == n).any()],
        "agreement": _agreement(np.array(pairs)) if pairs else None,
    }


def _in_order(result: Any) -> list[int]:
    """The regions shown for a result: word by word, the one that answers most first."""
    regions = [box.region for word in result.words for box in sorted(word.boxes, key=lambda box: -box.weight)]
    return list(dict.fromkeys(regions))


def _drops(boxes: Sequence[int], count: int, rng: np.random.Generator) -> Any:
    """Number of regions, whether they are those shown, and which: the shown ones, and random ones, for each step."""
    for n in STEPS:
        if n <= len(boxes):
            yield n, True, set(boxes[:n])
            for _ in range(RANDOM):
                yield n, False, set(rng.choice(count, n, replace=False).tolist())


def _lost(found: tuple[float, int] | None) -> bool:
    return found is not None and found[1] > 1


def _pairs(score: float, held: Without, again: Without) -> list[tuple[float, float, bool, bool]]:
    both = [(one, other) for one, other in zip(held, again, strict=True) if one and other]
    return [(score - one[0], score - other[0], _lost(one), _lost(other)) for one, other in both]


def _step(table: NDArray[np.int64]) -> dict[str, Any]:
    shown = table[:, 2] == 1
    return {
        "regions": int(table[0, 0]),
        "queries": int(shown.sum()),
        "shown": 100 * float(table[shown, 3].mean()),
        "random": 100 * float(table[~shown, 3].mean()),
    }


def _agreement(pairs: NDArray[np.float64]) -> dict[str, float]:
    return {
        "deletions": len(pairs),
        "correlation": correlation(pairs[:, 0], pairs[:, 1]),
        "same_rank": 100 * float((pairs[:, 2] == pairs[:, 3]).mean()),
    }


def correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Spearman's rank correlation, ties by their mean ranks; NaN where either is constant."""
    ranks = []
    for values in (one, other):
        _, inverse, counts = np.unique(np.round(values, 6), return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(counts) - (counts - 1) / 2)[inverse])
    if min(np.ptp(rank) for rank in ranks) == 0:
        return float("nan")
    return float(np.asarray(np.corrcoef(np.stack(ranks)))[0, 1])
