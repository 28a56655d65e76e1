"""A file system that fails on request: counts what Python does to a folder, and lets one of these operations go wrong.

In: a folder and at most one :class:`Fault`. Every call of :mod:`os` and :func:`open` that changes the folder is one
numbered point. Nothing else in the process is touched, and what reads is let through.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What a point can suffer.
ERROR = "error"  # an I/O error; nothing was done
FULL = "full"  # the disk is full: half a write is done, and from then on nothing that needs space works
KILL = "kill"  # SIGKILL before it
TORN = "torn"  # SIGKILL after it; a write is half done
POWER = "power"  # the machine loses power: what was never flushed to the disk is gone
MODES = (ERROR, FULL, KILL, TORN, POWER)

_NEEDS_SPACE = {"open", "write", "mkdir", "link", "rename", "fsync"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass(frozen=True)
class Fault:
    """The point, from 0, and what happens there, one of :data:`MODES`."""

    point: int
    mode: str


class Shim:
    """Stands between Python and ``folder`` from :meth:`install` on, for the rest of the process.

    Attributes:
        points: what was done, in order: ``operation name``, see :func:`plain_name`.
        struck: whether the fault happened.
    """

    def __init__(self, folder: Path, fault: Fault | None = None) -> None:
        self._folder = os.path.realpath(folder)
        self._fault = fault
        self._full = False
        self._unflushed: set[tuple[int, int]] = set()
        self._real: dict[str, Callable[..., Any]] = {}
        self.points: list[str] = []
        self.struck = False

    def install(self) -> None:
        """Takes the place of the functions that change files."""
        for name, operation in [
            ("mkdir", "mkdir"),
            ("rmdir", "rmdir"),
            ("unlink", "unlink"),
            ("remove", "unlink"),
            ("rename", "rename"),
            ("replace", "rename"),
            ("link", "link"),
            ("symlink", "link"),
            ("truncate", "truncate"),
            ("utime", "utime"),
        ]:
            self._wrap_path(name, operation)
        for name, operation in [("fsync", "fsync"), ("fdatasync", "fsync"), ("ftruncate", "truncate")]:
            self._wrap_descriptor(name, operation)
        for name in ("write", "pwrite"):
            self._wrap_write(name)
        self._wrap_open()
        self._wrap_close()
        self._wrap_builtin_open()

    def _keep(self, name: str) -> Callable[..., Any]:
        real = self._real[name] = getattr(os, name)
        return real  # type: ignore[no-any-return]

    def _wrap_path(self, name: str, operation: str) -> None:
        real = self._keep(name)

        def call(path: Any, *args: Any, **options: Any) -> Any:
            # Of the two names of a rename or link the second, which appears, is the one that counts.
            target = args[0] if operation in ("rename", "link") else path
            if not self._mine(target):
                return real(path, *args, **options)
            return self._at(operation, target, lambda: real(path, *args, **options))

        setattr(os, name, call)

    def _wrap_descriptor(self, name: str, operation: str) -> None:
        real = self._keep(name)

        def call(descriptor: int, *args: Any) -> Any:
            path = self._path_of(descriptor)
            if not self._mine(path):
                return real(descriptor, *args)
            if operation != "fsync":
                return self._at(operation, path, lambda: self._changed(descriptor, real(descriptor, *args)))
            # Counted and remembered, not done: power is only lost here, and the tests' disk need not suffer.
            return self._at(operation, path, lambda: self._unflushed.discard(_inode(os.fstat(descriptor))))

        setattr(os, name, call)

    def _wrap_write(self, name: str) -> None:
        real = self._keep(name)

        def call(descriptor: int, data: Any, *args: Any) -> Any:
            path = self._path_of(descriptor)
            if not self._mine(path):
                return real(descriptor, data, *args)
            view = memoryview(data).cast("B")
            return self._at(
                "write",
                path,
                lambda: self._changed(descriptor, real(descriptor, view, *args)),
                half=lambda: self._changed(descriptor, real(descriptor, view[: len(view) // 2], *args)),
            )

        setattr(os, name, call)

    def _wrap_open(self) -> None:
        real = self._keep("open")

        def call(path: Any, flags: int, *args: Any, **options: Any) -> Any:
            if not flags & _WRITING or not self._mine(path):
                return real(path, flags, *args, **options)
            return self._at("open", path, lambda: self._opened(real(path, flags, *args, **options)))

        os.open = call

    def _wrap_close(self) -> None:
        real = self._keep("close")

        def call(descriptor: int) -> None:
            import fcntl

            path = self._path_of(descriptor)
            if not self._mine(path) or fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
                return real(descriptor)  # type: ignore[no-any-return]
            self._at("close", path, lambda: real(descriptor), fails_after=True)

        os.close = call

    def _wrap_builtin_open(self) -> None:
        real = builtins.open
        shim = self

        class Raw(io.FileIO):
            def write(self, data: Any) -> int:
                view = memoryview(data).cast("B")
                write = super().write
                done: int = shim._at(
                    "write",
                    os.fsdecode(self.name),
                    lambda: shim._changed(self.fileno(), write(view)),
                    half=lambda: shim._changed(self.fileno(), write(view[: len(view) // 2])),
                )
                return done

            def truncate(self, size: int | None = None) -> int:
                cut = super().truncate
                return shim._at("truncate", os.fsdecode(self.name), lambda: shim._changed(self.fileno(), cut(size)))  # type: ignore[no-any-return]

            def close(self) -> None:
                close = super().close
                if self.closed:
                    return
                shim._at("close", os.fsdecode(self.name), close, fails_after=True)

        def call(file: Any, mode: str = "r", buffering: int = -1, *args: Any, **options: Any) -> Any:
            if not set(mode) & set("wax+") or isinstance(file, int) or not shim._mine(file):
                return real(file, mode, buffering, *args, **options)
            plain = "".join(letter for letter in mode if letter not in "bt")
            raw = shim._at("open", file, lambda: Raw(file, plain))
            shim._opened(raw.fileno())
            buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return buffered if "b" in mode else io.TextIOWrapper(buffered, *args, **options)

        builtins.open = io.open = call  # type: ignore[assignment]

    def _mine(self, path: Any) -> bool:
        if isinstance(path, int):
            return False
        text = os.path.abspath(os.fsdecode(path))
        return text == self._folder or text.startswith(self._folder + os.sep)

    def _path_of(self, descriptor: int) -> str:
        try:
            return os.readlink(f"/proc/self/fd/{descriptor}")
        except OSError:
            return ""

    def _opened(self, descriptor: int) -> int:
        self._unflushed.add(_inode(os.fstat(descriptor)))
        return descriptor

    def _changed(self, descriptor: int, result: Any) -> Any:
        self._unflushed.add(_inode(os.fstat(descriptor)))
        return result

    def _at(
        self,
        operation: str,
        path: Any,
        do: Callable[[], Any],
        *,
        half: Callable[[], Any] | None = None,
        fails_after: bool = False,
    ) -> Any:
        """One point: does it, or what the fault says instead."""
        number = len(self.points)
        self.points.append(f"{operation} {plain_name(os.path.relpath(os.fsdecode(path), self._folder))}")
        if self._full and operation in _NEEDS_SPACE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._fault is None or number != self._fault.point:
            return do()
        self.struck = True
        mode = self._fault.mode
        if mode == FULL and operation not in _NEEDS_SPACE:
            return do()  # a disk that is full still deletes and closes
        if mode == FULL:
            self._full = True
            if half is not None:
                half()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if mode == ERROR:
            if fails_after:
                do()
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if mode == POWER:
            self._lose_power()
        if mode == TORN:
            (half or do)()
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")

    def _lose_power(self) -> None:
        """Empties every file of the folder that was written since it was last flushed."""
        for folder, _, names in os.walk(self._folder):
            for name in names:
                path = os.path.join(folder, name)
                if _inode(os.stat(path)) in self._unflushed:
                    self._real["truncate"](path, 0)


def plain_name(path: str) -> str:
    """A path without what differs from run to run: the process in temporary names."""
    return re.sub(r"-\d+s\d+n\d+\.tmp$", ".tmp", path)


def _inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
