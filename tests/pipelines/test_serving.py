"""``regionvlp serve`` as a process: it says where it is, answers, takes up new files, and ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from regionvlp.errors import InputError
from regionvlp.pipelines.cli import run
from regionvlp.pipelines.watching import Watcher, update_command
from regionvlp.search.folder import IndexManifest

OPTIONS = ("--detector", "own_detectors:Halves", "--window", "1s", "--stride", "500ms", "--frames", "2")


@pytest.fixture
def index(tmp_path: Path, make_clip: Callable[..., Path]) -> Path:
    make_clip(tmp_path / "videos" / "one.mp4", 1, frames=12)
    assert run(["index", "--videos", str(tmp_path / "videos"), "--out", str(tmp_path / "i"), *OPTIONS]) == 0
    return tmp_path / "i"


@contextmanager
def serving(index: Path, *arguments: str) -> Iterator[str]:
    """The address that a server printed."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    command = [sys.executable, "-m", "regionvlp", "serve", str(index), "--port", "0", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        yield line.split(" at ")[1].strip()
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) in (0, 130)


def asked(address: str, path: str) -> dict[str, object]:
    with urllib.request.urlopen(address.rstrip("/") + path, timeout=10) as got:
        found: dict[str, object] = json.load(got)
        return found


def test_a_server_takes_up_new_files(index: Path, make_clip: Callable[..., Path]) -> None:
    with serving(index, "--watch") as address:
        assert address.startswith("http://127.0.0.1:")
        assert len(asked(address, "/api/search?q=left+half")["results"]) == 1  # type: ignore[arg-type]
        make_clip(index.parent / "videos" / "two.mp4", 2, frames=12)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if len(asked(address, "/api/search?q=left+half")["results"]) == 2:  # type: ignore[arg-type]
                return
            time.sleep(0.5)
        pytest.fail("the new file was not taken up")


def test_beyond_this_machine_a_token_is_made(index: Path) -> None:
    with serving(index, "--host", "0.0.0.0") as address:
        assert "/?token=" in address
        plain = address.partition("?")[0].replace("0.0.0.0", "127.0.0.1")
        with pytest.raises(urllib.error.HTTPError, match="401"):
            asked(plain, "/api/search?q=left")


def test_two_servers_share_an_index(index: Path) -> None:
    with serving(index) as one, serving(index) as other:
        found = [asked(address, "/api/search?q=left")["results"] for address in (one, other)]
        assert found[0] == found[1]


def test_mistakes_are_one_line(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for arguments, words in (
            (["--port", port], "cannot listen on"),
            (["--host", "nowhere.invalid"], "--host nowhere.invalid"),
            (["--token", "short"], "8 or more letters"),
        ):
            assert run(["serve", str(index), *arguments]) == 2
            error = capsys.readouterr().err
            assert words in error
            assert error.count("\n") == 1
    assert run(["serve", str(index.parent / "videos")]) == 2
    assert "is no index" in capsys.readouterr().err


def test_an_index_of_shards_cannot_be_watched(index: Path, tmp_path: Path) -> None:
    shards = next((index / "regions").glob("part-*/manifest.json")).parent
    assert run(["index", "--shards", str(shards), "--out", str(tmp_path / "j")]) == 0
    with pytest.raises(InputError, match="nothing to watch"):
        Watcher(tmp_path / "j", IndexManifest.read(tmp_path / "j"))


def test_watching_indexes_as_it_was_done(index: Path) -> None:
    words = update_command(index, IndexManifest.read(index), "cpu")
    manifest = IndexManifest.read(index)
    assert run([str(word) for word in words[3:]]) == 0
    assert IndexManifest.read(index) == manifest
    shutil.rmtree(index / "regions")
