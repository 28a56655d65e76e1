"""Looks into data files that nothing vouches for, in a process that may hang or die over them.

Shards of version 0.1 have no receipt that says where everything lies, so HDF5 or Arrow has to be asked, and a damaged
file can send either into an endless loop that only a kill ends. In: a path and the manifest. Out: the index of the
file, or a :class:`ShardError` in good time.

The other side of it is this module run as a program: a line of JSON in, a line of JSON out.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from regionvlp.errors import ShardError
from regionvlp.shards.formats import format_of, unreadable
from regionvlp.shards.places import ShardIndex
from regionvlp.store.manifest import Manifest

_PATIENCE = 120.0  # seconds for one file; a whole one of thousands of videos takes a second or two


def look_into(path: Path, manifest: Manifest) -> ShardIndex:
    """The index of a data file, without checksums, as its format's module reads it, in this process.

    Raises:
        ShardError: the file is damaged, or of another folder.
    """
    module = format_of(manifest)
    return ShardIndex.of(module.read_ids(path, manifest), module.read_layout(path, manifest), None, manifest)


class Guarded:
    """:func:`look_into` in another process, which is started at the first file and again after each that ends it."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def look_into(self, path: Path) -> ShardIndex:
        """See :func:`look_into`.

        Raises:
            ShardError: also where the library that looked died, or did not come to an end.
        """
        process = self._running()
        assert process.stdin is not None
        process.stdin.write(json.dumps({"path": str(path), "manifest": self._manifest.as_dict()}).encode() + b"\n")
        deadline = time.monotonic() + _PATIENCE
        try:
            process.stdin.flush()
            line = self._line(process, deadline)
        except BrokenPipeError:
            line = b""
        if not line.endswith(b"\n"):
            hangs = time.monotonic() >= deadline
            self.close()
            raise unreadable(path, "reading it does not come to an end" if hangs else "whatever reads it dies")
        answer: dict[str, Any] = json.loads(line)
        if "index" not in answer:
            raise ShardError(answer["message"], answer["hint"])
        return replace(ShardIndex.from_document(answer["index"], self._manifest, path), checksums=None)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._owner != os.getpid():
            command = [sys.executable, "-m", "regionvlp.shards.guarded"]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self._owner = os.getpid()
        return self._process

    @staticmethod
    def _line(process: subprocess.Popen[bytes], deadline: float) -> bytes:
        """The next line, or what there is of it when the time is over or the process ends."""
        assert process.stdout is not None
        line = bytearray()
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            block = os.read(process.stdout.fileno(), 1 << 20) if ready else b""
            if not block:
                break
            line += block
        return bytes(line)

    def close(self) -> None:
        """Ends the other process."""
        process, self._process = self._process, None
        if process is not None and self._owner == os.getpid():
            process.kill()
            process.communicate()

    def __del__(self) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_process": None}


def _serve() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        path = Path(asked["path"])
        try:
            manifest = Manifest(**asked["manifest"])
            index = look_into(path, manifest)
            none = np.zeros((len(index.ids), manifest.frames), np.uint64)
            answer: dict[str, Any] = {"index": replace(index, checksums=none).as_document()}
        except ShardError as error:
            answer = error.to_dict()
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
