"""A web server on this machine for the tests of downloading: byte ranges, broken connections, and a small hub."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Server:
    """What is served and what was asked.

    Attributes:
        files: path to content. break_after: how many bytes each of the next answers gives before it breaks off.
        requests: (method, path, the Range header) in their order. tags: whether files have an ETag.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    break_after: list[int] = field(default_factory=list)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    tags: bool = True
    kind: str = "application/octet-stream"
    address: str = ""


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, body: bool) -> None:
            wanted = self.headers.get("Range")
            server.requests.append((self.command, self.path, wanted))
            content = server.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            tag = f'"{hashlib.sha256(content).hexdigest()}"'
            start = 0
            if wanted and (self.headers.get("If-Range") in (None, tag)):
                start = int(wanted.removeprefix("bytes=").rstrip("-").split("-")[0])
                if start >= len(content):
                    self.send_error(416)
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            else:
                self.send_response(200)
            self.send_header("Content-Type", server.kind)
            self.send_header("Content-Length", str(len(content) - start))
            if server.tags:
                self.send_header("ETag", tag)
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if body:
                rest = content[start:]
                self.wfile.write(rest[: server.break_after.pop(0)] if server.break_after else rest)

    return Handler


@contextmanager
def serving() -> Iterator[Server]:
    """Serves on a free port of this machine until the end of the block."""
    server = Server()
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    server.address = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
