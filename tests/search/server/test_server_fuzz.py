"""Fuzzed paths, queries, ranges and headers: no answer is an error of the server, and nothing outside is served.

A sample by default; the 2,000 of the target with ``-m slow``.
"""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from .conftest import NASTY, SECRET

PATHS = (
    "/", "/results", "/api/search", "/media", "/thumbnail", "/frame", "/cut", "/metrics", "/healthz", "/openapi.json",
    "/picture", "/api/search/picture", "/docs", "/static/page.js", "/media/../secret.mp4", "/..%2f..%2fetc/passwd",
    "//evil.example", "/%00", "/%ff%fe", "/media;x",
)  # fmt: skip
NAMES = [
    "q",
    "like",
    "top",
    "folder",
    "after",
    "before",
    "shortest",
    "longest",
    "clip",
    "at",
    "start",
    "end",
    "token",
    "q[]",
]
VALUES = (
    "", "left", "half right", "long.mp4@0s", "sub/short.mp4@0s", f"{NASTY}@0s", "photo.jpg", "notes.txt",
    "../secret.mp4", "/etc/passwd", "file:///etc/passwd", "long.mp4@nan", "long.mp4@1e999s", "0", "-1", "1", "1e309",
    "nan", "inf", "2026-03-01", "0001-01-01", "9999-12-31T23:59:59", "' OR 1=1 --", '" NEAR(', "*", "[", "[!]",
    "\U0001f600", "\u202e", "\x00", "%00", "a" * 3000, "<script>", "{{7*7}}", "\u0000left", "\uff24\uff2f\uff27", "-",
    "AND OR NOT", "sub", "*.jpg", "**", "?" * 50,
)  # fmt: skip
RANGES = (
    "bytes=0-", "bytes=0-0", "bytes=-1", "bytes=5-1", "bytes=99999999-", "bytes=0-1,1-2,0-99", "bytes=", "items=0-1",
    "bytes=0-0" + ",0-0" * 300, "bytes=-0", "bytes=18446744073709551616-", "bytes=a-b", "bytes=--1", "\u00e9",
)  # fmt: skip
HEADERS = ("Range", "If-Range", "If-None-Match", "Cookie", "Authorization", "Content-Type", "Accept", "X-Forwarded-For")


def fuzzed(client: TestClient, rng: random.Random) -> tuple[str, int, bytes]:
    method = rng.choices(("GET", "HEAD", "POST", "PUT", "OPTIONS"), (20, 3, 3, 1, 1))[0]
    path = "/media" if rng.random() < 0.2 else rng.choice(PATHS)
    asked = [(rng.choice(NAMES), rng.choice(VALUES)) for _ in range(rng.randrange(5))]
    if rng.random() < 0.5:
        asked.append(("clip", rng.choice(VALUES[3:8])))
    headers = {rng.choice(HEADERS): rng.choice(RANGES + VALUES[:6]) for _ in range(rng.randrange(3))}
    if path == "/media" and rng.random() < 0.7:
        headers["Range"] = rng.choice(RANGES)
    content = rng.randbytes(rng.choice((0, 10, 5000))) if method in ("POST", "PUT") else None
    safe = {name: value.encode("utf-8") for name, value in headers.items()}
    got = client.request(method, path, params=asked, headers=safe, content=content)
    return f"{method} {path} {asked} {headers}", got.status_code, got.content


@pytest.mark.parametrize(("count", "seed"), [(300, 0), pytest.param(2000, 1, marks=pytest.mark.slow)])
def test_no_request_breaks_the_server(client: TestClient, made: Path, count: int, seed: int) -> None:
    rng, seen = random.Random(seed), Counter[int]()
    media = {path.read_bytes() for path in (made / "videos").rglob("*") if path.suffix in (".mp4", ".jpg")}
    for _ in range(count):
        asked, status, content = fuzzed(client, rng)
        seen[status] += 1
        assert status < 500, asked
        assert SECRET not in content, asked
        assert b"root:" not in content, asked
        if asked.startswith("GET /media ") and status == 200:
            assert content in media
    assert {200, 206, 400, 404, 405, 416} <= set(seen)
