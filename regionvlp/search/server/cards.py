"""What the page shows of an answer: frames, the boxes on them, words, and where all of it is to be had.

In: a finished search. Out: :class:`Card` objects, which the template draws without a thought of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlencode

from regionvlp.search.answers import Answers, Result, WordBox
from regionvlp.search.page import clock
from regionvlp.search.server.desk import Opened
from regionvlp.search.server.files import MEDIA_TYPES
from regionvlp.video.find import IMAGE_SUFFIXES

MOST_FRAMES, FEWER_FRAMES = 8, 3  # of the first card, and of each of the others: the page stays small
COLOURS = 8  # of words, told apart by people who do not see red and green as different


@dataclass(frozen=True)
class Word:
    """A word of the query; ``number`` is also its colour. Without boxes it has nothing to light up."""

    number: int
    text: str
    has_boxes: bool


@dataclass(frozen=True)
class Frame:
    """A picture of a card: its time, and its address."""

    number: int
    time: float
    clock: str
    address: str


@dataclass(frozen=True)
class Rect:
    """A box on a frame, in pixels of the frame, with what is said about it."""

    word: int
    frame: int
    x: float
    y: float
    width: float
    height: float
    label: str
    reason: str


@dataclass(frozen=True)
class Card:
    """A moment.

    Attributes:
        number: its rank. name, folder: of the file. span: its time in words. score: in words.
        width, height: of its frames. shown, lit: the frame and the word that are chosen first.
        playable: whether it is a video. media, thumbnail, cut, like: addresses; empty where there is none.
        start, end, length: of the moment, and of the file, in seconds.
        copies: names of moments that look the same. shares: what each encoder gave.
    """

    number: int
    clip_id: str
    name: str
    folder: str
    span: str
    score: str
    width: int
    height: int
    words: Sequence[Word]
    frames: Sequence[Frame]
    rects: Sequence[Rect]
    shown: int
    lit: int
    playable: bool
    media: str
    thumbnail: str
    cut: str
    like: str
    start: float
    end: float
    length: float
    copies: Sequence[str] = ()
    shares: Sequence[str] = ()


def address(path: str, **values: object) -> str:
    """An address with its query; values that are None or empty are left out."""
    given = {name: value for name, value in values.items() if value not in (None, "")}
    return f"{path}?{urlencode(given)}" if given else path


def media_address(result: Result) -> str:
    """Where the moment plays."""
    plays = result.end > result.start
    return address("/media", clip=result.clip_id) + (f"#t={result.start:g},{result.end:g}" if plays else "")


def thumbnail_address(clip_id: str) -> str:
    """Where a clip's small picture is."""
    return address("/thumbnail", clip=clip_id)


def document(answers: Answers) -> dict[str, Any]:
    """The search as JSON values, with addresses."""
    found = answers.to_dict()
    for values, result in zip(found["results"], answers.results, strict=True):
        values["media"] = media_address(result) if result.path else ""
        values["thumbnail"] = thumbnail_address(result.clip_id)
    return found


def cards(opened: Opened, answers: Answers) -> list[Card]:
    """A card for each result."""
    return [_card(opened, result, number) for number, result in enumerate(answers.results, start=1)]


def cards_of_rows(opened: Opened, rows: Sequence[int]) -> list[Card]:
    """A card for each of some clips, which answer nothing."""
    clips = [opened.index.clip(row) for row in rows]
    results = [Result(clip.video_id, clip.path, clip.start, clip.end, 0.0, clip_id=clip.clip_id) for clip in clips]
    return [_card(opened, result, number) for number, result in enumerate(results, start=1)]


def _card(opened: Opened, result: Result, number: int) -> Card:
    sizes = opened.index.evidence(opened.index.row_of(result.clip_id)).frame_size
    height, width = (int(side) for side in sizes[0]) if len(sizes) else (9, 16)
    times = _times(result, MOST_FRAMES if number == 1 else FEWER_FRAMES)
    frame_of = {time: k for k, time in enumerate(times)}
    rects = [
        _rect(w, frame_of[box.time], word.word, box, number)
        for w, word in enumerate(result.words)
        for box in word.boxes
        if box.time in frame_of
    ]
    lit = next((rect.word for rect in rects), 0)
    best = max((box for word in result.words[lit : lit + 1] for box in word.boxes), key=_weight, default=None)
    name = PurePosixPath(result.video_id)
    still = Path(result.video_id).suffix.lower() in IMAGE_SUFFIXES
    middle = (result.start + result.end) / 2
    at = "" if result.end <= result.start else f"@{middle:g}s"
    return Card(
        number=number,
        clip_id=result.clip_id,
        name=name.name,
        folder="" if str(name.parent) == "." else str(name.parent),
        span="picture" if still else f"{clock(result.start)} to {clock(result.end)}",
        score=f"{result.score:.3f}",
        width=width,
        height=height,
        words=_words(result),
        frames=[
            Frame(k, time, clock(time), address("/frame", clip=result.clip_id, at=f"{time:g}"))
            for k, time in enumerate(times)
        ],
        rects=rects,
        shown=frame_of.get(best.time, 0) if best else 0,
        lit=lit,
        playable=not still and Path(result.video_id).suffix.lower() in MEDIA_TYPES and bool(result.path),
        media=media_address(result) if result.path else "",
        thumbnail=thumbnail_address(result.clip_id),
        cut=address("/cut", clip=result.clip_id, start=f"{result.start:g}", end=f"{result.end:g}")
        if result.path
        else "",
        like=address("/", like=result.video_id + at),
        start=result.start,
        end=result.end,
        length=max(opened.lengths.get(result.video_id, 0.0), result.end),
        copies=[copy.video_id for copy in result.copies],
        shares=[f"{name} {share:.2f}" for name, share in result.shares.items()],
    )


def _times(result: Result, most: int) -> list[float]:
    """The times of the frames to show: those with the strongest boxes, else the middle of the moment."""
    weights: dict[float, float] = {}
    for word in result.words:
        for box in word.boxes:
            weights[box.time] = weights.get(box.time, 0.0) + box.weight
    strongest = sorted(weights, key=lambda time: (-weights[time], time))[:most]
    return sorted(strongest) or [round((result.start + result.end) / 2, 3)]


def _weight(box: WordBox) -> float:
    return box.weight


def _words(result: Result) -> list[Word]:
    """The words; each that has boxes has a colour of its own as long as there are some."""
    return [Word(number, word.word, bool(word.boxes)) for number, word in enumerate(result.words)]


def _rect(number: int, frame: int, word: str, box: WordBox, rank: int) -> Rect:
    x1, y1, x2, y2 = box.box
    seen = f"seen as {box.label}" if box.label else "this box"
    if box.rank_without is not None:
        moved = box.rank_without != rank
        reason = f"{seen}; without this box: rank {rank} to {box.rank_without}"
        reason += "" if moved else ", so it does not matter"
    else:
        reason = f"{seen}, weight {box.weight:.2f}"
    x, y, width, height = (round(value, 1) for value in (x1, y1, x2 - x1, y2 - y1))
    return Rect(number, frame, x, y, width, height, box.label or word, reason)
