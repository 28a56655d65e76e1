"""Filters against plain Python over rows."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from regionvlp.search.filters import Filters
from regionvlp.search.segment import CLIPS_SCHEMA

FILES = {"a/x.mp4": (100.0, [4.0, 8.0]), "a/b/y.mp4": (200.0, [4.0]), "z.jpg": (300.0, [0.0]), "gone.mp4": (0.0, [9.0])}


@pytest.fixture
def clips(tmp_path: Path) -> pa.Table:
    rows = []
    for name, (changed, ends) in FILES.items():
        path = tmp_path / name
        if changed:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            os.utime(path, (changed, changed))
        common = {"video_id": name, "path": str(path), "start": 0.0, "stamp": "", "look": 0}
        rows += [{**common, "clip_id": f"{name}@{end}", "end": end} for end in ends]
    return pa.Table.from_pylist(rows, CLIPS_SCHEMA)


@pytest.mark.parametrize(
    ("filters", "files"),
    [
        (Filters(), set(FILES)),
        (Filters(folder="a"), {"a/x.mp4", "a/b/y.mp4"}),
        (Filters(folder="/a/b/"), {"a/b/y.mp4"}),
        (Filters(folder="*.jpg"), {"z.jpg"}),
        (Filters(folder="nowhere"), set()),
        (Filters(after=150.0), {"a/b/y.mp4", "z.jpg"}),
        (Filters(before=150.0), {"a/x.mp4"}),
        (Filters(after=150.0, before=250.0), {"a/b/y.mp4"}),
        (Filters(shortest=5.0), {"a/x.mp4", "gone.mp4"}),
        (Filters(longest=5.0), {"a/b/y.mp4", "z.jpg"}),
        (Filters(folder="a", shortest=5.0, longest=8.0, after=1.0), {"a/x.mp4"}),
    ],
)
def test_files_fit(clips: pa.Table, filters: Filters, files: set[str]) -> None:
    live = np.ones(len(clips), np.bool_)
    expected = [row["video_id"] in files for row in clips.to_pylist()]
    assert filters.allowed(clips, live).tolist() == expected


def test_clips_that_do_not_count_make_no_file_longer(clips: pa.Table) -> None:
    live = np.array([row["end"] != 8.0 for row in clips.to_pylist()])
    assert not Filters(shortest=5.0, longest=8.5).allowed(clips, live).any()
    assert Filters(longest=5.0).allowed(clips, live).tolist() == [True, False, True, True, False]
