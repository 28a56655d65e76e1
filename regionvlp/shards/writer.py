"""Writes one shard: data under a temporary name, flushed, named, and only then its receipt.

In: videos of one shard, one by one, and what failed. Out: a data file and a :class:`Receipt`, or nothing at all.
How the two appear together, :mod:`regionvlp.store.publication` tells.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from regionvlp.errors import ShardError
from regionvlp.regions import VideoRegions
from regionvlp.shards.checksums import frame_checksums
from regionvlp.shards.codec import stored_columns
from regionvlp.shards.dropped import dropped_failure, read_dropped
from regionvlp.shards.formats import DataWriter, format_of
from regionvlp.shards.manifest import Manifest
from regionvlp.shards.places import ShardIndex
from regionvlp.shards.receipts import Receipt
from regionvlp.shards.schema import RECEIPT_VERSION, SCHEMA_VERSION, check_regions
from regionvlp.store.files import flush_and_sum, remove_leftovers, temporary_path
from regionvlp.store.publication import Publication
from regionvlp.store.publication import ShardDoneError as ShardDoneError
from regionvlp.store.receipts import Failure, Partial, library_versions


class ShardWriter:
    """Writes shard ``number`` of ``folder``. Use it as a context manager: left without :meth:`finish`, by an exception
    or not, it leaves nothing behind.

    Args:
        folder: the shard folder.
        number: of the shard.
        manifest: of the folder, as :meth:`Manifest.create_or_check` returned it.
        replaces: the receipt that the new one is to take the place of, with its data; none by default.

    Raises:
        ShardError: the shard has a receipt already, or not the one to be replaced.
    """

    def __init__(self, folder: Path, number: int, manifest: Manifest, *, replaces: Receipt | None = None) -> None:
        self._folder, self._number, self._manifest = folder, number, manifest
        self._publication = Publication(folder, number, manifest, Receipt, replaces)
        self._path = folder / manifest.data_name(number)
        self._temporary = temporary_path(self._path)
        self._file: DataWriter | None = None
        self._ids: dict[str, NDArray[np.uint64]] = {}  # in the order of the rows, with the checksums of their frames
        self._refused: list[str] = []
        self._dropped = read_dropped(folder)
        self._frames = self._regions = 0
        self._over = False
        self._publication.refuse_done()
        with self._writing():
            remove_leftovers(folder, self._path.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._discard()

    @property
    def video_ids(self) -> Collection[str]:
        """Ids of the videos that were added, in order."""
        return self._ids.keys()

    def add(self, regions: VideoRegions) -> None:
        """Appends one video; its features go to the disk at once. One that was dropped from the folder becomes a
        failure instead.

        Raises:
            ShardError: the video cannot be stored or is here already, and nothing of it was written; or the disk
                refuses, which ends the shard. To tell the two apart, call :func:`check_regions` first.
        """
        self._refuse_over()
        if regions.video_id in self._ids:
            raise ShardError(f"{regions.video_id!r} was added to shard {self._number} twice", "list every video once")
        check_regions(regions, self._manifest)
        if regions.video_id in self._dropped:
            self._refused.append(regions.video_id)
            return
        with self._writing():
            if self._file is None:
                self._file = format_of(self._manifest).open_writer(self._temporary, self._manifest)
            columns = stored_columns(regions, self._manifest)
            self._file.add(regions.video_id, columns)
        self._ids[regions.video_id] = frame_checksums(columns, self._manifest)
        self._frames += regions.num_frames
        self._regions += int(regions.num_regions.sum())

    def finish(
        self,
        *,
        failures: Sequence[Failure] = (),
        partial: Sequence[Partial] = (),
        versions: Mapping[str, str] | None = None,
        detector: Mapping[str, Any] | None = None,
        timings: Mapping[str, float] | None = None,
        renamed: Mapping[str, str] | None = None,
        publishing: AbstractContextManager[bool] | None = None,
    ) -> Receipt:
        """Publishes data and receipt. A shard without a single video has a receipt only.

        Args:
            failures: videos of this shard that have no rows.
            partial: videos of this shard that were used in part.
            versions: see :func:`library_versions`, which is the default.
            detector: identity of the detector; the manifest's by default.
            timings: seconds by name.
            renamed: ids that videos had before, by the ids that they have.
            publishing: entered around all that changes the folder, after the data was written and summed; yields
                whether nobody else can publish this shard meanwhile (see :meth:`~.claims.Claim.publishing`). By
                default nobody else is at it.

        Returns:
            The receipt as written.

        Raises:
            ShardError: a video both failed and was added, another run finished the shard meanwhile, or the disk
                refuses. This writer then wrote no shard. What ``publishing`` raises is passed on.
        """
        self._refuse_over()
        both = next((failure.video_id for failure in failures if failure.video_id in self._ids), None)
        if both is not None:
            raise ShardError(f"{both!r} was added to shard {self._number} and reported as failed", "report it once")
        with self._writing():
            if self._file is not None:
                self._file.close()
            empty = not self._ids
            receipt = Receipt(
                shard=self._number,
                file=None if empty else self._path.name,
                format=self._manifest.format,
                bytes=0 if empty else self._temporary.stat().st_size,
                sha256=None if empty else flush_and_sum(self._temporary),
                videos=len(self._ids),
                frames=self._frames,
                regions=self._regions,
                failures=[*failures, *map(dropped_failure, self._refused)],
                partial=list(partial),
                versions=dict(library_versions() if versions is None else versions),
                detector=dict(self._manifest.detector if detector is None else detector),
                timings=dict(timings or {}),
                renamed=dict(renamed or {}),
                index=None if empty else self._index(),
                schema_version=SCHEMA_VERSION if empty and not renamed else RECEIPT_VERSION,
            )
            with nullcontext(True) if publishing is None else publishing as alone:
                receipt = self._publication.publish(receipt, self._temporary, alone)
        self._over = True
        return receipt

    def _index(self) -> dict[str, str]:
        """What the receipt says of the inside of the data, which is read back for it."""
        try:
            layout = format_of(self._manifest).read_layout(self._temporary, self._manifest)
        except ShardError as error:
            if isinstance(error.__cause__, OSError):
                raise error.__cause__ from None
            raise
        return ShardIndex.of(list(self._ids), layout, list(self._ids.values()), self._manifest).as_document()

    def _refuse_over(self) -> None:
        # Going on after a failed write would leave out what was added before it.
        if self._over:
            raise ShardError(f"shard {self._number} was finished or given up", "write it with a new ShardWriter")

    def _discard(self) -> None:
        self._over = True
        if self._file is not None:
            self._file.abort()
            self._file = None
        self._temporary.unlink(missing_ok=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self._discard()
            if not isinstance(error, OSError):
                raise
            raise ShardError(
                f"cannot write shard {self._number} to {self._folder}: {error.strerror or error}",
                "free some space or mend the disk, and run again: finished shards are kept",
            ) from error
