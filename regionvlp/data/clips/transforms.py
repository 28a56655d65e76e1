"""From decoded frames to what a model of pixels reads: cut, made as large as it wants, mirrored, a whole clip alike.

Shape letters: F frames of a clip, H x W pixels that the model reads, B clips. Rectangles are shares of a frame (left,
top, width, height), so frames of unlike size are cut alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional

from regionvlp.data.clips.frame_choice import CROP, FLIP
from regionvlp.data.draws import Draws

TRIES = 10
SIDE_RATIO = (3 / 4, 4 / 3)  # width to height of a drawn rectangle, in pixels
_DRAWN = 4  # numbers that a try takes: area, ratio, left, top


class View(NamedTuple):
    """How a clip is looked at.

    Attributes:
        box: left, top, width and height, as shares of the frame. mirrored: left for right.
    """

    box: tuple[float, float, float, float]
    mirrored: bool = False


def central_view(frame: tuple[int, int], wanted: tuple[int, int]) -> View:
    """The largest central rectangle of a frame with the sides' ratio of what is wanted; (height, width) each."""
    height, width = frame
    scale = min(height / wanted[0], width / wanted[1])
    across, down = wanted[1] * scale / width, wanted[0] * scale / height
    return View(((1 - across) / 2, (1 - down) / 2, across, down))


def drawn_views(frames: Sequence[tuple[int, int]], draws: Draws, area: tuple[float, float], flip: float) -> list[View]:
    """Random rectangles and mirroring, one each for B clips.

    A rectangle has a share of the frame drawn evenly from ``area``, and a ratio of sides drawn evenly in its logarithm
    from :data:`SIDE_RATIO`; one that does not fit is drawn again, at most :data:`TRIES` times, and then the middle is
    taken, cut to a ratio within bounds (as torchvision's ``RandomResizedCrop``).

    Args:
        frames: height and width of each clip's frames. draws: of the clips. area: smallest and largest share.
        flip: probability that a clip is mirrored.
    """
    numbers = draws.uniform(CROP, TRIES * _DRAWN).reshape(-1, TRIES, _DRAWN)
    mirrored = draws.uniform(FLIP)[:, 0] < flip
    boxes = (_drawn_box(frame, tries, area) for frame, tries in zip(frames, numbers, strict=True))
    return [View(box, bool(mirror)) for box, mirror in zip(boxes, mirrored, strict=True)]


def _drawn_box(
    frame: tuple[int, int], tries: NDArray[np.float64], area: tuple[float, float]
) -> tuple[float, float, float, float]:
    height, width = frame
    low, high = (math.log(ratio) for ratio in SIDE_RATIO)
    for of_area, of_ratio, of_left, of_top in tries.tolist():
        pixels = height * width * (area[0] + of_area * (area[1] - area[0]))
        ratio = math.exp(low + of_ratio * (high - low))
        across, down = math.sqrt(pixels * ratio) / width, math.sqrt(pixels / ratio) / height
        if across <= 1 and down <= 1:
            return of_left * (1 - across), of_top * (1 - down), across, down
    ratio = min(max(width / height, SIDE_RATIO[0]), SIDE_RATIO[1])
    across, down = min(1.0, height * ratio / width), min(1.0, width / ratio / height)
    return (1 - across) / 2, (1 - down) / 2, across, down


def look(frames: Sequence[NDArray[np.uint8]], view: View, size: tuple[int, int], *, antialias: bool) -> Tensor:
    """[F, 3, H, W] uint8: the frames of a clip as they are looked at, in whole pixels and at least one.

    Args:
        frames: F pictures, uint8 [h, w, 3] each, of any sizes. view: what of them. size: H and W.
        antialias: whether pictures are made smaller without aliasing.
    """
    left, top, across, down = view.box
    found = torch.empty(len(frames), 3, *size, dtype=torch.uint8)
    for at, frame in enumerate(frames):
        height, width = frame.shape[:2]
        tall, wide = max(1, round(down * height)), max(1, round(across * width))
        y, x = min(round(top * height), height - tall), min(round(left * width), width - wide)
        cut = torch.from_numpy(frame[y : y + tall, x : x + wide]).permute(2, 0, 1)
        found[at] = functional.resize(cut, list(size), antialias=antialias)
    return found.flip(-1) if view.mirrored else found
