"""Which frames a sample takes, and that its draws are its own."""

from __future__ import annotations

import numpy as np
import pytest

from regionvlp.data.clips.frame_choice import FrameChoice
from regionvlp.data.draws import Draws
from regionvlp.errors import ConfigError
from regionvlp.video.sampling import uniform_indices


@pytest.mark.parametrize("count", [1, 3, 4, 8])
def test_middle_frames_are_those_that_extraction_takes(count: int) -> None:
    totals = np.arange(1, 30)
    slots, real = FrameChoice(count).slots(totals)
    for total, row, shown in zip(totals, slots, real, strict=True):
        expected = uniform_indices(int(total), count)
        assert row[shown].tolist() == expected
        assert set(row[~shown].tolist()) <= {expected[-1]}


@pytest.mark.parametrize(("total", "count"), [(8, 1), (8, 4), (8, 8), (12, 8), (5, 8), (1, 4), (10, 3)])
def test_draws_cover_each_closed_segment(total: int, count: int) -> None:
    slots, real = FrameChoice(count).slots([total] * 400, Draws((0,), np.arange(400)))
    segments = min(total, count)
    assert real.sum(1).tolist() == [segments] * 400
    for i in range(segments):
        first, last = total * i // segments, total * (i + 1) // segments - 1
        assert set(slots[:, i]) == set(range(first, last + 1))
    assert (slots[:, segments:] == slots[:, segments - 1 : segments]).all()


def test_legacy_never_draws_the_last_of_a_segment() -> None:
    draws = Draws((0,), np.arange(200))
    slots, _ = FrameChoice(4, "legacy").slots([10] * 200, draws)
    assert [sorted(set(column.tolist())) for column in slots.T] == [[0], [2, 3], [5], [7, 8]]
    assert (FrameChoice(4, "legacy").slots([10])[0] == FrameChoice(4).slots([10])[0]).all()
    with pytest.raises(ConfigError, match="legacy cannot draw 8 of 8 frames"):
        FrameChoice(8, "legacy").slots([40, 8], Draws((0,), [1, 2]))


def test_a_sample_draws_the_same_in_whatever_company() -> None:
    together = Draws((3, 5), np.arange(100)).uniform(1, 4)
    alone = np.concatenate([Draws((3, 5), [i]).uniform(1, 4) for i in range(100)])
    np.testing.assert_array_equal(together, alone)
    for other in (Draws((3, 6), np.arange(100)), Draws((4, 5), np.arange(100)), Draws((3,), np.arange(100))):
        assert (other.uniform(1, 4) != together).all()
    assert (Draws((3, 5), np.arange(100)).uniform(2, 4) != together).all()


def test_draws_are_even_and_independent() -> None:
    found = Draws((0, 1), np.arange(50_000)).uniform(0, 4)
    assert found.min() >= 0
    assert found.max() < 1
    counts = np.stack([np.histogram(column, 10, (0, 1))[0] for column in found.T])
    assert (np.abs(counts - 5000) < 5 * np.sqrt(5000 * 0.9)).all()
    assert np.abs(np.corrcoef(found.T) - np.eye(4)).max() < 0.02
    neighbours = np.corrcoef(found[:-1, 0], found[1:, 0])[0, 1]
    assert abs(neighbours) < 0.02
