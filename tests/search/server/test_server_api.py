"""The JSON interface: the same as in Python, with addresses that lead somewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

import regionvlp
from regionvlp.search.server.desk import BusyError, Desk, Question
from regionvlp.search.server.metrics import Metrics
from regionvlp.search.server.schema import EXAMPLE, AnswersModel


def test_answers_are_those_of_python_with_addresses(client: TestClient, made: Path) -> None:
    got = client.get("/api/search", params={"q": "the left half", "top": 3})
    assert got.status_code == 200
    document = got.json()
    expected = json.loads(json.dumps(regionvlp.open_index(made / "index").search("the left half", top=3).to_dict()))
    addresses = [(result.pop("media"), result.pop("thumbnail")) for result in document["results"]]
    assert document == expected
    for media, thumbnail in addresses:
        assert client.get(media.partition("#")[0]).status_code == 200
        picture = client.get(thumbnail)
        assert picture.headers["content-type"] == "image/jpeg"
        assert picture.content[:2] == b"\xff\xd8"


def test_filters_and_likeness_are_those_of_python(client: TestClient, made: Path) -> None:
    index = regionvlp.open_index(made / "index")
    for asked, options in (
        ({"q": "half", "folder": "sub"}, {"folder": "sub"}),
        ({"q": "half", "longest": "3.5", "shortest": ""}, {"longest": 3.5}),
        ({"q": "half", "before": "2001-01-01"}, {"before": 978307200.0}),
        ({"like": "long.mp4@2s"}, {"like": "long.mp4@2s"}),
    ):
        got = client.get("/api/search", params=asked).json()["results"]
        expected = index.search(asked.get("q", ""), **options).results  # type: ignore[arg-type]
        assert [row["clip_id"] for row in got] == [result.clip_id for result in expected]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({}, "the query is empty"),
        ({"q": "   "}, "the query is empty"),
        ({"q": "x" * 2001}, "q: string should have at most 2000"),
        ({"q": "a", "top": "0"}, "top: "),
        ({"q": "a", "top": "100000"}, "top: "),
        ({"q": "a", "shortest": "nan"}, "shortest: "),
        ({"q": "a", "after": "yesterday"}, "'yesterday' is no date"),
        ({"like": "/etc/passwd"}, "the index holds no '/etc/passwd'"),
        ({"q": "a", "like": "long.mp4"}, "a query and 'like' were given"),
    ],
)
def test_mistakes_are_one_sentence(client: TestClient, asked: dict[str, str], words: str) -> None:
    got = client.get("/api/search", params=asked)
    assert got.status_code == 400
    assert words in got.json()["error"]
    assert set(got.json()) == {"error", "hint"}


def test_a_picture_needs_an_encoder_that_reads_pictures(client: TestClient, made: Path) -> None:
    got = client.post("/api/search/picture", content=(made / "videos" / "photo.jpg").read_bytes())
    assert (got.status_code, got.json()["error"]) == (400, "no encoder of this index reads pictures")


def test_the_schema_describes_what_is_given(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    assert {"/api/search", "/media", "/thumbnail", "/frame", "/cut", "/healthz", "/metrics"} <= set(schema["paths"])
    AnswersModel.model_validate(EXAMPLE)
    got = client.get("/api/search", params={"q": "left"}).json()
    AnswersModel.model_validate(got)
    assert set(got["results"][0]) == set(EXAMPLE["results"][0])
    assert set(got["results"][0]["words"][0]["boxes"][0]) == set(EXAMPLE["results"][0]["words"][0]["boxes"][0])


def test_metrics_count(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    for _ in range(3):
        client.get("/api/search", params={"q": "left <b>"})
    client.get("/<script>")
    text = client.get("/metrics").text
    found = re.search(r'requests_total\{route="/api/search",status="200"\} (\d+)', text)
    assert found is not None
    assert int(found[1]) >= 3
    assert "<" not in re.sub(r"# HELP.*", "", text)
    assert re.search(r"^regionvlp_index_files 5$", text, re.MULTILINE)


def test_buckets_are_cumulative() -> None:
    metrics = Metrics()
    for seconds in (0.004, 0.02, 0.02, 30.0):
        metrics.searched(seconds)
    counts = dict(re.findall(r'bucket\{le="([^"]+)"\} (\d+)', metrics.text()))
    assert (counts["0.005"], counts["0.01"], counts["0.025"], counts["10"], counts["+Inf"]) == ("1", "1", "3", "3", "4")
    assert "regionvlp_search_seconds_sum 30.044" in metrics.text()


def test_too_many_waiting_searches_are_sent_away(made: Path) -> None:
    desk = Desk(made / "index", most_waiting=1)
    with desk._waiting, pytest.raises(BusyError):
        desk.ask(Question("left"))
    opened, first = desk.ask(Question("left"))
    assert desk.ask(Question("left"))[1] is first  # remembered
    assert opened is desk.opened
