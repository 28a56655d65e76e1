from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from regionvlp.pipelines.cli import run
from regionvlp.pipelines.toy.world import write_mp4
from regionvlp.search.server.app import create_app
from regionvlp.search.server.desk import Desk
from regionvlp.search.server.settings import ServerSettings

SECRET = b"what nobody but its owner may read"
NASTY = "<img src=x onerror=alert(1)>.mp4"
LOCAL = "http://localhost"
Serve = Callable[..., TestClient]


def write_clip(path: Path, seed: int, frames: int = 24) -> None:
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = np.repeat(rng.integers(0, 255, (1, 48, 64, 3), dtype=np.uint8), frames, axis=0)
    for t in range(frames):
        pictures[t, 8:24, t : t + 16] = rng.integers(0, 255, 3)
    write_mp4(path, pictures)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``videos``, and ``index`` of them by a detector of two halves; beside them a file of somebody."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("served")
    videos = folder / "videos"
    for seed, name in enumerate(("long.mp4", "sub/short.mp4", NASTY, "a&b/\"'quoted'.mp4")):
        write_clip(videos / name, seed, 24 if seed else 48)
    Image.new("RGB", (60, 40), "red").save(videos / "photo.jpg")
    (videos / "notes.txt").write_bytes(SECRET)
    (folder / "secret.mp4").write_bytes(SECRET)
    arguments = ["--detector", "own_detectors:Halves", "--window", "2s", "--stride", "1s", "--frames", "2"]
    assert run(["index", "--videos", str(videos), "--out", str(folder / "index"), *arguments]) == 0
    return folder


@pytest.fixture(scope="session")
def desk(made: Path) -> Desk:
    desk = Desk(made / "index")
    desk.warm()
    return desk


@pytest.fixture
def serve(desk: Desk) -> Iterator[Serve]:
    """Starts servers over the index, with the settings given."""
    clients = []

    def start(own_desk: Desk | None = None, **settings: object) -> TestClient:
        client = TestClient(create_app(own_desk or desk, ServerSettings(**settings)), base_url=LOCAL)  # type: ignore[arg-type]
        client.__enter__()
        clients.append(client)
        return client

    yield start
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture(scope="session")
def client(desk: Desk) -> Iterator[TestClient]:
    """A server with the settings of a server that is told nothing, but that tests ask as fast as they can."""
    with TestClient(create_app(desk, ServerSettings(rate=0.0)), base_url=LOCAL) as client:
        yield client
