"""Pointing accuracy against loops, and at its edges."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from regionvlp.errors import InputError
from regionvlp.evaluation.grounding import GroundedObject, overlaps, pointing_accuracy


def make(rng: np.random.Generator, frames: int = 4, regions: int = 6, words: int = 2) -> GroundedObject:
    corners = np.sort(rng.integers(0, 6, (frames, regions + 1, 2, 2)), axis=2).reshape(frames, regions + 1, 4)
    boxes = corners.astype(np.float32) + np.array([0, 0, 1, 1], np.float32)
    truth = boxes[:, -1].copy()
    truth[rng.uniform(size=frames) < 0.3] = np.nan
    return GroundedObject(
        words=rng.normal(size=(words, 5)).astype(np.float32),
        regions=rng.normal(size=(frames, regions, 5)).astype(np.float32),
        region_mask=np.arange(regions) < rng.integers(0, regions + 1, (frames, 1)),
        boxes=boxes[:, :-1],
        true_boxes=truth,
    )


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """By counting the pixels of both boxes."""
    pictures = []
    for x1, y1, x2, y2 in (a.astype(int), b.astype(int)):
        picture = np.zeros((12, 12), bool)
        picture[y1:y2, x1:x2] = True
        pictures.append(picture)
    return float((pictures[0] & pictures[1]).sum() / (pictures[0] | pictures[1]).sum())


def slow(objects: list[GroundedObject]) -> tuple[list[float], int]:
    rows = []
    for thing in objects:
        for f, true in enumerate(thing.true_boxes):
            if np.isnan(true[0]):
                continue
            best, pointed, hits, middles = -np.inf, (False, False), [], []
            for r in np.flatnonzero(thing.region_mask[f]):
                region = thing.regions[f, r]
                cosines = [w @ region / np.linalg.norm(w) / np.linalg.norm(region) for w in thing.words]
                x1, y1, x2, y2 = thing.boxes[f, r]
                hits.append(overlap(thing.boxes[f, r], true) >= 0.5)
                middles.append(true[0] <= (x1 + x2) / 2 <= true[2] and true[1] <= (y1 + y2) / 2 <= true[3])
                if np.mean(cosines) > best:
                    best, pointed = float(np.mean(cosines)), (hits[-1], middles[-1])
            shares = [np.mean(values) if values else 0 for values in (hits, middles)]
            rows.append((pointed[0], any(hits), shares[0], pointed[1], shares[1]))
    return list(100 * np.mean(rows, axis=0)), len(rows)


def test_against_loops() -> None:
    rng = np.random.default_rng(0)
    objects = [make(rng, words=int(rng.integers(1, 4))) for _ in range(80)]
    found = pointing_accuracy(objects)
    shares, cases = slow(objects)
    assert (found["cases"], found["objects"], found["nouns_cut_off"]) == (cases, 80, 0)
    names = ("accuracy", "ceiling", "chance", "centre", "centre_chance")
    assert [found[name] for name in names] == pytest.approx(shares)  # type: ignore[literal-required]
    assert 0 < found["chance"] < found["ceiling"] < 100


def test_a_model_that_knows_reaches_the_ceiling() -> None:
    rng = np.random.default_rng(1)
    objects = []
    for _ in range(40):
        thing = make(rng)
        best = overlaps(thing.boxes, np.nan_to_num(thing.true_boxes))[..., None]
        objects.append(dataclasses.replace(thing, words=np.ones((1, 2)), regions=np.concatenate([best, 1 - best], -1)))
        objects[-1] = dataclasses.replace(objects[-1], words=np.array([[1.0, 0.0]]))
    found = pointing_accuracy(objects)
    assert found["accuracy"] == found["ceiling"] > 0


def test_regions_that_tie_share_the_case() -> None:
    box = np.array([0.0, 0, 4, 4])
    boxes = np.stack([box, box + 100, box + 200, box])[None]
    thing = GroundedObject(np.ones((1, 2)), np.ones((1, 4, 2)), np.array([[True, True, True, False]]), boxes, box[None])
    found = pointing_accuracy([thing])
    assert found["accuracy"] == found["chance"] == pytest.approx(100 / 3)
    assert found["ceiling"] == 100


def test_nouns_cut_off_and_objects_never_seen() -> None:
    rng = np.random.default_rng(2)
    thing = make(rng)
    cut = dataclasses.replace(thing, words=np.zeros((0, 5)))
    found = pointing_accuracy([thing, cut])
    assert (found["objects"], found["nouns_cut_off"]) == (2, 1)
    assert found["cases"] == int((~np.isnan(thing.true_boxes[:, 0])).sum())
    hidden = dataclasses.replace(thing, true_boxes=np.full((4, 4), np.nan))
    with pytest.raises(InputError, match="no object of the captions is visible"):
        pointing_accuracy([hidden, cut])
    diverged = dataclasses.replace(thing, words=np.full((1, 5), np.nan))
    with pytest.raises(InputError, match="hold NaN"):
        pointing_accuracy([diverged])


@pytest.mark.parametrize(("shift", "hit"), [(0, True), (1, True), (2, False)])
def test_overlap_of_one_half_is_enough(shift: int, hit: bool) -> None:
    # 3 wide, moved by 1: 2 / 4 of an IoU, exactly one half.
    box = np.array([[[0.0, 0, 3, 1]]])
    thing = GroundedObject(
        np.ones((1, 1)), np.ones((1, 1, 1)), np.ones((1, 1), bool), box + np.array([shift, 0, shift, 0]), box[0]
    )
    assert pointing_accuracy([thing])["accuracy"] == 100 * hit
