"""Which frames a sample takes."""

from __future__ import annotations

import numpy as np
import pytest

from regionvlp.data.sampling import choose_frames
from regionvlp.errors import ConfigError


@pytest.mark.parametrize(("total", "count"), [(8, 1), (8, 4), (8, 8), (12, 8), (5, 8), (1, 4), (10, 3)])
def test_draws_cover_each_closed_segment(total: int, count: int) -> None:
    rng = np.random.default_rng(0)
    draws = np.array([choose_frames(total, count, rng) for _ in range(400)])
    segments = min(total, count)
    for i in range(segments):
        first, last = total * i // segments, total * (i + 1) // segments - 1
        assert set(draws[:, i]) == set(range(first, last + 1))
        assert choose_frames(total, count)[i] == (first + last) // 2


def test_legacy_never_draws_the_last_of_a_segment() -> None:
    rng = np.random.default_rng(0)
    draws = np.array([choose_frames(10, 4, rng, "legacy") for _ in range(200)])
    assert [sorted(set(column)) for column in draws.T] == [[0], [2, 3], [5], [7, 8]]
    assert choose_frames(10, 4, None, "legacy") == choose_frames(10, 4)
    with pytest.raises(ConfigError, match="legacy cannot draw 8 of 8 frames"):
        choose_frames(8, 8, rng, "legacy")
