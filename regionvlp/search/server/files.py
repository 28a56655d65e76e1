"""The videos themselves: those that the index names, and no others."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from starlette.responses import FileResponse
from starlette.types import Receive, Scope, Send

from regionvlp.errors import InputError
from regionvlp.search.clips import Clip
from regionvlp.search.server.desk import Opened

# Told by the name, never guessed from the content: what a browser would run is not among them.
MEDIA_TYPES = {
    ".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/mp4", ".f4v": "video/mp4", ".webm": "video/webm",
    ".mkv": "video/x-matroska", ".ogv": "video/ogg", ".avi": "video/x-msvideo", ".mpg": "video/mpeg",
    ".mpeg": "video/mpeg", ".ts": "video/mp2t", ".gif": "image/gif", ".jpg": "image/jpeg", ".jpeg": "image/jpeg",
    ".png": "image/png", ".webp": "image/webp", ".bmp": "image/bmp", ".avif": "image/avif",
}  # fmt: skip
UNKNOWN_TYPE = "application/octet-stream"


class NotServedError(InputError):
    """A clip that is not of this index, or whose file is not there or may not be served."""


class MediaResponse(FileResponse):
    """A file with byte ranges. One that disappears in between ends the answer; it is no error of the server."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except OSError:
            return


def clip_of(opened: Opened, clip_id: str) -> Clip:
    """The clip of an id.

    Raises:
        NotServedError: the index has none.
    """
    try:
        return opened.index.clip(opened.index.row_of(clip_id))
    except KeyError:
        raise NotServedError("the index has no such clip", "it may have been taken out; search again") from None


def file_of(opened: Opened, clip: Clip, follow_links: bool) -> Path:
    """The file of a clip, if it may be served: a regular file, in the videos' folder when all links are followed.

    Raises:
        NotServedError: it is not there, or lies elsewhere.
    """
    gone = NotServedError(f"the file of {clip.video_id} is not there any more", "index the folder again")
    if not clip.path:
        raise gone
    try:
        real = os.path.realpath(clip.path, strict=True)
        regular = stat.S_ISREG(os.stat(real).st_mode)
    except (OSError, ValueError):
        raise gone from None
    if not regular:
        raise gone
    root = str(opened.index.manifest.source.get("videos") or "")
    if not follow_links and not (root and _is_below(real, root)):
        raise NotServedError(
            f"{clip.video_id} is a link that leads out of the videos' folder", "start the server with --follow-links"
        )
    return Path(real)


def _is_below(real: str, root: str) -> bool:
    return os.path.commonpath([os.path.realpath(root), real]) == os.path.realpath(root)


def media_response(path: Path, name: str) -> MediaResponse:
    """The file, to be played.

    Raises:
        NotServedError: it has gone.
    """
    try:
        status = os.stat(path)
    except OSError:
        raise NotServedError(f"{name} is not there any more", "index the folder again") from None
    kind = MEDIA_TYPES.get(Path(name).suffix.lower(), UNKNOWN_TYPE)
    return MediaResponse(path, media_type=kind, stat_result=status, headers={"Cache-Control": "no-cache"})
