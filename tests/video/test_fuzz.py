"""Damaged media files: each is read, or fails for a reason that is true and final."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .clips import make_clip
from .fuzz import Outcome, fuzz, media

_CLIPS = {
    "a.mp4": {"options": {"bf": "2"}},
    "b.mkv": {},
    "c.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "d.avi": {"codec": "mpeg4"},
    "e.ts": {},
    "f.mpg": {"codec": "mpeg2video"},
    "g.gif": {"codec": "gif"},
    "h.flv": {"codec": "flv"},
    "i.wmv": {"codec": "wmv2"},
}


def check(outcome: Outcome, count: int) -> None:
    assert outcome.wrong == []
    assert sum(outcome.reasons.values()) == count
    assert outcome.reasons["read"] < count, "nothing was damaged"


def test_a_sample_of_damaged_files(tmp_path: Path) -> None:
    for name, options in _CLIPS.items():
        make_clip(tmp_path / name, 20, **options)
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    for name in ("j.jpg", "k.png", "l.webp", "m.tif"):
        Image.fromarray(pixels).save(tmp_path / name)
    check(fuzz(media(tmp_path), 60, seed=5), 60)


@pytest.mark.slow
def test_many_damaged_real_files(sample_data: Path) -> None:
    outcome = fuzz(media(sample_data / "videos"), 600, seed=11)
    check(outcome, 600)
    early, late = outcome.resident[len(outcome.resident) // 3], outcome.resident[-1]
    assert late < early + 30, outcome.resident  # megabytes
