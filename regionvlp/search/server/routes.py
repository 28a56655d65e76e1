"""The addresses of a server."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from pydantic import BeforeValidator, Field
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool

from regionvlp.errors import InputError
from regionvlp.search.answers import Answers
from regionvlp.search.index import parse_moment
from regionvlp.search.server.cards import address, document
from regionvlp.search.server.desk import Desk, Opened, Question
from regionvlp.search.server.files import clip_of, file_of, media_response
from regionvlp.search.server.metrics import CONTENT_TYPE
from regionvlp.search.server.pictures import Frames
from regionvlp.search.server.schema import AnswersModel, ErrorModel
from regionvlp.search.server.settings import LONGEST_QUERY, MOST_BYTES, MOST_RESULTS, ON_A_PAGE, ServerSettings
from regionvlp.search.server.site import Site

router = APIRouter()
ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorModel, "description": "The question cannot be answered."},
    503: {"model": ErrorModel, "description": "Too many searches are waiting, or the index is damaged."},
}


def _none_if_empty(value: object) -> object:
    return None if value == "" else value  # a form sends its empty fields


def _desk(request: Request) -> Desk:
    found: Desk = request.app.state.desk
    return found


def _settings(request: Request) -> ServerSettings:
    found: ServerSettings = request.app.state.settings
    return found


def _frames(request: Request) -> Frames:
    found: Frames = request.app.state.frames
    return found


def _site(request: Request) -> Site:
    found: Site = request.app.state.site
    return found


DeskOf = Annotated[Desk, Depends(_desk)]
SettingsOf = Annotated[ServerSettings, Depends(_settings)]
FramesOf = Annotated[Frames, Depends(_frames)]
SiteOf = Annotated[Site, Depends(_site)]
Text = Annotated[Annotated[str, Field(max_length=1000)] | None, BeforeValidator(_none_if_empty)]
Seconds = Annotated[Annotated[float, Field(ge=0, le=1e9)] | None, BeforeValidator(_none_if_empty)]
Top = Annotated[Annotated[int, Field(ge=1, le=MOST_RESULTS)] | None, BeforeValidator(_none_if_empty)]
ClipId = Annotated[str, Query(max_length=4000, description="The `clip_id` of a result.")]


def _question(
    q: Annotated[str, Query(max_length=LONGEST_QUERY, description="What to look for.")] = "",
    like: Annotated[Text, Query(description="A moment of the index instead: clip.mp4@12s.")] = None,
    top: Annotated[Top, Query(description="The most results.")] = None,
    folder: Annotated[Text, Query(description="Only files below it, or of a pattern such as *.jpg.")] = None,
    after: Annotated[Text, Query(description="Only files that changed since: 2026-03-01.")] = None,
    before: Annotated[Text, Query(description="Only files that changed before.")] = None,
    shortest: Annotated[Seconds, Query(description="Only files at least so long, in seconds.")] = None,
    longest: Annotated[Seconds, Query(description="Only files at most so long, in seconds.")] = None,
) -> Question:
    since, until = (None if day is None else parse_moment(day) for day in (after, before))
    return Question(" ".join(q.split()), like, top or 0, folder, since, until, shortest, longest)


Asked = Annotated[Question, Depends(_question)]


def _with_top(question: Question, top: int) -> Question:
    return question if question.top else Question(**{**vars(question), "top": top})


@router.get("/api/search", response_model=AnswersModel, responses=ERRORS, tags=["search"])
def search(question: Asked, desk: DeskOf) -> Response:
    """The moments that answer a sentence (`q`), or that are like another one (`like`), the best first."""
    return JSONResponse(document(desk.ask(_with_top(question, 10))[1]))


@router.post(
    "/api/search/picture",
    response_model=AnswersModel,
    responses=ERRORS,
    tags=["search"],
    openapi_extra={"requestBody": {"required": True, "content": {"image/*": {}}}},
)
async def search_by_picture(
    request: Request, desk: DeskOf, top: Annotated[int, Query(ge=1, le=MOST_RESULTS)] = 10
) -> Response:
    """The moments that are like a picture, which is the body of the request: JPEG, PNG, WebP and others.

    Only where an encoder of the index reads pictures.
    """
    return JSONResponse(document((await _by_picture(request, desk, top))[1]))


async def _by_picture(request: Request, desk: Desk, top: int) -> tuple[Opened, Answers]:
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > MOST_BYTES:
            raise InputError(f"the picture has more than {MOST_BYTES / 1e6:g} MB", "make it smaller")
    return await run_in_threadpool(desk.ask_by_picture, bytes(data), top)


@router.get("/", include_in_schema=False)
def page(request: Request, question: Asked, desk: DeskOf, site: SiteOf) -> Response:
    """The page, with the answers to its query."""
    asked = bool(question.query or question.like)
    opened, answers = desk.ask(_with_top(question, ON_A_PAGE)) if asked else (desk.opened, None)
    return site.page(opened, request.query_params, answers)


@router.get("/results", include_in_schema=False)
def results(request: Request, question: Asked, desk: DeskOf, site: SiteOf) -> Response:
    """The part of the page that a query changes."""
    asked = bool(question.query or question.like)
    opened, answers = desk.ask(_with_top(question, ON_A_PAGE)) if asked else (desk.opened, None)
    return site.part(opened, request.query_params, answers)


@router.post("/picture", include_in_schema=False)
async def picture(request: Request, desk: DeskOf, site: SiteOf) -> Response:
    """The same for a picture that was dropped on the page."""
    opened, answers = await _by_picture(request, desk, ON_A_PAGE)
    return await run_in_threadpool(site.part, opened, {}, answers)


@router.head("/media", include_in_schema=False)
@router.get("/media", tags=["files"], response_class=Response)
def media(clip: ClipId, desk: DeskOf, settings: SettingsOf) -> Response:
    """The file of a clip, with byte ranges."""
    found = clip_of(desk.opened, clip)
    return media_response(file_of(desk.opened, found, settings.follow_links), found.video_id)


@router.get("/thumbnail", tags=["files"], response_class=Response)
def thumbnail(clip: ClipId, desk: DeskOf) -> Response:
    """A small JPEG of a clip."""
    opened = desk.opened
    found = clip_of(opened, clip)
    small = opened.index.thumbnail(opened.index.row_of(clip))
    if not small:
        middle = (found.start + found.end) / 2
        return RedirectResponse(address("/frame", clip=clip, at=f"{middle:.3f}"), 307)
    return Response(small, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=600"})


@router.get("/frame", tags=["files"], response_class=Response)
def frame(
    clip: ClipId,
    desk: DeskOf,
    frames: FramesOf,
    settings: SettingsOf,
    at: Annotated[float, Query(ge=0, le=1e7, description="Seconds from the file's first frame.")] = 0.0,
) -> Response:
    """A frame of a clip's file as JPEG, at most 720 pixels long."""
    path = file_of(desk.opened, clip_of(desk.opened, clip), settings.follow_links)
    made = frames.frame(path, at)
    return Response(made, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=600"})


@router.get("/cut", tags=["files"], response_class=Response)
def cut(
    clip: ClipId,
    start: Annotated[float, Query(ge=0, le=1e7)],
    end: Annotated[float, Query(ge=0, le=1e7)],
    desk: DeskOf,
    frames: FramesOf,
    settings: SettingsOf,
) -> Response:
    """A moment of a clip's file as a file of its own, not encoded anew: it begins at the key frame before."""
    opened = desk.opened
    found = clip_of(opened, clip)
    path = file_of(opened, found, settings.follow_links)
    length = opened.lengths.get(found.video_id, found.end)
    if start > length:
        raise InputError(f"{found.video_id} has nothing at {start:g} s", f"it ends at {length:g} s")
    folder = Path(tempfile.mkdtemp(prefix="regionvlp-cut-"))
    try:
        made = frames.cut_out(found, path, start, end, folder)
        response = media_response(made, made.name)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    response.background = BackgroundTask(shutil.rmtree, folder, ignore_errors=True)
    response.headers["Content-Disposition"] = f'attachment; filename="{_plain(made.name)}"'
    return response


def _plain(name: str) -> str:
    return "".join(sign if sign.isascii() and (sign.isalnum() or sign in "-_.") else "_" for sign in name)


@router.get("/healthz", tags=["operation"])
def healthz() -> dict[str, str]:
    """Says that the server answers."""
    return {"status": "ok"}


@router.get("/metrics", tags=["operation"], response_class=PlainTextResponse)
def metrics(desk: DeskOf) -> Response:
    """Counts and times for Prometheus."""
    return Response(desk.metrics.text(), media_type=CONTENT_TYPE)
