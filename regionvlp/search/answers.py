"""What a search gives back: moments, the words that they answer with their boxes, and whether to believe any of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from regionvlp.search.clips import Clip, Evidence, first_stamp
from regionvlp.search.encoders.base import Floats

MOST_BOXES = 8  # of a word: one a frame
UNLIKELY = 0.5  # probability that any answer exists, below which results are probably none


@dataclass(frozen=True)
class WordBox:
    """A region that answers a word.

    Attributes:
        time: of its frame, seconds from the file's first frame.
        box: ``x1 y1 x2 y2`` in pixels of the frame.
        weight: how much it answers; what that means is the encoder's.
        label: what the detector calls it, where it does.
        score_without, rank_without: of the result without this region; None where that was not worked out.
        matters: whether the result loses rank without it; None where that was not worked out.
        region: its number among the regions of the clip.
    """

    time: float
    box: tuple[float, float, float, float]
    weight: float
    label: str = ""
    score_without: float | None = None
    rank_without: int | None = None
    matters: bool | None = None
    region: int = -1


@dataclass(frozen=True)
class WordAnswer:
    """A word of the query with the regions that answer it, at most one a frame, in the order of time.

    Attributes:
        score_without, rank_without, matters: as of a box, but without all of these boxes at once: what is seen
            throughout a clip hardly hangs on one of them.
    """

    word: str
    boxes: tuple[WordBox, ...]
    score_without: float | None = None
    rank_without: int | None = None
    matters: bool | None = None


@dataclass(frozen=True)
class Copy:
    """Another moment that looks like a result: told with it, not after it."""

    video_id: str
    path: str
    start: float
    end: float


@dataclass(frozen=True)
class Result:
    """An answer.

    Attributes:
        video_id: the file as people name it. path: where it lies; empty where that is not known.
        start, end: seconds from its first frame; equal for a picture.
        score: never rising from one result to the next; comparable within one search only.
        words: the words of the query, each with its boxes.
        shares: what each encoder gave to the score, where there are several.
        copies: see :class:`Copy`.
        clip_id: the clip of the index that ranked best in it.
    """

    video_id: str
    path: str
    start: float
    end: float
    score: float
    words: tuple[WordAnswer, ...] = ()
    shares: dict[str, float] = field(default_factory=dict)
    copies: tuple[Copy, ...] = ()
    clip_id: str = ""


@dataclass(frozen=True)
class Answers:
    """A finished search.

    Attributes:
        query: as asked.
        present: the probability that any answer exists, see :mod:`regionvlp.search.presence`.
        results: best first.
        notes: what else there is to say, a line each.
        certificate: how scores and ranks without a region were worked out, see
            :mod:`regionvlp.search.certificate`; ``none`` where they were not.
    """

    query: str
    present: float
    results: tuple[Result, ...]
    notes: tuple[str, ...] = ()
    certificate: str = "none"

    @property
    def unlikely(self) -> bool:
        """Whether the answers are probably none."""
        return self.present < UNLIKELY

    def to_dict(self) -> dict[str, Any]:
        """The search as JSON values."""
        return asdict(self)


def word_answers(
    words: Sequence[str], weights: Floats | None, evidence: Evidence, clip: Clip
) -> tuple[WordAnswer, ...]:
    """The best region of each frame for each word.

    Args:
        words: W. weights: [W, n], NaN where nothing is known, 0 or less where there is no answer; None for no boxes.
        evidence: the n regions. clip: whose they are.
    """
    if weights is None:
        return tuple(WordAnswer(word, ()) for word in words)
    offset = first_stamp(evidence, clip)
    answers = []
    for word, row in zip(words, weights, strict=True):
        boxes = []
        for frame in np.unique(evidence.frame):
            inside = np.flatnonzero((evidence.frame == frame) & ~np.isnan(row))
            if not len(inside):
                continue
            best = int(inside[np.argmax(row[inside])])
            if row[best] > 0:
                x1, y1, x2, y2 = (round(float(side), 2) for side in evidence.boxes[best])
                time, weight = float(evidence.frame_time[frame] - offset), round(float(row[best]), 4)
                label = evidence.labels[best]
                boxes.append(WordBox(round(time, 3), (x1, y1, x2, y2), weight, label, region=best))
        strongest = sorted(boxes, key=lambda box: -box.weight)[:MOST_BOXES]
        answers.append(WordAnswer(word, tuple(sorted(strongest, key=lambda box: box.time))))
    return tuple(answers)
