"""The server put together, as an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from regionvlp import __version__
from regionvlp.errors import InputError, RegionVLPError, VideoError
from regionvlp.search.server.desk import BusyError, Desk
from regionvlp.search.server.files import NotServedError, file_of
from regionvlp.search.server.guard import Guard
from regionvlp.search.server.pictures import Frames
from regionvlp.search.server.routes import router
from regionvlp.search.server.settings import ServerSettings
from regionvlp.search.server.site import Site

ABOUT = "Moments of one's own videos that answer a sentence, and for each word the boxes that answer it."


def create_app(desk: Desk, settings: ServerSettings) -> FastAPI:
    """The application over an opened index.

    Args:
        desk: answers questions; its owner closes nothing. settings: who may ask.
    """

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        app.state.frames = Frames()
        for row in desk.opened.first_rows(1):
            with suppress(NotServedError):
                clip = desk.opened.index.clip(row)
                app.state.frames.warm(file_of(desk.opened, clip, settings.follow_links))
        try:
            yield
        finally:
            app.state.frames.close()

    app = FastAPI(
        title="regionvlp", version=__version__, description=ABOUT, docs_url=None, redoc_url=None, lifespan=life
    )
    app.state.desk, app.state.settings, app.state.site = desk, settings, Site()
    app.include_router(router)
    app.add_middleware(Guard, settings=settings, metrics=desk.metrics)
    app.add_exception_handler(RegionVLPError, _told)
    app.add_exception_handler(RequestValidationError, _misasked)
    app.add_exception_handler(HTTPException, _nothing_there)
    return app


def _status(error: RegionVLPError) -> int:
    if isinstance(error, NotServedError | VideoError):
        return 404
    if isinstance(error, InputError):
        return 400
    return 503


def _told(request: Request, error: Exception) -> Response:
    """What is wrong, as a page for people and as JSON for programs."""
    assert isinstance(error, RegionVLPError)
    status, state = _status(error), request.app.state
    headers = {"Retry-After": "1"} if isinstance(error, BusyError) else {}
    path = request.url.path
    response: Response
    if path == "/":
        response = state.site.failed(state.desk.opened, request.query_params, error, status)
    elif path in ("/results", "/picture"):
        response = state.site.failed_part(state.desk.opened, error, status)
    else:
        response = JSONResponse({"error": error.message, "hint": error.hint}, status)
    response.headers.update(headers)
    return response


def _misasked(request: Request, error: Exception) -> Response:
    """A parameter that is none. What the client wrote is not repeated."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    name = str(first["loc"][-1]) if first["loc"] else "the request"
    return _told(request, InputError(f"{name}: {first['msg'].lower()}", "see /openapi.json for what can be asked"))


def _nothing_there(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": str(error.detail), "hint": "see /openapi.json"}, error.status_code, error.headers)
