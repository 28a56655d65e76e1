"""Which regions answer which words: what a page draws as heat over a frame.

In: tokens of words and regions in one space. Out: boxes, each for one word.
Shape letters: F frames, R regions, W words, P pieces of a word, D joint width.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from regionvlp.data.text.tokenizer import TextTokenizer
from regionvlp.evaluation.grounding import alignment

STRONGEST = 4  # regions of a frame that are drawn for a word
LEAST = 0.5  # strength below which a region is cold
_WORD = re.compile(r"\w+(?:['\u2019-]\w+)*")


@dataclass(frozen=True)
class HeatBox:
    """A region that answers a word, in pixels of its frame.

    Attributes:
        word: its number. strength: 0 to 1. first: whether it is the strongest of its frame. label: what is said of it.
    """

    word: int
    x: float
    y: float
    width: float
    height: float
    strength: float
    first: bool
    label: str


def words_and_rows(tokenizer: TextTokenizer, sentence: str, length: int) -> tuple[list[str], list[list[int]]]:
    """The W words of a sentence, and for each the rows of its pieces among the tokens that a text tower gives.

    The list of a word that was cut off by the longest ``length`` is empty.
    """
    found = list(_WORD.finditer(sentence))
    # Positions count [CLS], which is not among the tokens.
    rows = [[row - 1 for row in tokenizer.tokens_of(sentence, word.span(), length)] for word in found]
    return [word.group() for word in found], rows


def strengths(
    words: Sequence[NDArray[np.floating]], regions: NDArray[np.floating], mask: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], int]:
    """How strongly each region answers each word, and the word that stands out most.

    Args:
        words: W of [P, D]; a word without pieces answers nothing.
        regions: [F, R, D]. mask: [F, R], True = real.

    Returns:
        [W, F, R], 0 for a word's weakest region of the clip and 1 for its strongest.
    """
    answers, contrast = np.zeros((len(words), *mask.shape)), np.full(len(words), -np.inf)
    for number, pieces in enumerate(words):
        if not len(pieces) or not mask.any():
            continue
        aligned = alignment(pieces, regions)
        low, high = aligned[mask].min(), aligned[mask].max()
        contrast[number] = high - aligned[mask].mean()
        answers[number] = np.where(mask, (aligned - low) / max(high - low, 1e-9), 0)
    return answers, int(np.argmax(contrast)) if len(words) else 0


def heat_boxes(answers: NDArray[np.floating], edges: NDArray[np.floating], labels: Sequence[str]) -> list[HeatBox]:
    """The hot regions of a frame, word by word, the strongest last, which is then drawn on top.

    Args:
        answers: [W, R] of :func:`strengths`. edges: [R, 4], ``x1 y1 x2 y2`` in pixels. labels: R of them.
    """
    found = []
    for word, row in enumerate(answers[:, : len(labels)]):
        order = np.argsort(row, kind="stable")[-STRONGEST:]
        for place in order[row[order] >= LEAST].tolist():
            x1, y1, x2, y2 = (float(side) for side in edges[place])
            first = place == order[-1]
            found.append(HeatBox(word, x1, y1, x2 - x1, y2 - y1, float(row[place]), first, labels[place]))
    return found
