"""Whether the box that an index gives as the answer to a word lies on the thing, where that is known.

In: an index, a table of things in pictures. Out: percentages.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from regionvlp.errors import InputError
from regionvlp.search.index import Index

OVERLAP = 0.5  # intersection over union from which a box is on the thing
_COLUMNS = ("video_id", "word", "x1", "y1", "x2", "y2")
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Thing:
    """Where a thing is in a picture, or in every frame of a clip that does not move.

    Attributes:
        video_id: of the file. word: what it is called. box: ``x1 y1 x2 y2`` in pixels.
    """

    video_id: str
    word: str
    box: Box


def read_things(path: Path) -> list[Thing]:
    """Reads a table of the columns ``video_id, word, x1, y1, x2, y2``; a word may have several rows.

    Raises:
        InputError: it cannot be read, lacks a column, or holds what is no box.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(f"{path} has no column '{missing[0]}'", f"it needs {', '.join(_COLUMNS)}")
            things = [_thing(row, path, number) for number, row in enumerate(reader, start=2)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read {path}: {error}", "name a table in CSV") from None
    if not things:
        raise InputError(f"{path} holds no box", "write one a line")
    return things


def pointing(index: Index, things: Sequence[Thing]) -> dict[str, float]:
    """How often the strongest box that a file's best clip gives to a word is on the thing.

    Each word of each file is asked once, as a query of its own, among the clips of that file alone; where several
    things bear the word, the nearest counts.

    Returns:
        ``words`` asked; in percent of them ``iou`` (overlap of at least a half), ``inside`` (the middle of the box
        lies in the thing), and ``chance`` (the mean over the boxes that there were of hitting by ``inside``).
    """
    asked: dict[tuple[str, str], list[Box]] = {}
    for thing in things:
        asked.setdefault((thing.video_id, thing.word), []).append(thing.box)
    overlaps: list[bool] = []
    inside: list[bool] = []
    chance: list[float] = []
    for (video_id, word), boxes in asked.items():
        found = [result for result in index.search(word, top=1, folder=video_id).results if result.video_id == video_id]
        if not found:
            raise InputError(f"the index holds no '{video_id}'", "name files in the table as the index does")
        given = [box for one in found[0].words for box in one.boxes]
        best = max(given, key=lambda box: box.weight).box if given else None
        overlaps.append(best is not None and max(iou(best, box) for box in boxes) >= OVERLAP)
        inside.append(best is not None and any(_middle_in(best, box) for box in boxes))
        there = index.evidence(index.row_of(found[0].clip_id)).boxes.tolist()
        hits = [any(_middle_in(tuple(one), box) for box in boxes) for one in there]
        chance.append(sum(hits) / len(hits) if hits else 0.0)
    share = {name: 100 * float(np.mean(values)) for name, values in (("iou", overlaps), ("inside", inside))}
    return {"words": float(len(asked)), **share, "chance": 100 * float(np.mean(chance))}


def iou(one: Box, other: Box) -> float:
    """Intersection over union of two boxes."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0.0) * max(height, 0.0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return shared / (areas - shared) if areas > shared else 0.0


def _middle_in(one: Box, thing: Box) -> bool:
    x, y = (one[0] + one[2]) / 2, (one[1] + one[3]) / 2
    return thing[0] <= x <= thing[2] and thing[1] <= y <= thing[3]


def _thing(row: dict[str, str], path: Path, number: int) -> Thing:
    try:
        x1, y1, x2, y2 = (float(row[name]) for name in _COLUMNS[2:])
    except (TypeError, ValueError):
        raise InputError(f"{path}, line {number}: its box is no four numbers", "write pixels") from None
    if not (x2 > x1 and y2 > y1 and row["word"] and row["video_id"]):
        raise InputError(f"{path}, line {number}: there is no such box", "x2 and y2 are the larger ones") from None
    return Thing(row["video_id"], row["word"], (x1, y1, x2, y2))
