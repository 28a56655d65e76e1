"""The page: whole without scripts, small, and deaf to what files and queries are called."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from regionvlp.errors import InputError
from regionvlp.pipelines.cli import run
from regionvlp.search.answers import Answers, Result, WordAnswer, WordBox
from regionvlp.search.encoders.labels import LabelWords
from regionvlp.search.server.cards import cards, document
from regionvlp.search.server.desk import Desk
from regionvlp.search.server.settings import MOST_RESULTS, ON_A_PAGE
from regionvlp.search.server.site import Site
from regionvlp.search.writer import IndexWriter

from .conftest import NASTY, Serve, write_clip

EVIL = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }}",
    "</title><h1>",
    "' onfocus='x",
    "\u202egnp.exe",
]


class Tags(HTMLParser):
    """All start tags with their attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def check_closed(html: str) -> Tags:
    page = Tags(html)
    scripts = [attributes for tag, attributes in page.tags if tag == "script"]
    assert all("nonce" in attributes and "src" not in attributes for attributes in scripts)
    assert len(scripts) <= 1
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], tag
        for name in ("src", "href", "action"):
            value = attributes.get(name) or "/"
            assert value.startswith(("/", "#", "data:image/svg+xml,")), value
            assert not value.startswith("//")
    return page


@pytest.mark.parametrize("text", EVIL)
def test_nothing_becomes_markup(client: TestClient, text: str) -> None:
    for asked in ({"q": f"left {text}"}, {"q": "left", "folder": text}, {"q": "a", "after": text}, {"like": text}):
        page = check_closed(client.get("/", params=asked).text)
        assert "49" not in page.text or "{{" not in text
        check_closed(client.get("/results", params=asked).text)
        assert client.get("/api/search", params=asked).headers["content-type"] == "application/json"
    page = check_closed(client.get("/", params={"q": "left"}).text)
    assert NASTY in page.text


def test_it_works_as_a_plain_form(client: TestClient) -> None:
    page = Tags(client.get("/").text)
    (form,) = [attributes for tag, attributes in page.tags if tag == "form"]
    assert (form["action"], form["method"]) == ("/", "get")
    names = {attributes.get("name") for tag, attributes in page.tags if tag == "input"}
    assert {"q", "folder", "shortest", "longest", "after", "before"} <= names
    found = Tags(client.get("/", params={"q": "left right", "folder": "sub", "shortest": "", "after": ""}).text)
    pictures = [attributes["src"] for tag, attributes in found.tags if tag == "img"]
    assert pictures
    for source in pictures:
        assert client.get(str(source)).status_code == 200
    boxes = [attributes for tag, attributes in found.tags if tag == "rect" and str(attributes["class"]).startswith("w")]
    assert {(box["x"], box["width"]) for box in boxes} == {("0.0", "32.0"), ("32.0", "32.0")}
    chosen = [attributes for tag, attributes in found.tags if tag == "input" and "checked" in attributes]
    assert {attributes["name"] for attributes in chosen} == {"w1", "t1"}
    links = [str(attributes["href"]) for tag, attributes in found.tags if tag == "a" and attributes.get("href")]
    for link in links:
        if link.startswith(("/?", "/media", "/cut")):
            assert client.get(link.partition("#")[0]).status_code == 200, link


def test_the_nonce_is_new_and_that_of_the_policy(client: TestClient) -> None:
    nonces = set()
    for _ in range(2):
        got = client.get("/")
        (nonce,) = set(re.findall(r'nonce="([^"]+)"', got.text))
        assert f"script-src 'nonce-{nonce}'" in got.headers["content-security-policy"]
        nonces.add(nonce)
    assert len(nonces) == 2


def answers(made: Path, count: int, present: float = 0.9, words: int = 6) -> tuple[Desk, Answers]:
    """As many answers as are asked for, all of one clip, with a box in each of eight frames for each word."""
    desk = Desk(made / "index")
    boxes = tuple(WordBox(t / 4, (1.0, 2.0, 33.3, 44.4), 0.5, "left half", 0.25, 37) for t in range(8))
    given = tuple(WordAnswer(f"word{n}", boxes) for n in range(words))
    result = Result("long.mp4", str(made / "videos" / "long.mp4"), 0.0, 4.0, 0.5, given, clip_id="long.mp4@0s")
    return desk, Answers("six words", present, (result,) * count)


def test_a_full_page_is_small(made: Path) -> None:
    desk, found = answers(made, ON_A_PAGE)
    html = Site().page(desk.opened, {"q": "six words"}, found).body
    assert len(html) < 100_000


def test_as_many_answers_as_may_be_asked_for_are_drawn(made: Path) -> None:
    desk, found = answers(made, MOST_RESULTS, words=1)
    assert len(document(found)["results"]) == MOST_RESULTS
    html = bytes(Site().part(desk.opened, {"q": "six words"}, found).body).decode()
    assert html.count("<article") == MOST_RESULTS


def test_the_certificate_is_told(made: Path) -> None:
    desk, found = answers(made, 1)
    (card,) = cards(desk.opened, found)
    assert {rect.reason for rect in card.rects if rect.word == 0} == {
        "seen as left half; without this box: rank 1 to 37"
    }
    assert len(card.frames) == 8


def test_answers_that_are_probably_none_are_folded(made: Path) -> None:
    desk, found = answers(made, 2, present=0.1)
    html = bytes(Site().part(desk.opened, {"q": "six words"}, found).body).decode()
    assert "Probably not in these videos" in html
    assert html.index('<details class="nearest">') < html.index("<article")


def test_an_index_that_grows_is_taken_up(made: Path, tmp_path: Path, serve: Serve) -> None:
    with IndexWriter(tmp_path / "i", [LabelWords()], cut={"by": "windows"}, source={}) as writer:
        writer.finish()
    desk = Desk(tmp_path / "i")
    client = serve(desk)
    assert "holds no clip yet" in client.get("/").text
    assert client.get("/", params={"q": "left"}).status_code == 400
    assert not desk.refresh()
    write_clip(tmp_path / "videos" / "new.mp4", 9)
    arguments = ["--videos", str(tmp_path / "videos"), "--detector", "own_detectors:Halves", "--frames", "2"]
    assert run(["index", *arguments, "--out", str(tmp_path / "j")]) == 0
    desk = Desk(tmp_path / "j")
    client = serve(desk)
    before = client.get("/api/search", params={"q": "left"}).json()["results"]
    write_clip(tmp_path / "videos" / "newer.mp4", 10)
    assert run(["index", *arguments, "--out", str(tmp_path / "j")]) == 0
    assert desk.refresh()
    after = client.get("/api/search", params={"q": "left"}).json()["results"]
    assert {row["video_id"] for row in after} - {row["video_id"] for row in before} == {"newer.mp4"}
    (tmp_path / "j" / "contents.json").write_text("{")  # damaged: what was opened answers on
    assert not desk.refresh()
    assert client.get("/api/search", params={"q": "left"}).json()["results"] == after


def test_no_index_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no index"):
        Desk(tmp_path / "nowhere")
