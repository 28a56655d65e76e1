"""Where the real sample videos are, for the tests that need them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real sample data that lies beside a development checkout."""
    named = os.environ.get("REGIONVLP_DATA")
    folder = Path(named) if named else Path(__file__).parents[2].parent / "shared/data"
    if not (folder / "videos").is_dir():
        pytest.skip(f"no sample videos at {folder}; REGIONVLP_DATA can name them")
    return folder


@pytest.fixture(scope="session")
def true_frames(shared_data: Path) -> dict[str, Any]:
    """What the 8 frames of every sample clip look like."""
    return dict(json.loads((shared_data / "videos/true_frames.json").read_text()))
