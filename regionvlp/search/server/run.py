"""Listening: a server on its port, and the index kept up to date meanwhile."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable

from regionvlp.errors import InputError
from regionvlp.search.server.app import create_app
from regionvlp.search.server.desk import Desk
from regionvlp.search.server.settings import ServerSettings

REFRESH_EVERY = 2.0  # seconds between two looks at whether the index has changed
MOST_CONNECTIONS = 512
log = logging.getLogger(__name__)


def listening_socket(settings: ServerSettings) -> socket.socket:
    """A socket that listens where the settings say; port 0 is any that is free.

    Raises:
        InputError: the port is in use or forbidden, or the host is no address of this machine.
    """
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise InputError(f"--host {settings.host}: {error}", "name an address of this machine") from None
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(place)
        found.listen(MOST_CONNECTIONS)
    except OSError as error:
        found.close()
        where = f"{settings.host}:{settings.port}"
        raise InputError(f"cannot listen on {where}: {error.strerror}", "choose another --port") from None
    return found


def serve(
    desk: Desk, settings: ServerSettings, opened: socket.socket, update: Callable[[], None] | None = None
) -> None:
    """Serves until interrupted.

    Args:
        desk: warm. settings, opened: who may ask, and where.
        update: brings the index up to date; called again and again, each time the last one is done.
    """
    import uvicorn

    ended = threading.Event()
    keepers = [threading.Thread(target=_again, args=(ended, REFRESH_EVERY, desk.refresh), daemon=True)]
    if update is not None:
        keepers.append(threading.Thread(target=_again, args=(ended, REFRESH_EVERY, update), daemon=True))
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(desk, settings), log_level="warning", access_log=False, server_header=False,
            limit_concurrency=MOST_CONNECTIONS, timeout_keep_alive=10, lifespan="on",
        )
    )  # fmt: skip
    for keeper in keepers:
        keeper.start()
    try:
        server.run(sockets=[opened])
    finally:
        ended.set()
        opened.close()


def _again(ended: threading.Event, pause: float, work: Callable[[], object]) -> None:
    while not ended.wait(pause):
        try:
            work()
        except Exception:
            log.exception("keeping the index up to date failed; trying again")
