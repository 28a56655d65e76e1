"""Shards on any file system that fsspec knows (``s3://``, ``gs://``), with the checks of those on a disk.

In: the address of a folder. Out: its pieces, read by range, all ranges of a batch at once; or, with a staging folder,
out of local copies of whole data files. Receipts are fetched when the folder is opened and say where everything lies,
so that nothing else is ever parsed.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from regionvlp.errors import InputError, ShardError
from regionvlp.shards.datafile import DataFile, LostFileError, Piece, runs_of
from regionvlp.shards.receipts import Receipt
from regionvlp.shards.staging import Staging
from regionvlp.store.files import sha256_of
from regionvlp.store.names import MANIFEST_NAME
from regionvlp.store.plan import PLAN_NAME, PlanTable, read_plan

log = logging.getLogger(__name__)

_GAP = 256 * 1024  # bytes between two pieces of one range: cheaper than another request
_ATTEMPTS = 4
_PAUSE = 0.25  # seconds before the second attempt; twice as long before each one after it


def is_address(path: str | os.PathLike[str]) -> bool:
    """Whether a path is the address of another file system, such as ``s3://bucket/shards``."""
    return isinstance(path, str) and "://" in path and not path.startswith("file://")


class RemoteFolder:
    """A shard folder at an address. It can be pickled, and works on both sides of a fork.

    Args:
        address: such as ``s3://bucket/shards``.
        staging: where data files are copied to before they are read; None: they are read by range.

    Raises:
        InputError: nothing can open such an address.
    """

    def __init__(self, address: str, staging: Staging | None = None) -> None:
        self.address = address.rstrip("/")
        self.staging = staging
        self._opened: tuple[int, Any, str] | None = None
        self._system()

    def _system(self) -> tuple[Any, str]:
        """The file system and the folder on it, opened in this process: a connection does not survive a fork."""
        if self._opened is None or self._opened[0] != os.getpid():
            import fsspec

            try:
                system, root = fsspec.core.url_to_fs(self.address)
            except (ImportError, ValueError) as error:
                hint = "install the fsspec package of this protocol"
                raise InputError(f"'{self.address}' cannot be opened: {error}", hint) from None
            self._opened = os.getpid(), system, root.rstrip("/")
        return self._opened[1], self._opened[2]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    @contextmanager
    def described(self) -> Iterator[Path]:
        """A local folder with the manifest and the receipts, as long as the block lasts.

        Raises:
            InputError: there is no such folder. ShardError: a file cannot be read.
        """
        system, root = self._system()
        try:
            names = [name.rstrip("/").rpartition("/")[2] for name in system.ls(root, detail=False)]
        except FileNotFoundError:
            raise InputError(f"no shard folder at {self.address}", "check the address") from None
        except Exception as error:  # network libraries raise what they like
            raise self._unreadable("", error) from error
        wanted = [name for name in names if name == MANIFEST_NAME or re.fullmatch(r"shard-\d+\.json", name)]
        with tempfile.TemporaryDirectory(prefix="regionvlp-") as folder:
            for name, content in zip(wanted, self._contents(wanted), strict=True):
                (Path(folder) / name).write_bytes(content)
            yield Path(folder)

    def plan(self) -> PlanTable | None:
        """The plan; None where the folder has none.

        Raises:
            ShardError: it cannot be read, or is damaged.
        """
        system, root = self._system()
        if not system.exists(f"{root}/{PLAN_NAME}"):
            return None
        with tempfile.TemporaryDirectory(prefix="regionvlp-") as folder:
            (content,) = self._contents([PLAN_NAME])
            (Path(folder) / PLAN_NAME).write_bytes(content)
            return read_plan(Path(folder))

    def _contents(self, names: list[str]) -> Iterator[bytes]:
        for name, content in zip(names, self.ranges([(name, 0, None) for name in names]), strict=True):
            if isinstance(content, ShardError):
                raise content
            assert isinstance(content, bytes), name
            yield content

    def ranges(self, wanted: Sequence[tuple[str, int, int | None]]) -> list[bytes | ShardError]:
        """Parts of files, all at once; what fails, or comes short, is tried again a few times.

        Args:
            wanted: (name of the file, first byte, byte after the last; None: to its end).

        Returns:
            The bytes of each part, or what is wrong with it.
        """
        system, root = self._system()
        found: list[bytes | ShardError] = [ShardError("not read yet", "")] * len(wanted)
        left = list(range(len(wanted)))
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(_PAUSE * 2 ** (attempt - 1))
            parts = [wanted[number] for number in left]
            try:
                contents = system.cat_ranges(
                    [f"{root}/{name}" for name, _, _ in parts],
                    [start for _, start, _ in parts],
                    [end for _, _, end in parts],
                    on_error="return",
                )
            except Exception as error:  # network libraries raise what they like
                contents = [error] * len(parts)
            again = []
            for number, (name, start, end), content in zip(left, parts, contents, strict=True):
                found[number] = self._judged(name, start, end, content)
                if isinstance(found[number], ShardError) and not isinstance(content, FileNotFoundError):
                    again.append(number)
            left = again
            if not left:
                break
        return found

    def _judged(self, name: str, start: int, end: int | None, content: object) -> bytes | ShardError:
        if isinstance(content, BaseException):
            return self._unreadable(name, content)
        assert isinstance(content, bytes | bytearray | memoryview)
        if end is not None and len(content) != end - start:
            return ShardError(
                f"{self.address}/{name} gave {len(content)} bytes of {end - start} from byte {start} on",
                "was it cut? compare its size with its receipt",
            )
        return bytes(content)

    def _unreadable(self, name: str, error: BaseException) -> ShardError:
        if isinstance(error, FileNotFoundError):
            return LostFileError(f"cannot read {self.address}/{name}: it is not there", "was the folder changed?")
        words = str(error).partition("\n")[0] or type(error).__name__
        return ShardError(f"cannot read {self.address}/{name}: {words}", "check the connection and your access")

    def download(self, receipt: Receipt, path: Path) -> None:
        """Fetches the data file of a receipt, and checks it against that.

        Raises:
            ShardError: it cannot be fetched, or is not what the receipt says. OSError: the disk refuses.
        """
        assert receipt.file is not None
        system, root = self._system()
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(_PAUSE * 2 ** (attempt - 1))
            try:
                with path.open("r+b" if path.exists() else "wb") as copy:
                    for block in _blocks(system, f"{root}/{receipt.file}"):
                        copy.write(block)
                    copy.truncate()
            except _RemoteError as error:
                failed = self._unreadable(receipt.file, error.__cause__ or error)
                if isinstance(error.__cause__, FileNotFoundError):
                    raise failed from None
            else:
                if path.stat().st_size == receipt.bytes and sha256_of(path) == receipt.sha256:
                    return
                failed = ShardError(
                    f"{self.address}/{receipt.file} is not what its receipt says", "restore the file, or its receipt"
                )
        raise failed

    @contextmanager
    def local(self, receipt: Receipt) -> Iterator[Path]:
        """The data file of a receipt as a local file, as long as the block lasts, for a library to read.

        Raises:
            ShardError: see :meth:`download`; or the disk refuses.
        """
        assert receipt.file is not None
        try:
            staged = self.staging.copy(receipt, self.download) if self.staging else None
            if staged is not None:
                yield staged
                return
            with tempfile.TemporaryDirectory(prefix="regionvlp-") as folder:
                path = Path(folder) / receipt.file
                self.download(receipt, path)
                yield path
        except OSError as error:
            raise ShardError(
                f"cannot copy {self.address}/{receipt.file}: {error.strerror or error}",
                "make room, or give a staging folder",
            ) from error


class _RemoteError(Exception):
    """What the other side raised, told apart from a local disk that refuses."""


def _blocks(system: Any, path: str) -> Iterator[bytes]:
    try:
        with system.open(path, "rb") as source:
            while block := source.read(8 << 20):
                yield block
    except Exception as error:  # network libraries raise what they like
        raise _RemoteError from error


class RemoteFiles:
    """See :class:`.datafile.Files`: the data files of a remote folder, by the numbers of some receipts.

    Args:
        folder: where they are.
        receipts: whose data files, in the order of the numbers.
    """

    def __init__(self, folder: RemoteFolder, receipts: Sequence[Receipt]) -> None:
        self._folder, self._receipts = folder, receipts

    def read(self, wanted: Mapping[int, list[Piece]]) -> Iterator[tuple[Sequence[Piece], ShardError | None]]:
        """See :class:`.datafile.Files`."""
        by_range: list[tuple[int, Sequence[Piece]]] = []
        for number, pieces in wanted.items():
            staged = None
            if self._folder.staging is not None:
                try:
                    staged = self._staged(number)
                except ShardError as error:
                    yield pieces, error
                    continue
            if staged is None:
                by_range += [(number, run) for run in runs_of(pieces, _GAP)]
            else:
                yield from staged.read(pieces)
        parts = [
            (str(self._receipts[number].file), run[0].offset, run[-1].offset + len(run[-1].memory))
            for number, run in by_range
        ]
        for (_, run), content in zip(by_range, self._folder.ranges(parts) if parts else (), strict=True):
            if isinstance(content, ShardError):
                yield run, content
                continue
            for offset, memory, _ in run:
                start = offset - run[0].offset
                memory[:] = content[start : start + len(memory)]
            yield run, None

    def _staged(self, number: int) -> DataFile | None:
        """The copy of a data file, open; None where the staging folder has no room for it."""
        staging, receipt = self._folder.staging, self._receipts[number]
        assert staging is not None
        for _ in range(3):
            path = staging.copy(receipt, self._folder.download)
            if path is None:
                return None
            try:
                return DataFile(path, receipt.bytes)
            except ShardError:  # another process made room just now, or somebody touched the copy
                path.unlink(missing_ok=True)
        return None

    def close(self) -> None:
        """Nothing stays open."""
