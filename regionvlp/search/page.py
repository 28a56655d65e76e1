"""Answers as a page: each moment with its frames, and on them the boxes that answer the words of the query."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from regionvlp.errors import VideoError
from regionvlp.report.page import inline_jpeg, write_page
from regionvlp.report.regions import PALETTE, Box
from regionvlp.search.answers import Answers, Result, WordAnswer, WordBox
from regionvlp.video import read_frames

FRAMES = 3  # of a moment
JUST_THEN = 2e-3  # seconds


@dataclass(frozen=True)
class Drawn(Box):
    """A box; an idle one does not matter for the rank."""

    idle: bool = False


@dataclass(frozen=True)
class Frame:
    """One picture with its boxes and a line under it."""

    picture: str
    caption: str
    boxes: list[Drawn]


@dataclass(frozen=True)
class Answer:
    """One moment of the page."""

    name: str
    facts: str
    reasons: list[str]
    frames: list[Frame]


def write_answers_page(path: Path, answers: Answers) -> None:
    """Draws a finished search. A file that is not there any more is told without pictures."""
    write_page(
        path,
        "found.html.j2",
        title=answers.query,
        about=f"{'Probably not in these videos. ' if answers.unlikely else ''}That anything answers is "
        f"{100 * answers.present:.0f} % likely.",
        folded=answers.unlikely,
        answers=[_answer(result, rank) for rank, result in enumerate(answers.results, start=1)],
    )


def _answer(result: Result, rank: int) -> Answer:
    span = "" if result.end <= result.start else f"{clock(result.start)} to {clock(result.end)}, "
    words = ", ".join(word.word for word in result.words if word.boxes)
    facts = f"{span}score {result.score:.3f}" + (f"; boxes for {words}" if words else "; no boxes")
    reasons = [f"{word.word}: {known}" for word in result.words if (known := without(word, rank))]
    colours = {word.word: PALETTE[i % len(PALETTE)] for i, word in enumerate(result.words)}
    times = sorted({box.time for word in result.words for box in word.boxes}) or [result.start]
    chosen = times[:: max(1, len(times) // FRAMES)][:FRAMES] if result.path else []
    frames = []
    for time in chosen:
        boxes = [(word.word, box) for word in result.words for box in word.boxes if box.time == time]
        try:
            picture = picture_at(Path(result.path), time)
        except VideoError:
            continue
        drawn = [_box(word, box, picture.shape, colours[word]) for word, box in boxes]
        frames.append(Frame(inline_jpeg(picture, quality=75), clock(time), drawn))
    return Answer(result.video_id, facts, reasons, frames)


def picture_at(path: Path, time: float) -> NDArray[np.uint8]:
    """The frame of a file at a time in seconds from its first one, or one near it where there is none just then.

    Raises:
        VideoError: the file is gone or cannot be read.
    """
    *first, last = stretches_at(time)
    for start, end in first:
        try:
            return read_frames(path, 1, start=start, end=end).frames[0]
        except VideoError as error:
            if error.reason != "no-frames":
                raise
    return read_frames(path, 1, start=last[0], end=last[1]).frames[0]


def stretches_at(time: float) -> list[tuple[float, float]]:
    """Where the frame of a time is looked for, one after the other: times are rounded, and a file may have gaps.

    The narrower comes first, since of a stretch the frame in its middle is taken.
    """
    start = max(0.0, time - JUST_THEN)
    return [(start, time + wider) for wider in (JUST_THEN, 0.1, 1.0)]


def without(word: WordAnswer, rank: int) -> str:
    """What becomes of an answer without the boxes of a word; nothing where that was not worked out."""
    if word.rank_without is None:
        return ""
    if word.matters:
        return f"rank {word.rank_without} without these"
    same = word.rank_without == rank
    return "same rank without these" if same else f"rank {word.rank_without} even without these"


def _box(word: str, box: WordBox, shape: tuple[int, ...], colour: str) -> Drawn:
    height, width = shape[:2]
    x1, y1, x2, y2 = box.box
    label = f"{word}: {box.label} {box.weight:.2f}" if box.label else f"{word} {box.weight:.2f}"
    sides = (100 * x1 / width, 100 * y1 / height, 100 * (x2 - x1) / width, 100 * (y2 - y1) / height)
    return Drawn(*sides, colour, label, idle=box.matters is False)


def clock(seconds: float) -> str:
    """``1:05.5`` for 65.5."""
    minutes, rest = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"
