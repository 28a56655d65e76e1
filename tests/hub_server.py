"""A local stand-in for the Hugging Face hub: as much of its interface as its client uses to share and fetch models."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

TOKEN = "hf_of_the_tests"


@dataclass
class Repository:
    """Commits by id, each a whole tree of files; branches name them."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        """Lays files over a branch."""
        tree = {**self.commits.get(self.branches.get(branch, ""), {}), **files}
        oid = hashlib.sha1(f"{len(self.commits)}{sorted(tree)}".encode()).hexdigest()
        self.commits[oid], self.branches[branch] = tree, oid
        return oid

    def at(self, revision: str) -> str | None:
        return self.branches.get(revision, revision if revision in self.commits else None)


@dataclass
class Hub:
    """What the hub holds, and what it was asked."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    address: str = ""

    def add(self, repo_id: str, files: dict[str, bytes], branch: str = "main") -> Repository:
        repository = self.repositories.setdefault(repo_id, Repository())
        repository.commit(branch, files)
        return repository


@contextmanager
def hub_serving() -> Iterator[Hub]:
    """Runs the stand-in on a port of its own."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            parts = self._parts()
            if parts[:2] == ["api", "models"]:
                self._info("/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main")
            elif len(parts) == 5 and parts[2] == "resolve":
                self._file("/".join(parts[:2]), parts[3], parts[4])
            else:
                self._answer(404, {})

        def do_PUT(self) -> None:
            hub.uploads[self._parts()[-1]] = self._body()
            self._answer(200, {})

        def do_POST(self) -> None:
            parts, body = self._parts(), self._body()
            if parts == ["api", "validate-yaml"]:
                self._answer(200, {"errors": [], "warnings": []})
            elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self._answer(401, {"error": "Invalid credentials"})
            elif parts == ["api", "repos", "create"]:
                self._create(json.loads(body))
            elif parts[-3:] == ["lfs", "objects", "batch"]:
                self._batch(json.loads(body))
            elif parts[4] == "branch":
                repository = hub.repositories["/".join(parts[2:4])]
                repository.branches.setdefault(parts[5], repository.branches["main"])
                self._answer(200, {})
            elif parts[4] == "preupload":
                modes = [
                    {"path": file["path"], "shouldIgnore": False,
                     "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular"}
                    for file in json.loads(body)["files"]
                ]  # fmt: skip
                self._answer(200, {"files": modes})
            elif parts[4] == "commit":
                self._commit("/".join(parts[2:4]), parts[5], body)

        def _create(self, asked: dict[str, Any]) -> None:
            repo_id = f"{asked['organization']}/{asked['name']}"
            address = {"url": f"{hub.address}/{repo_id}", "name": repo_id, "id": repo_id}
            if repo_id in hub.repositories:
                return self._answer(409, address)
            private = asked.get("private") is True or asked.get("visibility") == "private"
            hub.repositories[repo_id] = Repository(private=private)
            hub.repositories[repo_id].commit("main", {".gitattributes": b""})
            return self._answer(200, address)

        def _batch(self, asked: dict[str, Any]) -> None:
            objects = [
                {**wanted, "actions": {"upload": {"href": f"{hub.address}/storage/{wanted['oid']}"}}}
                for wanted in asked["objects"]
            ]
            self._answer(200, {"transfer": "basic", "objects": objects})

        def _commit(self, repo_id: str, branch: str, body: bytes) -> None:
            files = {}
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "lfsFile":
                    files[line["value"]["path"]] = hub.uploads[line["value"]["oid"]]
            oid = hub.repositories[repo_id].commit(branch, files)
            self._answer(200, {"commitUrl": f"{hub.address}/{repo_id}/commit/{oid}", "commitOid": oid})

        def _info(self, repo_id: str, revision: str) -> None:
            if (found := self._found(repo_id, revision)) is None:
                return
            siblings = [{"rfilename": name} for name in hub.repositories[repo_id].commits[found]]
            self._answer(200, {"id": repo_id, "modelId": repo_id, "sha": found, "siblings": siblings})

        def _file(self, repo_id: str, revision: str, name: str) -> None:
            if (found := self._found(repo_id, revision)) is None:
                return
            content = hub.repositories[repo_id].commits[found].get(name)
            if content is None:
                return self._answer(404, {}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": found})
            return self._send(
                200, content, {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": found}
            )

        def _found(self, repo_id: str, revision: str) -> str | None:
            """The commit asked for; where there is none, the refusal is sent."""
            repository = hub.repositories.get(repo_id)
            known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
            if repository is None or (repository.private and not known):
                self._answer(401, {"error": "not found"}, {"X-Error-Code": "RepoNotFound"})
                return None
            found = repository.at(revision)
            if found is None:
                self._answer(404, {}, {"X-Error-Code": "RevisionNotFound"})
            return found

        def _parts(self) -> list[str]:
            path = unquote(self.path.split("?")[0])
            hub.requests.append((self.command, path))
            return path.strip("/").split("/")

        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def _answer(self, status: int, values: Any, headers: dict[str, str] | None = None) -> None:
            self._send(status, json.dumps(values).encode(), {"Content-Type": "application/json", **(headers or {})})

        def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    return Handler
