from __future__ import annotations

from pathlib import Path

import pytest

from search.worlds import WORLD, sentence_encoder, video, write_shards


@pytest.fixture(scope="session")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny sentence encoder."""
    return sentence_encoder(tmp_path_factory.mktemp("encoders") / "tiny")


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Five clips with labels."""
    return write_shards(tmp_path / "shards", [video(name, labels) for name, labels in WORLD.items()])
