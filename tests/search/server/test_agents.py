"""The search of agents: asked by the official package's own client, in memory."""

from __future__ import annotations

import asyncio
import builtins
from pathlib import Path
from typing import Any

import pytest

from regionvlp.errors import InputError
from regionvlp.pipelines.cli import run
from regionvlp.search.answers import Answers, Result, WordAnswer, WordBox
from regionvlp.search.server.agents import create_agent_server, evidence
from regionvlp.search.server.desk import Desk, Question


def ask(desk: Desk, **arguments: object) -> Any:
    """What the tool answers."""
    mcp = pytest.importorskip("mcp", reason="the extra 'mcp' is not installed")

    async def asked() -> Any:
        async with mcp.Client(create_agent_server(desk)) as client:
            tools = (await client.list_tools()).tools
            assert [tool.name for tool in tools] == ["search_videos"]
            assert tools[0].output_schema["required"] == ["query", "probability", "cards", "notes"]
            return await client.call_tool("search_videos", arguments)

    return asyncio.run(asked())


def test_cards_say_what_the_search_says(desk: Desk) -> None:
    found = ask(desk, query="left  half", top=2)
    assert not found.is_error
    answers = desk.ask(Question("left half", top=2))[1]
    cards, results = found.structured_content["cards"], answers.results
    assert found.structured_content["probability"] == answers.present
    assert [(card["file"], card["start"], card["end"]) for card in cards] == [
        (result.video_id, result.start, result.end) for result in results
    ]
    boxes = [box for card in cards for word in card["words"] for box in word["boxes"]]
    assert boxes
    assert {box["label"] for box in boxes} == {"left half"}
    alike = ask(desk, like=cards[0]["clip_id"], top=1, folder="sub")
    assert [card["file"] for card in alike.structured_content["cards"]] == ["sub/short.mp4"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "the query is empty"),
        ({"like": "/etc/passwd"}, "/etc/passwd"),
        ({"query": "a", "after": "soon"}, "soon"),
        ({"query": "a", "top": 0}, "top"),
        ({"query": "a" * 3000}, "query"),
    ],
)
def test_mistakes_are_said_to_the_agent(desk: Desk, arguments: dict[str, object], words: str) -> None:
    found = ask(desk, **arguments)
    assert found.is_error
    assert words in found.content[0].text
    assert "Traceback" not in found.content[0].text


def test_a_certificate_names_the_ranks() -> None:
    boxes = (WordBox(1.0, (0, 0, 4, 4), 0.9, "dog", 0.2, 37), WordBox(2.0, (0, 0, 4, 4), 0.5))
    result = Result("a.mp4", "/v/a.mp4", 0, 4, 0.7, (WordAnswer("dog", boxes), WordAnswer("a", ())), clip_id="a.mp4@0s")
    (card,) = evidence(Answers("a dog", 0.9, (result,))).cards
    assert card.certificate == ["without the box of 'dog' at 1 s: rank 1 to 37"]
    assert card.words[0].boxes[0].box == (0, 0, 4, 4)


def test_without_the_package_it_is_said(
    made: Path, desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name.split(".")[0] == "mcp":
            raise ImportError(name)
        return whole(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match="not installed"):
        create_agent_server(desk)
    assert run(["mcp", str(made / "index")]) == 2
    assert "pip install 'regionvlp[mcp]'" in capsys.readouterr().err
