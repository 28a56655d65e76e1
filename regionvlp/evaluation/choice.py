"""Multiple choice: which of a few sentences belongs to the clip (MSR-VTT: 2990 clips, 5 sentences each).

Shape letters: N questions, O options. In: similarities. Out: scores of the options, accuracy in percent.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from regionvlp.errors import InputError


def option_scores(
    global_texts: NDArray[np.floating],
    local_videos: NDArray[np.floating],
    rule: Literal["aligned", "public"] = "aligned",
) -> NDArray[np.floating]:
    """Scores the options of one question; the clip stands there once per option, as public code encodes it.

    Args:
        global_texts: [O, O] global similarity, rows are options, columns copies of the clip.
        local_videos: [O, O] local similarity, rows are copies of the clip, columns options.
        rule: ``aligned`` adds the two for the same option. ``public`` takes the first row of both, in which the
            global similarity is that of the first option throughout, so that it never influences the choice.

    Returns:
        [O], the highest wins.
    """
    scores: NDArray[np.floating] = (global_texts[:, 0] if rule == "aligned" else global_texts[0]) + local_videos[0]
    return scores


def choice_accuracy(scores: NDArray[np.floating], answer: NDArray[np.integer]) -> float:
    """Percentage of questions whose right option scores highest.

    Args:
        scores: [N, O].
        answer: [N], the right option. Where it shares the highest score with m - 1 others, it counts 1/m.

    Raises:
        InputError: there are no questions, or scores hold NaN.
    """
    if not len(scores):
        raise InputError("there are no questions", "check the annotations")
    if np.isnan(scores).any():
        raise InputError("the scores of some options are NaN", "the model has diverged; take another")
    best = scores == scores.max(axis=1, keepdims=True)
    return 100 * float(np.mean(best[np.arange(len(scores)), answer] / best.sum(axis=1)))
