"""Receipts: one JSON file a shard, written after its data; progress is read from receipts and from nothing else.

In: what a worker knows when a shard is done. Out: ``shard-00000.json`` and back.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from regionvlp import __version__
from regionvlp.errors import ShardError, VideoError
from regionvlp.shards.schema import SCHEMA_VERSION, ShardSpec, shard_stem
from regionvlp.store.files import create_once, document_text, read_document, replacing

_DATA_NAME = re.compile(r"shard-(\d{5,})(?:-[0-9a-f]{12})?\.(?:h5|parquet)")
_RECEIPT_NAME = re.compile(r"shard-(\d{5,})\.json")


@dataclass(frozen=True)
class Failure:
    """A video without rows, and why.

    Attributes:
        video_id: the video.
        stage: where it failed: ``open``, ``decode``, ``detect`` or ``write``.
        reason: a short stable word to count by.
        error: class name of the exception.
        message: in words.
        attempt: how many times it was tried, from 1.
        transient: whether trying again may help.
    """

    video_id: str
    stage: str
    reason: str
    error: str
    message: str
    attempt: int = 1
    transient: bool = False

    @classmethod
    def of(cls, video_id: str, error: VideoError, attempt: int = 1) -> Failure:
        """The row of a video that ended in ``error``."""
        return cls(
            video_id=video_id,
            stage=error.stage,
            reason=error.reason,
            error=type(error.__cause__ or error).__name__,
            message=error.message,
            attempt=attempt,
            transient=error.transient,
        )


@dataclass(frozen=True)
class Partial:
    """A video of which only a part could be used; it has rows.

    Attributes:
        video_id: the video.
        frames_announced: frames that the file claims to hold, None where it does not say.
        frames_decoded: frames that came out.
        packets_skipped: damaged packets passed over.
    """

    video_id: str
    frames_announced: int | None
    frames_decoded: int
    packets_skipped: int = 0


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """Proof that a shard is done.

    Attributes:
        shard: its number.
        file: name of the data file beside the receipt (see :func:`data_files`), None where every video failed.
        format: ``hdf5`` or ``parquet``.
        bytes, sha256: of the data file; 0 and None where there is none.
        videos, frames, regions: what the data file holds.
        failures: videos without rows.
        partial: videos used in part.
        versions: of Python and the libraries that took part.
        detector: identity of the detector, as in the manifest.
        timings: seconds by name.
        created: time of writing, ISO 8601 in UTC.
        renamed: ids that videos of this shard had before, by those that they have.
        index: ids, places and checksums of what the data file holds, see :mod:`regionvlp.shards.places`; None in
            receipts of the first version, and where there is no data file.
        schema_version: see :mod:`regionvlp.shards.schema`.
    """

    shard: int
    file: str | None
    format: str
    bytes: int
    sha256: str | None
    videos: int
    frames: int
    regions: int
    failures: list[Failure]
    partial: list[Partial]
    versions: dict[str, str]
    detector: dict[str, Any]
    timings: dict[str, float]
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    renamed: dict[str, str] = field(default_factory=dict)
    index: dict[str, str] | None = field(default=None, repr=False)
    schema_version: int = SCHEMA_VERSION

    def write(self, folder: Path) -> None:
        """Writes the receipt into ``folder``, whole or not at all; one that is there is replaced."""
        with replacing(receipt_path(folder, self.shard)) as temporary:
            temporary.write_text(self._text(), encoding="utf-8")

    def write_first(self, folder: Path) -> bool:
        """Writes the receipt of a shard that has none; of several writers at once exactly one succeeds.

        Returns:
            False where the shard has a receipt, which is then untouched.
        """
        return create_once(receipt_path(folder, self.shard), self._text())

    def _text(self) -> str:
        values = asdict(self)
        for name in ("renamed", "index"):  # left out where there is nothing to say, as before there were any
            if not values[name]:
                del values[name]
        return document_text({"schema_version": values.pop("schema_version"), **values})

    def is_lost(self, folder: Path) -> bool:
        """Whether the data file in ``folder`` is gone, or not of the size that this receipt says."""
        if self.file is None:
            return False
        try:
            return (folder / self.file).stat().st_size != self.bytes
        except FileNotFoundError:
            return True

    @classmethod
    def read(cls, path: Path) -> Receipt:
        """Reads one receipt.

        Raises:
            ShardError: it is missing, damaged, newer than this program, or lies under another shard's name.
        """
        values = read_document(path)
        try:
            values["failures"] = [Failure(**failure) for failure in values["failures"]]
            values["partial"] = [Partial(**partial) for partial in values["partial"]]
            receipt = cls(**values)
        except (TypeError, KeyError):
            hint = "delete it to have its shard done again"
            raise ShardError(f"{path} is damaged: its fields are not a receipt's", hint) from None
        if path.name != receipt_path(path.parent, receipt.shard).name:
            raise ShardError(f"{path} is the receipt of shard {receipt.shard}", "give the file its own name back")
        return receipt


def receipt_path(folder: Path, number: int) -> Path:
    """Where the receipt of shard ``number`` lies."""
    return folder / f"{shard_stem(number)}.json"


def data_files(folder: Path, manifest: ShardSpec, number: int) -> list[Path]:
    """Every data file of a shard: ``shard-00012.h5``, and such with the beginning of a checksum in the name.

    The second kind arises where the first name was taken. Which one counts is written in the receipt.
    """
    usual = folder / manifest.data_name(number)
    names = (name for name in os.listdir(folder) if name.startswith(usual.stem) and name.endswith(usual.suffix))
    return sorted(folder / name for name in names if names_shard(name) == number)


def names_shard(name: str) -> int | None:
    """Number of the shard that a data file's name belongs to; None for any other name."""
    match = _DATA_NAME.fullmatch(name)
    return int(match[1]) if match else None


def lost_shards(folder: Path, shards: Iterable[int] | None = None) -> list[int]:
    """Numbers of the shards whose data file is gone, or not of the size that the receipt says, ascending.

    Args:
        folder: the shard folder.
        shards: those to look at; by default all that have a receipt.

    Raises:
        ShardError: see :meth:`Receipt.read`.
    """
    return [receipt.shard for receipt in read_receipts(folder, shards) if receipt.is_lost(folder)]


def finished_shards(folder: Path) -> list[int]:
    """Numbers of the shards that have a receipt, ascending, from file names alone."""
    return sorted(int(match[1]) for name in os.listdir(folder) if (match := _RECEIPT_NAME.fullmatch(name)))


def read_receipts(folder: Path, shards: Iterable[int] | None = None) -> Iterator[Receipt]:
    """Yields the receipts of a folder in the order of their shards; by default of all that have one.

    Raises:
        ShardError: see :meth:`Receipt.read`.
    """
    for number in finished_shards(folder) if shards is None else shards:
        yield Receipt.read(receipt_path(folder, number))


def library_versions() -> dict[str, str]:
    """Versions of Python, this package and the libraries that decide the numbers, found without importing them."""
    return dict(_library_versions())


@cache
def _library_versions() -> dict[str, str]:
    versions = {"regionvlp": __version__, "python": platform.python_version()}
    for name in ("torch", "torchvision", "av", "decord", "torchcodec", "numpy", "h5py", "pyarrow"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
