"""Who is let in, how often, and what every answer carries: the outermost layer of the server.

Without a token the server listens on loopback alone, and a request must name it so: else a page of a stranger, opened
on this machine under a name that leads back to it, could read the answers.
"""

from __future__ import annotations

import hmac
import re
import time
from collections import OrderedDict
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from regionvlp.search.server.metrics import Metrics
from regionvlp.search.server.settings import ServerSettings, is_loopback

COOKIE = "regionvlp"
LONGEST_TARGET = 16_000  # bytes of path and query
OPEN_PATHS = ("/healthz",)  # without a token
COSTLY = ("/results", "/picture", "/frame", "/cut", "/api/")
_KNOWN_CLIENTS = 10_000
_PORT = re.compile(r":\d*$")
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
CLOSED_POLICY = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


class Rate:
    """Requests a second of each client: a bucket of as many as five seconds give, filled as time goes by.

    Args:
        rate: requests a second; 0 for no limit.
    """

    def __init__(self, rate: float) -> None:
        self._rate, self._most = rate, 5 * rate
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allows(self, client: str, now: float) -> bool:
        """Whether a request of a client may go on, at a time in seconds; takes it out of the bucket."""
        if not self._rate:
            return True
        left, since = self._left.pop(client, (self._most, now))
        left = min(self._most, left + (now - since) * self._rate)
        allowed = left >= 1
        self._left[client] = (left - 1 if allowed else left, now)
        if len(self._left) > _KNOWN_CLIENTS:
            self._left.popitem(last=False)
        return allowed


class Guard:
    """The layer, see above.

    Args:
        app: what is guarded. settings: for whom. metrics: where requests are counted.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings, metrics: Metrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics
        self._rate = Rate(settings.rate)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request as ASGI says."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def carry(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Content-Security-Policy", CLOSED_POLICY)
                headers.setdefault("Cache-Control", "no-store")
                self._metrics.requested(_route(scope), message["status"])
            await send(message)

        refusal = self._refusal(scope)
        await (refusal or self._app)(scope, receive, carry)

    def _refusal(self, scope: Scope) -> Response | None:
        """The answer to a request that is not let in; None for one that is."""
        headers = Headers(scope=scope)
        if len(scope["raw_path"] or b"") + len(scope["query_string"]) > LONGEST_TARGET:
            return PlainTextResponse("the address is too long\n", 414)
        if scope["path"] in OPEN_PATHS:
            return None
        if not self._settings.token:
            if not is_loopback(_PORT.sub("", headers.get("host", "")).strip("[]")):
                return PlainTextResponse("this server is for its own machine: call it localhost\n", 403)
        elif not _knows(self._settings.token, headers):
            return self._at_the_door(scope)
        client = scope["client"][0] if scope.get("client") else ""
        costly = scope["path"] == "/" or scope["path"].startswith(COSTLY)
        if costly and not is_loopback(client) and not self._rate.allows(client, time.monotonic()):
            return PlainTextResponse("too many requests\n", 429, {"Retry-After": "1"})
        return None

    def _at_the_door(self, scope: Scope) -> Response:
        """Lets in who brings the token in the address, which then loses it; asks anybody else for it."""
        pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = dict(pairs).get("token", "")
        if scope["path"] == "/" and scope["method"] == "GET" and _same(self._settings.token, given):
            left = urlencode([(name, value) for name, value in pairs if name != "token"])
            response = RedirectResponse("/" + (f"?{left}" if left else ""), 303)
            response.set_cookie(COOKIE, self._settings.token, httponly=True, samesite="strict")
            return response
        text = "open the address that the server printed, or send 'Authorization: Bearer TOKEN'\n"
        return PlainTextResponse(text, 401, {"WWW-Authenticate": "Bearer"})


def _knows(token: str, headers: Headers) -> bool:
    return any(_same(token, given) for given in _given(headers))


def _given(headers: Headers) -> Iterable[str]:
    kind, _, value = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        yield value.strip()
    try:
        cookies = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        return
    if COOKIE in cookies:
        yield cookies[COOKIE].value


def _same(token: str, given: str) -> bool:
    return hmac.compare_digest(token.encode(), given.encode("utf-8", "replace"))


def _route(scope: Scope) -> str:
    """The pattern of the address, never what a client wrote."""
    route = scope.get("route")
    return getattr(route, "path", "") or "other"
