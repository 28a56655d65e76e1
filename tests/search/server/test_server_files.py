"""Files: byte for byte, in any range, and none but those that the index names."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import av
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from regionvlp.search.server.settings import ServerSettings
from regionvlp.video import read_frames

from .conftest import NASTY, SECRET, Serve

SHORT = "sub/short.mp4@0s"


def media(name: str) -> str:
    return f"/media?clip={quote(name)}"


@pytest.mark.parametrize(
    ("asked", "first", "last"), [("bytes=0-99", 0, 99), ("bytes=100-", 100, None), ("bytes=-50", -50, None)]
)
def test_ranges_are_those_of_the_file(client: TestClient, made: Path, asked: str, first: int, last: int | None) -> None:
    whole = (made / "videos" / "sub" / "short.mp4").read_bytes()
    got = client.get(media(SHORT), headers={"Range": asked})
    assert got.status_code == 206
    assert got.content == whole[first : None if last is None else last + 1]
    assert got.headers["content-type"] == "video/mp4"
    assert client.get(media(SHORT)).content == whole
    assert client.head(media(SHORT)).headers["content-length"] == str(len(whole))


def test_odd_ranges_are_answered(client: TestClient, made: Path) -> None:
    size = (made / "videos" / "sub" / "short.mp4").stat().st_size
    for asked in ("bytes=5-3", "bytes=-", "bits=0-1", "bytes=a-b", f"bytes={size}-", "bytes=0-0,0-0,0-9,5-20"):
        got = client.get(media(SHORT), headers={"Range": asked})
        assert got.status_code in (200, 206, 400, 416), asked


@pytest.mark.parametrize(
    "name",
    [
        "../secret.mp4",
        "/etc/passwd",
        "notes.txt",
        "..%2fsecret.mp4",
        "sub",
        "",
        "long.mp4\x00",
        "LONG.MP4",
        "sub/../long.mp4",
    ],
)
def test_what_the_index_does_not_name_is_not_there(client: TestClient, made: Path, name: str) -> None:
    for path in ("/media", "/thumbnail", "/frame", "/cut"):
        got = client.get(path, params={"clip": name, "start": 0, "end": 1})
        assert got.status_code == 404
        assert SECRET not in got.content
    for path in map(quote, (f"/{name}", f"/media/{name}", f"/videos/{name}", f"/{made}/{name}")):
        assert SECRET not in client.get(path).content


@pytest.fixture
def swapped(made: Path) -> Iterator[Path]:
    """The file of an indexed clip, for the test to replace."""
    path = made / "videos" / "sub" / "short.mp4"
    kept = path.with_suffix(".kept")
    path.rename(kept)
    yield path
    path.unlink(missing_ok=True)
    kept.rename(path)


def test_a_link_out_of_the_folder_is_not_followed(serve: Serve, made: Path, swapped: Path) -> None:
    swapped.symlink_to(made / "secret.mp4")
    asked = {"clip": SHORT, "start": 0, "end": 1}
    for path in ("/media", "/frame", "/cut"):
        got = serve().get(path, params=asked)
        assert got.status_code == 404
        assert "leads out" in got.json()["error"]
    assert serve(follow_links=True).get("/media", params=asked).content == SECRET


def test_a_video_that_has_gone_is_told(client: TestClient, swapped: Path) -> None:
    asked = {"clip": SHORT, "start": 0, "end": 1}
    for path in ("/media", "/frame", "/cut"):
        assert client.get(path, params=asked).status_code == 404
    assert client.get("/thumbnail", params=asked).status_code == 200  # the index keeps it
    page = client.get("/", params={"q": "left", "folder": "sub"})
    assert page.status_code == 200
    swapped.mkdir()
    assert client.get("/media", params=asked).status_code == 404
    swapped.rmdir()


def test_frames_are_those_of_the_file(client: TestClient, made: Path) -> None:
    video = read_frames(made / "videos" / "long.mp4", 48)
    for k in (0, 20, 47):
        got = client.get("/frame", params={"clip": "long.mp4@0s", "at": round(float(video.frame_time[k]), 3)})
        with Image.open(io.BytesIO(got.content)) as image:
            seen = np.asarray(image.convert("RGB"), np.int16)
        others = [np.abs(seen - video.frames[other]).mean() for other in range(48)]
        assert int(np.argmin(others)) == k
    assert client.get("/frame", params={"clip": "long.mp4@0s", "at": 9999}).status_code == 404
    assert client.get("/frame", params={"clip": "photo.jpg", "at": 5}).status_code in (200, 404)


def test_moments_are_cut_out(client: TestClient, made: Path) -> None:
    got = client.get("/cut", params={"clip": f"{NASTY}@0s", "start": 0, "end": 1})
    assert got.status_code == 200
    assert got.headers["content-disposition"].startswith('attachment; filename="')
    assert "<" not in got.headers["content-disposition"]
    with av.open(io.BytesIO(got.content)) as container:
        assert 8 <= sum(1 for _ in container.decode(video=0)) <= 24
    for start, end in ((3, 1), (0, 5000), (9000, 9001)):
        assert client.get("/cut", params={"clip": f"{NASTY}@0s", "start": start, "end": end}).status_code == 400


def test_an_index_without_files_answers(serve: Serve, made: Path, tmp_path: Path) -> None:
    """Made of shards alone, it knows no file: answers, but nothing to play."""
    from regionvlp.pipelines.cli import run
    from regionvlp.search.server.desk import Desk

    shards = next((made / "index" / "regions").glob("part-*/manifest.json")).parent
    shutil.copytree(shards, tmp_path / "shards")
    assert run(["index", "--shards", str(tmp_path / "shards"), "--out", str(tmp_path / "i")]) == 0
    client = serve(Desk(tmp_path / "i"))
    assert ServerSettings().local
    (first, *_) = client.get("/api/search", params={"q": "left"}).json()["results"]
    assert (first["media"], first["path"]) == ("", "")
    assert client.get("/media", params={"clip": first["clip_id"]}).status_code == 404
    assert client.get(first["thumbnail"]).status_code == 404
    assert client.get("/", params={"q": "left"}).status_code == 200
