"""Who is let in, and what every answer carries."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from regionvlp.errors import InputError
from regionvlp.search.server.guard import Rate
from regionvlp.search.server.settings import checked_token, is_loopback

from .conftest import Serve

TOKEN = "a-long-token"


def test_this_machine_alone_needs_no_token_but_its_own_name(client: TestClient) -> None:
    for host, status in (
        ("localhost:8080", 200), ("127.0.0.1", 200), ("[::1]:80", 200),
        ("evil.example", 403), ("localhost.evil.example", 403), ("", 403), ("10.0.0.1", 403),
    ):  # fmt: skip
        assert client.get("/", headers={"Host": host}).status_code == status, host
        assert client.get("/healthz", headers={"Host": host}).status_code == 200


def test_a_token_opens(serve: Serve) -> None:
    client = serve(host="0.0.0.0", token=TOKEN)
    for path in ("/", "/results?q=left", "/api/search?q=left", "/metrics", "/openapi.json", "/media?clip=long.mp4@0s"):
        assert client.get(path).status_code == 401
        assert client.get(path, headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert client.get(path, headers={"Cookie": "regionvlp=wrong"}).status_code == 401
        assert client.get(path, headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert client.get("/healthz").status_code == 200
    assert client.get("/?token=wrong&q=left").status_code == 401
    door = client.get(f"/?token={TOKEN}&q=left", follow_redirects=False)
    assert (door.status_code, door.headers["location"]) == (303, "/?q=left")
    assert "HttpOnly" in door.headers["set-cookie"]
    assert "SameSite=strict" in door.headers["set-cookie"]
    assert client.get("/?q=left").status_code == 200  # the cookie


def test_tokens_are_made_where_others_can_connect() -> None:
    assert checked_token("127.0.0.1", None) == ""
    assert checked_token("127.0.0.1", TOKEN) == TOKEN
    made = {checked_token("0.0.0.0", None) for _ in range(3)}
    assert len(made) == 3
    assert min(map(len, made)) >= 16
    for token in ("short", "with space", "ünsafe-token"):
        with pytest.raises(InputError):
            checked_token("0.0.0.0", token)
    assert [is_loopback(host) for host in ("::1", "127.9.9.9", "0.0.0.0", "example.org", "")] == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_every_answer_is_closed_to_others(client: TestClient, made: Path) -> None:
    for path in (
        "/",
        "/?q=left",
        "/results?q=left",
        "/api/search?q=left",
        "/media?clip=long.mp4@0s",
        "/nowhere",
        "/metrics",
    ):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert "access-control-allow-origin" not in headers


def test_the_rate_is_a_bucket_that_fills_with_time() -> None:
    rate = Rate(2.0)
    allowed = [rate.allows("a", 0.0) for _ in range(12)]
    assert allowed == [True] * 10 + [False] * 2
    assert [rate.allows("a", 1.0) for _ in range(3)] == [True, True, False]
    assert rate.allows("b", 1.0)
    assert all(Rate(0.0).allows("a", 0.0) for _ in range(100))


def test_other_machines_are_slowed_down(serve: Serve) -> None:
    client = serve(host="0.0.0.0", token=TOKEN, rate=1.0)  # the client of the tests is called testclient
    client.headers["Authorization"] = f"Bearer {TOKEN}"
    got = [client.get("/api/search?q=left").status_code for _ in range(8)]
    assert got[:5] == [200] * 5
    assert got[-1] == 429
    assert client.get("/thumbnail?clip=long.mp4@0s").status_code == 200


def test_long_addresses_are_refused(client: TestClient) -> None:
    assert client.get("/api/search?q=left&x=" + "a" * 20_000).status_code == 414
