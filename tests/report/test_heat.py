"""Heat: the strongest region of a word is the one that is most like it, whatever is padding."""

from __future__ import annotations

import numpy as np

from regionvlp.report.heat import STRONGEST, heat_boxes, strengths


def test_strengths_go_from_weakest_to_strongest() -> None:
    rng = np.random.default_rng(0)
    regions, mask = rng.normal(size=(3, 5, 8)), rng.random((3, 5)) < 0.7
    words = [rng.normal(size=(2, 8)), np.zeros((0, 8)), regions[0, int(np.argmax(mask[0]))][None]]
    answers, shown = strengths(words, regions, mask)
    assert answers.shape == (3, 3, 5)
    assert not answers[1].any()
    assert not answers[:, ~mask].any()
    cosine = {
        (f, r): np.mean([w @ regions[f, r] / np.linalg.norm(w) / np.linalg.norm(regions[f, r]) for w in words[0]])
        for f, r in zip(*np.nonzero(mask), strict=True)
    }
    low, high = min(cosine.values()), max(cosine.values())
    for place, value in cosine.items():
        assert np.isclose(answers[0][place], (value - low) / (high - low))
    assert shown == 2  # the word that is a region itself
    assert answers[2][0, int(np.argmax(mask[0]))] == 1


def test_only_hot_regions_are_drawn_the_strongest_on_top() -> None:
    answers = np.array([[0.9, 0.2, 1.0, 0.6, 0.7, 0.8, 0.95], [0.1] * 7])
    boxes = heat_boxes(answers, np.arange(28).reshape(7, 4), list("abcdefg"))
    assert [box.label for box in boxes] == ["f", "a", "g", "c"]
    assert len(boxes) == STRONGEST
    assert [box.first for box in boxes] == [False, False, False, True]
    assert (boxes[-1].x, boxes[-1].width) == (8, 2)
