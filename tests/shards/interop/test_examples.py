"""The examples in the documentation of ``regionvlp.shards.interop`` and of the card run as they stand."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import numpy as np
import pytest

import regionvlp.shards.interop
from regionvlp.extract.run.card import write_card
from regionvlp.shards import open_shards, verify


def examples() -> list[str]:
    """The blocks of code of the docstring, in order."""
    text = regionvlp.shards.interop.__doc__ or ""
    return [textwrap.dedent(block) for block in re.findall(r"::\n\n((?:    .*\n|\n)+)", text)]


def written(folder: Path, monkeypatch: pytest.MonkeyPatch, file_format: str) -> Path:
    monkeypatch.chdir(folder)
    exec(examples()[0].replace('"hdf5"', repr(file_format)), {})
    return folder / "features"


@pytest.mark.parametrize("file_format", ["hdf5", "parquet"])
def test_ten_lines_write_a_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_format: str) -> None:
    folder = written(tmp_path, monkeypatch, file_format)
    assert verify(folder) == []
    video = open_shards(folder)["a.mp4"]
    assert video.features[0, 0].tolist() == [1.0] * 512
    assert repr(video) == "<VideoRegions 'a.mp4': 1 frames, 1 regions in 30 slots each, features 512 wide, float16>"
    assert len(examples()[0].strip().splitlines()) <= 20


def test_pandas_reads_a_parquet_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    folder = written(tmp_path, monkeypatch, "parquet")
    write_card(folder)
    card = (folder / "README.md").read_text()
    of_card = card.partition("Without regionvlp")[2].partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(folder)
    for code in (examples()[1], of_card):
        found: dict[str, object] = {}
        exec(code, found)
        assert np.array_equal(found["first"], open_shards(folder)["a.mp4"].features[0])  # type: ignore[arg-type]
