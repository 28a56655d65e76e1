"""Writes one shard: data under a temporary name, flushed, renamed, and only then its receipt.

In: videos of one shard, one by one, and what failed. Out: a data file and a :class:`Receipt`, or nothing at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from regionvlp.errors import ShardError
from regionvlp.regions import VideoRegions
from regionvlp.shards.files import publish, remove_leftovers, sha256_of, temporary_path
from regionvlp.shards.formats import DataWriter, format_of
from regionvlp.shards.manifest import Manifest
from regionvlp.shards.receipts import Failure, Partial, Receipt, library_versions, receipt_path
from regionvlp.shards.schema import check_regions


class ShardWriter:
    """Writes shard ``number`` of ``folder``. Use it as a context manager: left without :meth:`finish`, by an exception
    or not, it leaves nothing behind.

    Args:
        folder: the shard folder.
        number: of the shard.
        manifest: of the folder, as :meth:`Manifest.create_or_check` returned it.

    Raises:
        ShardError: the shard has a receipt already.
    """

    def __init__(self, folder: Path, number: int, manifest: Manifest) -> None:
        self._folder, self._number, self._manifest = folder, number, manifest
        self._path = folder / manifest.data_name(number)
        self._temporary = temporary_path(self._path)
        self._file: DataWriter | None = None
        self._ids: set[str] = set()
        self._frames = self._regions = 0
        self._over = False
        self._refuse_done()
        with self._writing():
            remove_leftovers(folder, self._path.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._discard()

    def add(self, regions: VideoRegions) -> None:
        """Appends one video; its features go to the disk at once.

        Raises:
            ShardError: the video cannot be stored or is here already, and nothing of it was written; or the disk
                refuses, which ends the shard. To tell the two apart, call :func:`check_regions` first.
        """
        self._refuse_over()
        if regions.video_id in self._ids:
            raise ShardError(f"{regions.video_id!r} was added to shard {self._number} twice", "list every video once")
        check_regions(regions, self._manifest)
        with self._writing():
            if self._file is None:
                self._file = format_of(self._manifest).open_writer(self._temporary, self._manifest)
            self._file.add(regions)
        self._ids.add(regions.video_id)
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
    ) -> Receipt:
        """Publishes data and receipt. A shard without a single video has a receipt only.

        Args:
            failures: videos of this shard that have no rows.
            partial: videos of this shard that were used in part.
            versions: see :func:`library_versions`, which is the default.
            detector: identity of the detector; the manifest's by default.
            timings: seconds by name.

        Returns:
            The receipt as written.

        Raises:
            ShardError: a video both failed and was added, another run finished the shard meanwhile, or the disk
                refuses. This writer then wrote no shard.
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
                sha256=None if empty else sha256_of(self._temporary),
                videos=len(self._ids),
                frames=self._frames,
                regions=self._regions,
                failures=list(failures),
                partial=list(partial),
                versions=dict(library_versions() if versions is None else versions),
                detector=dict(self._manifest.detector if detector is None else detector),
                timings=dict(timings or {}),
            )
            self._refuse_done()
            self._publish(receipt)
        self._over = True
        return receipt

    def _publish(self, receipt: Receipt) -> None:
        try:
            if receipt.file is None:
                # What a run that was killed between data and receipt may have left.
                self._path.unlink(missing_ok=True)
            else:
                publish(self._temporary, self._path)
            receipt.write(self._folder)
        except BaseException:
            # In this order, so that at no moment a receipt stands for data that is gone.
            receipt_path(self._folder, self._number).unlink(missing_ok=True)
            self._path.unlink(missing_ok=True)
            raise

    def _refuse_done(self) -> None:
        path = receipt_path(self._folder, self._number)
        if path.exists():
            raise ShardError(f"shard {self._number} is done already: {path} exists", "delete the receipt to redo it")

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
