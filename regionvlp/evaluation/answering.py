"""Open-ended question answering: an answer is right when it is the true one, letter by letter.

In: answers. Out: accuracy in percent, over all questions and per type of question.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TypedDict

from regionvlp.errors import InputError


class AnswerAccuracy(TypedDict):
    """``overall`` and ``by_type`` in percent, and the number of questions of each type."""

    overall: float
    by_type: dict[str, float]
    questions: dict[str, int]


def answer_accuracy(predicted: Sequence[str], true: Sequence[str], types: Sequence[str]) -> AnswerAccuracy:
    """Scores answers (the metric of MSRVTT-QA, MSVD-QA and TGIF-FrameQA).

    Args:
        predicted: one answer per question.
        true: the right answers. One that the model's vocabulary lacks counts as a question like any other.
        types: of the questions, for example ``what``.

    Raises:
        InputError: there are no questions.
    """
    if not true:
        raise InputError("there are no questions", "check the annotations")
    hits: defaultdict[str, list[bool]] = defaultdict(list)
    for ours, theirs, kind in zip(predicted, true, types, strict=True):
        hits[kind].append(ours == theirs)
    return {
        "overall": 100 * sum(map(sum, hits.values())) / len(true),
        "by_type": {kind: 100 * sum(found) / len(found) for kind, found in hits.items()},
        "questions": {kind: len(found) for kind, found in hits.items()},
    }
