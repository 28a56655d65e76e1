"""What tests share: fabricated clips, and where the sample data lies if it lies here at all."""

from __future__ import annotations

import os
import sys
import tempfile

# Tests run small networks: a second thread gains them nothing, and beside other work costs them most of their time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Keeps the Hugging Face hub, and whatever this machine has in its cache, out of every test. Its client reads these
# once, when it is imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_CACHE"] = os.path.join(tempfile.gettempdir(), "regionvlp-tests-have-no-hub")

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from regionvlp.pipelines.toy.world import write_mp4

pytest_plugins = ["shard_sets"]  # fabricated shard sets, for tests of store, shards and weights alike
REPOSITORY = Path(__file__).resolve().parents[1]
SAMPLE_DATA = Path(os.environ.get("REGIONVLP_DATA", REPOSITORY.parent / "shared" / "data"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--parity-table", action="store_true", help="print how far every golden case was from its numbers")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """A test that set the number of threads must not change the last bits of the next one's sums."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def sample_data() -> Path:
    """The folder of real videos, images and annotation files; tests that need it are skipped without it."""
    if not SAMPLE_DATA.is_dir():
        pytest.skip(f"no sample data at {SAMPLE_DATA} (set REGIONVLP_DATA)")
    return SAMPLE_DATA


@pytest.fixture
def make_clip() -> Callable[..., Path]:
    """Writes a small clip of a square that moves over noise; the seed decides its looks."""

    def make(path: Path, seed: int = 0, frames: int = 12, height: int = 64, width: int = 80) -> Path:
        rng = np.random.default_rng(seed)
        pictures = np.repeat(rng.integers(60, 160, (1, height, width, 3), dtype=np.uint8), frames, axis=0)
        colour = rng.integers(0, 256, 3)
        for t in range(frames):
            x, y = 4 + 3 * t, 8 + 2 * t
            pictures[t, y : y + 20, x : x + 20] = colour
        path.parent.mkdir(parents=True, exist_ok=True)
        write_mp4(path, pictures)
        return path

    return make
