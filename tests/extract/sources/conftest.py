"""What the tests of sources share: tars, and a file system that fails on demand."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem


@pytest.fixture
def make_tar() -> Callable[..., Path]:
    """Writes a tar of the named contents."""

    def make(path: Path, members: dict[str, bytes], **options: object) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w", **options) as tar:  # type: ignore[call-overload]
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        return path

    return make


class Flaky(MemoryFileSystem):
    """The memory file system, whose reads can be made to fail."""

    protocol = "flaky"
    error: BaseException | None = None
    gets = 0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.replace("flaky://", "memory://")))

    def unstrip_protocol(self, name: str) -> str:
        return f"flaky://{name.lstrip('/')}"

    def get_file(self, *args: object, **options: object) -> None:
        Flaky.gets += 1
        if Flaky.error:
            raise Flaky.error
        super().get_file(*args, **options)


@pytest.fixture
def memory() -> Iterator[Callable[[str, bytes], None]]:
    """Puts a file into fsspec's memory file system, also reachable as ``flaky://``; emptied afterwards."""
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    system = fsspec.filesystem("memory")
    Flaky.error, Flaky.gets = None, 0
    yield system.pipe_file
    system.store.clear()
    system.pseudo_dirs[:] = [""]
