"""A source of videos: what there is (:meth:`Source.scan`) and how a planned row becomes a file (:meth:`Source.local`).

A source is a few words that any process can rebuild or unpickle; nothing is listed or opened before it is asked for,
and a row of the plan says all that is needed to open its video, so that only who plans ever lists.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from regionvlp.errors import RegionVLPError, VideoError
from regionvlp.extract.sources import remote
from regionvlp.extract.sources.lookup import find_file, find_url
from regionvlp.extract.sources.scratch import DISK_FULL, Scratch
from regionvlp.store.plan import UNKNOWN, PlanRow

if TYPE_CHECKING:
    import pyarrow as pa

# kind -> the module of this package whose ``scan`` lists it
KINDS = {
    "folder": "folder",
    "list": "lists",
    "glob": "globs",
    "webdataset": "webdataset",
    "segments": "segments",
    "frames": "cached",
}


@dataclass(frozen=True)
class Source:
    """Where videos come from.

    Attributes:
        kind: a key of :data:`KINDS`.
        videos: what the user named, absolute, or a URL.
        root: the folder that ids and locations are relative to, absolute, or a URL.
        root_given: whether the user named the root, so that nothing may lie elsewhere.
        columns: of a table, what its columns are called that have other names than are known: (role, name) pairs.
    """

    kind: str
    videos: str
    root: str
    root_given: bool = False
    columns: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        # As JSON, which brings a job to a worker, has it, pairs are lists.
        object.__setattr__(self, "columns", tuple((str(role), str(name)) for role, name in self.columns))

    def scan(self) -> pa.Table:
        """Lists the videos: the columns of a plan but ``shard``, sorted by id, every id once.

        Raises:
            InputError: there are none, the listing cannot be read, or an id is bad or stands for two videos.
        """
        module = importlib.import_module(f"regionvlp.extract.sources.{KINDS[self.kind]}")
        found: pa.Table = module.scan(self)
        return found

    @property
    def is_listed(self) -> bool:
        """Whether a table names the videos, so that their files may not be there."""
        return self.kind in ("list", "segments")

    def is_here(self, row: PlanRow) -> bool:
        """Whether the video of a row can be opened where it lies."""
        apart = self.kind not in ("webdataset", "frames")
        return apart and not remote.is_url(remote.join(self.root, row.location or row.video_id))

    def path(self, row: PlanRow) -> Path:
        """The file of a row that is here.

        Raises:
            VideoError: it is not there now, or may be one of several.
        """
        location = row.location or row.video_id
        if self.is_listed:
            return find_file(self.root, location)
        path = Path(self.root, location)
        if not os.path.lexists(path):
            raise VideoError(
                "planned, but no longer in the folder", stage="open", reason="missing-file", transient=True
            )
        return path

    def is_there(self, row: PlanRow) -> bool:
        """Whether there is a file for a row now; taken for granted on another file system, where it takes requests."""
        place = remote.join(self.root, row.location or row.video_id)
        if remote.is_url(place) or self.kind == "frames":
            return True
        if self.kind == "webdataset":
            return os.path.exists(place)
        try:
            return self.path(row).exists()
        except VideoError as error:
            return error.reason == "ambiguous-file"

    @contextmanager
    def local(self, row: PlanRow, scratch: Scratch) -> Iterator[Path]:
        """Gives a path under which the video of a row can be opened until the block ends.

        Args:
            row: of the plan.
            scratch: holds the copy of what is not a file of its own here.

        Raises:
            VideoError: the video is not there, or could not be fetched, which is transient.
            InputError: there is no room for it, or its file system needs a package that is not installed.
        """
        place = remote.join(self.root, row.location or row.video_id)
        if self.kind == "webdataset" and row.member is None:
            raise VideoError(f"'{place}' breaks off or is no tar file", stage="open", reason="damaged")
        if self.is_here(row):
            yield self.path(row)
            return
        with _fetching(place):
            if self.is_listed:
                place = find_url(place)
            size = remote.size_of(place) if row.bytes == UNKNOWN else row.bytes

        def fill(target: Path) -> None:
            with _fetching(place):
                if row.offset is None:
                    remote.fetch(place, target)
                else:
                    remote.cut(place, row.offset, row.bytes, target)
            got = target.stat().st_size
            if size not in (UNKNOWN, got):
                raise VideoError(
                    f"'{place}' gave {got} of {size} bytes",
                    stage="open",
                    reason="damaged" if row.member else "io-error",
                    transient=not row.member,
                )

        suffix = PurePosixPath(row.member or place).suffix[:16]
        with scratch.copy(f"{place}\0{row.member or ''}", max(size, 0), suffix, fill) as path:
            yield path


@contextmanager
def _fetching(place: str) -> Iterator[None]:
    """Turns whatever keeps a file from being fetched into the failure of its video."""
    try:
        yield
    except RegionVLPError:
        raise
    except (FileNotFoundError, NotADirectoryError):
        raise VideoError(f"'{place}' does not exist", stage="open", reason="missing-file") from None
    except remote.ERRORS as error:
        if isinstance(error, OSError) and error.errno in DISK_FULL:  # the fault of the copy, and every other's too
            raise
        raise VideoError(
            f"'{place}' cannot be fetched: {type(error).__name__}: {error}",
            stage="open",
            reason="io-error",
            transient=not isinstance(error, PermissionError),
        ) from error
