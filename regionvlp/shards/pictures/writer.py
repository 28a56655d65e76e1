"""Writes one shard of frames: JPEGs under a temporary name, flushed, named, and only then the receipt.

In: videos as they were decoded, one by one, and what failed. Out: a data file and a :class:`FrameReceipt`, or nothing.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image
from xxhash import xxh3_64_intdigest

from regionvlp.errors import ShardError
from regionvlp.shards.pictures.format import FrameManifest, FrameReceipt, schema_of
from regionvlp.store.files import flush_and_sum, remove_leftovers, temporary_path
from regionvlp.store.publication import Publication
from regionvlp.store.receipts import Failure, Partial, library_versions
from regionvlp.store.sink import Sink
from regionvlp.video.decoded import DecodedVideo


class FrameWriter:
    """Writes shard ``number`` of ``folder``. Use it as a context manager: left without :meth:`finish`, it leaves
    nothing behind.

    Args:
        folder: the frame folder. number: of the shard. manifest: of the folder.

    Raises:
        ShardDoneError: the shard has a receipt already.
    """

    def __init__(self, folder: Path, number: int, manifest: FrameManifest) -> None:
        self._folder, self._number, self._manifest = folder, number, manifest
        self._path = folder / manifest.data_name(number)
        self._temporary = temporary_path(self._path)
        self._publication = Publication(folder, number, manifest, FrameReceipt)
        self._schema = schema_of(manifest)
        self._sink: Sink | None = None
        self._ids: dict[str, int] = {}  # with their frames
        self._publication.refuse_done()
        with self._writing():
            remove_leftovers(folder, self._path.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._discard()

    def add(self, video_id: str, video: DecodedVideo) -> None:
        """Appends the frames of one video.

        Raises:
            ShardError: the video is here already, or the disk refuses, which ends the shard.
        """
        if video_id in self._ids:
            raise ShardError(f"{video_id!r} was added to shard {self._number} twice", "list every video once")
        jpegs = [jpeg_of(frame, self._manifest.longer_side, self._manifest.quality) for frame in video.frames]
        row = {
            "video_id": [video_id],
            "frame_index": [video.frame_index.tolist()],
            "frame_time": [video.frame_time.tolist()],
            "image_size": [[side for frame in video.frames for side in frame.shape[:2]]],
            "jpeg": [jpegs],
            "checksum": [[xxh3_64_intdigest(jpeg) for jpeg in jpegs]],
        }
        with self._writing():
            if self._sink is None:
                self._sink = Sink(self._temporary)
                self._file = pq.ParquetWriter(self._sink, self._schema, compression="none", use_dictionary=False)
            # A row group a video: that of one can be read without those of the others.
            self._file.write_table(pa.Table.from_pydict(row, self._schema), row_group_size=1)
            self._sink.raise_error()
        self._ids[video_id] = len(jpegs)

    def finish(
        self,
        *,
        failures: Sequence[Failure] = (),
        partial: Sequence[Partial] = (),
        timings: Mapping[str, float] | None = None,
        publishing: AbstractContextManager[bool] | None = None,
    ) -> FrameReceipt:
        """Publishes data and receipt. A shard without a single video has a receipt only.

        Args:
            failures: videos without frames. partial: videos used in part. timings: seconds by name.
            publishing: see :meth:`~.claims.Claim.publishing`; by default nobody else is at the shard.

        Returns:
            The receipt as written.

        Raises:
            ShardError: another run finished the shard meanwhile, or the disk refuses.
        """
        with self._writing():
            empty = self._sink is None
            if self._sink is not None:
                self._file.close()
                self._sink.close()
                self._sink.raise_error()
            receipt = FrameReceipt(
                shard=self._number,
                file=None if empty else self._path.name,
                format=self._manifest.format,
                bytes=0 if empty else self._temporary.stat().st_size,
                sha256=None if empty else flush_and_sum(self._temporary),
                videos=len(self._ids),
                frames=sum(self._ids.values()),
                failures=list(failures),
                partial=list(partial),
                versions=dict(library_versions()),
                timings=dict(timings or {}),
            )
            with nullcontext(True) if publishing is None else publishing as alone:
                return self._publication.publish(receipt, self._temporary, alone)

    def _discard(self) -> None:
        if self._sink is not None and not self._sink.closed:
            self._sink.drop()
            with suppress(OSError, pa.ArrowException):
                self._file.close()
            self._sink.close()
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


def jpeg_of(frame: NDArray[np.uint8], longer_side: int, quality: int) -> bytes:
    """A [H, W, 3] uint8 RGB picture as JPEG, made so small that neither side is longer than ``longer_side`` pixels.

    Colours are kept at full resolution: detectors were trained on pictures whose colours were halved once, not twice.
    """
    image = Image.fromarray(frame)
    scale = longer_side / max(image.size)
    if scale < 1:
        width, height = (max(1, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()
