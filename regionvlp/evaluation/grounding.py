"""Pointing accuracy: does the region that answers a noun most strongly lie on the object that the noun names?

Shape letters: F frames, R regions per frame, W word pieces of a noun, D width of the joint space.

The definition, in full. A *case* is one object that a caption names, seen in one frame in which it is visible. The
alignment of a region with the noun is the cosine of the region's token with a word piece's token, averaged over the
noun's word pieces. Of the real regions of the frame the one with the highest alignment is pointed at. It *hits* when
its box overlaps the true box with an intersection over union of 0.5 or more.

    accuracy = share of cases in which the region pointed at hits (of m regions that tie, the share that hits)
    ceiling  = share of cases in which any region of the frame hits: what the proposals allow
    chance   = mean over cases of the share of the frame's regions that hit: what pointing at random gives

    centre   = share of cases in which the middle of the region pointed at lies in the true box, however loose the
               region is: the pointing game (Zhang et al., 2016); ``centre_chance`` is what pointing at random gives

A frame without regions is a case like any other, and misses. Objects whose noun was cut off by the tokenizer's maximum
length have no word pieces; they are not cases, and are counted as ``nouns_cut_off``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from regionvlp.errors import InputError

MIN_OVERLAP = 0.5


@dataclass(frozen=True)
class GroundedObject:
    """One object that a caption names, with what a model made of noun and video.

    Attributes:
        words: [W, D] float, tokens of the noun's word pieces.
        regions: [F, R, D] float, tokens of the regions.
        region_mask: [F, R] bool, True = real.
        boxes: [F, R, 4] float, ``x1 y1 x2 y2`` of the regions in pixels.
        true_boxes: [F, 4] float, ``x1 y1 x2 y2`` of the object in the same frames; NaN where it is not to be seen.
    """

    words: NDArray[np.floating]
    regions: NDArray[np.floating]
    region_mask: NDArray[np.bool_]
    boxes: NDArray[np.floating]
    true_boxes: NDArray[np.floating]


class PointingAccuracy(TypedDict):
    """Shares in percent, as defined at the top of this file, and what was counted."""

    accuracy: float
    ceiling: float
    chance: float
    centre: float
    centre_chance: float
    cases: int
    objects: int
    nouns_cut_off: int


def pointing_accuracy(objects: Iterable[GroundedObject], min_overlap: float = MIN_OVERLAP) -> PointingAccuracy:
    """Measures pointing accuracy, as defined at the top of this file.

    Raises:
        InputError: no object is visible in any frame, or a token holds NaN.
    """
    cases: list[NDArray[np.float64]] = []
    count = cut_off = 0
    for thing in objects:
        count += 1
        if len(thing.words) == 0:
            cut_off += 1
            continue
        cases.append(_cases(thing, ~np.isnan(thing.true_boxes).any(axis=-1), min_overlap))
    measured = np.concatenate(cases) if cases else np.zeros((0, 5))
    if not len(measured):
        raise InputError(
            "no object of the captions is visible in any frame", "check boxes and nouns of the annotations"
        )
    accuracy, ceiling, chance, centre, centre_chance = (100 * float(value) for value in measured.mean(axis=0))
    return {
        "accuracy": accuracy,
        "ceiling": ceiling,
        "chance": chance,
        "centre": centre,
        "centre_chance": centre_chance,
        "cases": len(measured),
        "objects": count,
        "nouns_cut_off": cut_off,
    }


def alignment(words: NDArray[np.floating], regions: NDArray[np.floating]) -> NDArray[np.float64]:
    """[F, R], the alignment of each region [F, R, D] with a noun of the word pieces [W, D]."""
    aligned: NDArray[np.float64] = (_unit(regions) @ _unit(words).T).mean(axis=-1)
    return aligned


def overlaps(boxes: NDArray[np.floating], true_boxes: NDArray[np.floating]) -> NDArray[np.float64]:
    """[F, R], intersection over union of the boxes [F, R, 4] with their frame's true box [F, 4]."""
    boxes, true = boxes.astype(np.float64), true_boxes.astype(np.float64)[:, None]
    corners = np.minimum(boxes[..., 2:], true[..., 2:]) - np.maximum(boxes[..., :2], true[..., :2])
    shared = np.maximum(corners, 0).prod(axis=-1)
    areas = [np.maximum(b[..., 2:] - b[..., :2], 0).prod(axis=-1) for b in (boxes, true)]
    union = areas[0] + areas[1] - shared
    overlap: NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return overlap


def contains_middle(boxes: NDArray[np.floating], true_boxes: NDArray[np.floating]) -> NDArray[np.bool_]:
    """[F, R], whether the middle of a box [F, R, 4] lies in its frame's true box [F, 4]."""
    middles, true = (boxes[..., :2] + boxes[..., 2:]) / 2, true_boxes[:, None]
    return np.asarray(((middles >= true[..., :2]) & (middles <= true[..., 2:])).all(axis=-1), np.bool_)


def _cases(thing: GroundedObject, visible: NDArray[np.bool_], min_overlap: float) -> NDArray[np.float64]:
    """[visible frames, 5]: hit by pointing, by any region, by what share of regions; the same of middles, but any."""
    mask = thing.region_mask[visible]
    scores = alignment(thing.words, thing.regions[visible])
    if np.isnan(scores[mask]).any():
        raise InputError("the tokens of a video or a caption hold NaN", "the model has diverged; take another")
    boxes, true_boxes = thing.boxes[visible], thing.true_boxes[visible]
    hits = (overlaps(boxes, true_boxes) >= min_overlap) & mask
    middles = contains_middle(boxes, true_boxes) & mask
    scores = np.where(mask, scores, -np.inf)
    pointed = (scores == scores.max(axis=1, keepdims=True)) & mask
    shares = [
        _share(hits, pointed),
        hits.any(axis=1),
        _share(hits, mask),
        _share(middles, pointed),
        _share(middles, mask),
    ]
    return np.stack(shares, axis=1)


def _share(hits: NDArray[np.bool_], among: NDArray[np.bool_]) -> NDArray[np.float64]:
    """[F], which share of the regions ``among`` hits; 0 where there are none."""
    share: NDArray[np.float64] = (hits & among).sum(axis=1) / np.maximum(among.sum(axis=1), 1)
    return share


def _unit(tokens: NDArray[np.floating]) -> NDArray[np.float64]:
    tokens = tokens.astype(np.float64)
    unit: NDArray[np.float64] = tokens / np.maximum(np.linalg.norm(tokens, axis=-1, keepdims=True), 1e-12)
    return unit
