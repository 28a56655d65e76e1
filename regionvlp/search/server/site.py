"""The page: one document with its style and script, drawn on the server whether or not a browser runs scripts."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from starlette.responses import HTMLResponse

from regionvlp.errors import RegionVLPError
from regionvlp.report.page import environment
from regionvlp.search.answers import Answers
from regionvlp.search.server.cards import COLOURS, MOST_FRAMES, address, cards, cards_of_rows
from regionvlp.search.server.desk import Opened
from regionvlp.search.server.settings import LONGEST_QUERY, MOST_RESULTS, ON_A_PAGE

FIRST_SIGHT = 12  # files that are shown before anything is asked
MOST_WORDS = 32
FIELDS = ("q", "like", "folder", "after", "before", "shortest", "longest")
FILTERS = FIELDS[2:]


class Site:
    """Draws the page."""

    def __init__(self) -> None:
        self._templates = environment("regionvlp.search.server")

    def page(self, opened: Opened, asked: Mapping[str, str], answers: Answers | None) -> HTMLResponse:
        """The whole document.

        Args:
            opened: the index. asked: the fields of the form as a client sent them. answers: to them, if any.
        """
        return self._document(self._values(opened, asked, answers), opened, asked)

    def part(self, opened: Opened, asked: Mapping[str, str], answers: Answers | None) -> HTMLResponse:
        """What a query changes of it."""
        return HTMLResponse(
            self._templates.get_template("answers.html.j2").render(self._values(opened, asked, answers))
        )

    def failed(self, opened: Opened, asked: Mapping[str, str], error: RegionVLPError, status: int) -> HTMLResponse:
        """The document for a question that cannot be answered."""
        values = {**self._values(opened, asked, None), "error": error}
        response = self._document(values, opened, asked)
        response.status_code = status
        return response

    def failed_part(self, opened: Opened, error: RegionVLPError, status: int) -> HTMLResponse:
        """What changes of it."""
        values = {**self._values(opened, {}, None), "error": error}
        return HTMLResponse(self._drawn("answers.html.j2", values), status)

    def _drawn(self, template: str, values: dict[str, Any]) -> str:
        html = self._templates.get_template(template).render(values)
        return "\n".join(line.strip() for line in html.splitlines())  # a third of it would be indentation

    def _document(self, values: dict[str, Any], opened: Opened, asked: Mapping[str, str]) -> HTMLResponse:
        nonce = secrets.token_urlsafe(16)
        fields = {name: asked.get(name, "")[:LONGEST_QUERY] for name in FIELDS}
        about = {
            "nonce": nonce,
            "fields": fields,
            "filtered": any(fields[name] for name in FILTERS),
            "folders": opened.folders,
            "clips": len(opened.index),
            "files": len(opened.lengths),
            "unread": len(opened.index.unread),
            "encoders": [record.name for record in opened.index.manifest.encoders],
            "reads_pictures": opened.reads_pictures,
            "longest_query": LONGEST_QUERY,
            "colours": COLOURS,
            "most_words": MOST_WORDS,
            "most_frames": MOST_FRAMES,
        }
        html = self._drawn("page.html.j2", {**values, **about})
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src 'self' data:; "
            "media-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        )
        return HTMLResponse(html, headers={"Content-Security-Policy": policy})

    def _values(self, opened: Opened, asked: Mapping[str, str], answers: Answers | None) -> dict[str, Any]:
        shown = cards_of_rows(opened, opened.first_rows(FIRST_SIGHT)) if answers is None else cards(opened, answers)
        kept = {name: asked.get(name, "") for name in FIELDS}
        more = ""
        if answers is not None and asked:
            top = len(shown)
            if top == _number(asked.get("top"), ON_A_PAGE) and top < MOST_RESULTS:
                more = address("/", **kept, top=min(MOST_RESULTS, 4 * top))
        sentence = bool(kept["q"].strip())
        return {
            "sentence": sentence,
            "answers": answers,
            "cards": shown,
            "more": more,
            "error": None,
            "address": address,
        }


def _number(text: str | None, default: int) -> int:
    return int(text) if text and text.isdecimal() and text.isascii() else default
