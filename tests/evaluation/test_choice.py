"""Multiple choice and open answers."""

from __future__ import annotations

import numpy as np
import pytest

from regionvlp.errors import InputError
from regionvlp.evaluation.answering import answer_accuracy
from regionvlp.evaluation.choice import choice_accuracy, option_scores


def test_ties_count_by_their_average() -> None:
    scores = np.array([[3.0, 1, 2], [1, 2, 2], [5, 5, 5], [0, 1, 0]])
    assert choice_accuracy(scores, np.array([0, 1, 2, 2])) == pytest.approx(100 * (1 + 1 / 2 + 1 / 3 + 0) / 4)


def test_the_public_rule_ignores_the_global_part() -> None:
    rng = np.random.default_rng(0)
    # All columns of the first and all rows of the second are copies of one clip.
    global_texts = np.repeat(rng.normal(size=(5, 1)), 5, axis=1)
    local_videos = np.repeat(rng.normal(size=(1, 5)), 5, axis=0)
    aligned = option_scores(global_texts, local_videos)
    np.testing.assert_allclose(aligned, global_texts[:, 3] + local_videos[2])
    public = option_scores(global_texts, local_videos, "public")
    assert public.argmax() == local_videos[0].argmax() != aligned.argmax()


def test_what_cannot_be_counted() -> None:
    with pytest.raises(InputError, match="no questions"):
        choice_accuracy(np.zeros((0, 5)), np.zeros(0, int))
    with pytest.raises(InputError, match="NaN"):
        choice_accuracy(np.array([[np.nan, 1.0]]), np.zeros(1, int))


def test_answers_are_right_letter_by_letter() -> None:
    found = answer_accuracy(
        ["cat", "a cat", "two", "Red"], ["cat", "cat", "two", "red"], ["what", "what", "how", "what"]
    )
    assert found["overall"] == 50
    assert found["by_type"] == {"what": pytest.approx(100 / 3), "how": 100}
    assert found["questions"] == {"what": 3, "how": 1}
    with pytest.raises(InputError, match="no questions"):
        answer_accuracy([], [], [])
