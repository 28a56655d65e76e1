"""Extraction on a real Ray cluster of several nodes on this machine, one of which goes away half-way."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ray = pytest.importorskip("ray", reason="needs the extra 'ray'")
cluster_utils = pytest.importorskip("ray.cluster_utils")

from regionvlp.config import load_config  # noqa: E402
from regionvlp.extract.launch.launch import extract_folder  # noqa: E402
from regionvlp.extract.settings import ExtractConfig  # noqa: E402
from regionvlp.shards import open_shards, read_receipts, verify  # noqa: E402
from regionvlp.store.claims import CLAIMS_NAME  # noqa: E402

pytestmark = pytest.mark.slow
log = logging.getLogger(__name__)
HERE = str(Path(__file__).resolve().parents[2])
EACH = {"num_cpus": 1, "object_store_memory": 80_000_000}


def settings(**sections: dict[str, object]) -> ExtractConfig:
    base = {
        "detector": {"factory": "fake_detectors:pixel_sums"},
        "video": {"frames": 2, "workers": 1},
        "shards": {"size": 2},
        "run": {"engine": "ray", "cpus_per_worker": 1, "card": False},
    }
    return load_config(ExtractConfig, base, sections)


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Twenty-four pictures: twelve shards of two."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for i in range(24):
        pixels = np.random.default_rng(i).integers(0, 250, (12, 14, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02}.png")
    return folder


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, float], Callable[[], None]]]:
    """Makes a cluster of so many nodes of one CPU, in which a picture takes so many seconds; returns what removes one
    of them."""
    made = []

    def make(nodes: int, nap: float) -> Any:
        monkeypatch.setenv("FAKE_NAP", str(nap))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([HERE, os.environ.get("PYTHONPATH", "")]))
        made.append(cluster_utils.Cluster(initialize_head=True, head_node_args=EACH))
        last = [made[-1].add_node(**EACH) for _ in range(nodes - 1)][-1:]
        made[-1].wait_for_nodes()
        ray.init(address=made[-1].address, logging_level=logging.ERROR, log_to_driver=False)
        return lambda: made[-1].remove_node(*last, allow_graceful=False)

    yield make
    ray.shutdown()
    for each in made:
        each.shutdown()


def whole(folder: Path, reference: Path) -> None:
    """Equal to what one process makes, and tidy."""
    assert verify(folder) == []
    one, other = open_shards(folder), open_shards(reference)
    assert list(one) == list(other)
    assert all(one[video_id].equals(other[video_id]) for video_id in one)
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in reference.iterdir())


@pytest.fixture
def reference(videos: Path, tmp_path: Path) -> Path:
    extract_folder(videos, tmp_path / "reference", settings(run={"engine": "local"}))
    return tmp_path / "reference"


def test_a_node_is_lost_half_way(
    videos: Path, reference: Path, tmp_path: Path, cluster: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    lose_a_node = cluster(3, 1.0)
    out, began = tmp_path / "out", time.monotonic()

    def say(line: str) -> None:
        log.warning("%5.1f s  %s", time.monotonic() - began, line)

    def remove() -> None:
        deadline = time.monotonic() + 120
        while len(list(out.glob("shard-*.json"))) < 4 and time.monotonic() < deadline:
            time.sleep(0.05)
        say(f"{len(list(out.glob('shard-*.json')))} of 12 shards done; a node is removed")
        lose_a_node()
        say("the node is gone")

    thread = threading.Thread(target=remove)
    thread.start()
    outcome = extract_folder(videos, out, settings(), on_note=say)
    thread.join()
    say(f"{outcome.status.shards_done} of 12 shards done, {outcome.new_videos} videos, left: {outcome.left}")
    assert outcome.status.left == 0
    assert outcome.left == []
    assert "died on shard" in caplog.text, "the node had nothing at hand"
    whole(out, reference)


def test_a_poisonous_shard_is_left(videos: Path, tmp_path: Path, cluster: Callable[..., Any]) -> None:
    cluster(2, 0.0)
    Image.new("RGB", (14, 12), "white").save(videos / "07.png")
    out = tmp_path / "out"
    notes: list[str] = []
    config = settings(detector={"factory": "fake_detectors:suicidal"})
    outcome = extract_folder(videos, out, config, on_note=notes.append)
    assert outcome.left == [3]
    assert (outcome.status.shards_done, outcome.status.left) == (11, 2)
    assert [receipt.shard for receipt in read_receipts(out)] == [n for n in range(12) if n != 3]
    assert not (out / CLAIMS_NAME).exists()
    assert not [path for path in out.iterdir() if ".tmp" in path.name]
    assert any("shard 3 is left undone" in note for note in notes)
