"""Plug-in detectors for ``--detector own_detectors:NAME``, one for each way in which one can go wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


class Halves:
    """The example of the documentation: each half of a picture is a region, its mean colour the feature."""

    names = ("left half", "right half")
    feature_width = 3
    identity = {"detector": "halves", "version": 1}  # noqa: RUF012

    def __init__(self, spoil: Callable[[dict[str, Any]], Any] | None = None) -> None:
        self.spoil = spoil

    def detect(self, frames: list[Any]) -> list[Any]:
        return [self.halves(frame) for frame in frames]

    def halves(self, frame: Any) -> Any:
        height, width = frame.shape[:2]
        parts = [frame[:, : width // 2], frame[:, width // 2 :]]
        found = {
            "boxes": [[0, 0, width // 2, height], [width // 2, 0, width, height]],
            "scores": [0.9, 0.8],
            "class_ids": [0, 1],
            "features": [part.mean((0, 1)) for part in parts],
        }
        # The trial at the start is 96 x 128; only the clips of the tests are spoilt, so that each gets its own row.
        return self.spoil(found) if self.spoil and frame.shape[:2] != (96, 128) else found


def _raise(found: dict[str, Any]) -> Any:
    raise KeyError("no such layer")


def changed(**values: Any) -> Callable[[], Halves]:
    return lambda: Halves(lambda found: {**found, **values})


raises = lambda: Halves(_raise)  # noqa: E731
nan = changed(features=np.full((2, 3), np.nan))
outside = changed(boxes=[[500, 500, 900, 900], [0, 0, 4, 4]])
inside_out = changed(boxes=[[9, 0, 4, 4], [0, 0, 4, 4]])
wide = changed(features=np.zeros((2, 4)))
words = changed(scores=["high", "low"])
classless = changed(class_ids=[0, 7])
one_short = changed(scores=[0.5])
unlikely = changed(scores=[3.0, 0.2])
typo = lambda: Halves(lambda found: {"box": found.pop("boxes"), **found})  # noqa: E731
ints = changed(boxes=np.array([[-3, 0, 40, 500], [0, 0, 4, 4]]), features=np.ones((2, 3), np.uint8))
nothing = changed(boxes=[], scores=[], class_ids=[], features=[])


def with_settings(settings: Any) -> Halves:
    made = Halves()
    made.identity = {**made.identity, "regions": settings.regions}
    return made


class Broken(Halves):
    def detect(self, frames: list[Any]) -> list[Any]:
        raise RuntimeError("no weights")


class Nameless(Halves):
    names = ()


class Headless:
    names = ("x",)


a_number = 7
