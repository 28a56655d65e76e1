"""The same search for agents, by the Model Context Protocol: one tool, whose answers are evidence cards.

In: an opened index. Out: a server of the official package ``mcp``, which speaks over standard input and output.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, Field

from regionvlp import __version__
from regionvlp.errors import InputError, RegionVLPError
from regionvlp.search.answers import Answers, Result
from regionvlp.search.index import parse_moment
from regionvlp.search.server.desk import Desk, Question
from regionvlp.search.server.schema import CopyModel, WordModel
from regionvlp.search.server.settings import LONGEST_QUERY

if TYPE_CHECKING:
    from mcp.server import MCPServer

MOST_CARDS = 50
ABOUT = (
    "Finds moments of the user's own videos that a sentence describes. Each card names the file and the seconds, for "
    "each word the boxes that answer it, and what becomes of the rank without them. If 'probability' is below 0.5, the "
    "videos probably show no such thing: say so rather than trust the cards."
)


class EvidenceCard(BaseModel):
    """A moment, with what speaks for it."""

    rank: int
    clip_id: str = Field(description="Give it as 'like' to search for more of the kind.")
    file: str = Field(description="As people name it.")
    path: str = Field(description="Where it lies; empty where that is not known.")
    start: float = Field(description="Seconds from the file's first frame.")
    end: float = Field(description="Equal to start for a picture.")
    score: float = Field(description="Comparable within one search only.")
    words: list[WordModel]
    certificate: list[str] = Field(description="For boxes that were taken out: the rank with and without.")
    copies: list[CopyModel]


class Evidence(BaseModel):
    """A finished search, the best card first."""

    query: str
    probability: float = Field(description="That any answer exists. Cards are given whatever it is.")
    cards: list[EvidenceCard]
    notes: list[str]


def evidence(answers: Answers) -> Evidence:
    """A finished search as an agent reads it."""
    return Evidence(
        query=answers.query,
        probability=answers.present,
        cards=[_card(rank, result) for rank, result in enumerate(answers.results, start=1)],
        notes=list(answers.notes),
    )


def _card(rank: int, result: Result) -> EvidenceCard:
    return EvidenceCard(
        rank=rank,
        clip_id=result.clip_id,
        file=result.video_id,
        path=result.path,
        start=result.start,
        end=result.end,
        score=result.score,
        words=[WordModel.model_validate(asdict(word)) for word in result.words],
        certificate=list(_certificate(rank, result)),
        copies=[CopyModel.model_validate(asdict(copy)) for copy in result.copies],
    )


def _certificate(rank: int, result: Result) -> Iterator[str]:
    for word in result.words:
        for box in word.boxes:
            if box.rank_without is not None:
                yield f"without the box of '{word.word}' at {box.time:g} s: rank {rank} to {box.rank_without}"


def create_agent_server(desk: Desk) -> MCPServer:
    """A server with the tool ``search_videos``.

    Args:
        desk: answers questions; an index that has changed is opened anew before the next one.

    Raises:
        InputError: the package ``mcp`` is not installed.
    """
    try:
        from mcp.server import MCPServer
        from mcp.server.mcpserver.exceptions import ToolError
    except ImportError:
        raise InputError("the package 'mcp' is not installed", "pip install 'regionvlp[mcp]'") from None
    server = MCPServer("regionvlp", version=__version__, instructions=ABOUT, log_level="WARNING")

    def search_videos(
        query: Annotated[str, Field(max_length=LONGEST_QUERY, description="What to look for, as a sentence.")] = "",
        like: Annotated[str | None, Field(description="A clip_id instead of a query: more like it.")] = None,
        top: Annotated[int, Field(ge=1, le=MOST_CARDS, description="The most cards.")] = 5,
        folder: Annotated[str | None, Field(description="Only files below it, or of a pattern such as *.jpg.")] = None,
        after: Annotated[str | None, Field(description="Only files that changed since: 2026-03-01.")] = None,
        before: Annotated[str | None, Field(description="Only files that changed before.")] = None,
        shortest: Annotated[float | None, Field(ge=0, description="Only files at least so long, in seconds.")] = None,
        longest: Annotated[float | None, Field(ge=0, description="Only files at most so long, in seconds.")] = None,
    ) -> Evidence:
        try:
            since, until = (None if day is None else parse_moment(day) for day in (after, before))
            desk.refresh()
            question = Question(" ".join(query.split()), like, top, folder, since, until, shortest, longest)
            return evidence(desk.ask(question)[1])
        except RegionVLPError as error:
            raise ToolError(f"{error.message}; {error.hint}" if error.hint else error.message) from None

    server.add_tool(search_videos, description=ABOUT)
    return server
