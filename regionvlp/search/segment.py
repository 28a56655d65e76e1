"""A segment: the rows of some clips, written once and memory-mapped from then on.

::

    clips.arrow         clip_id, video_id, path, start, end, stamp, look
    evidence.arrow      regions of each clip (see ``clips.Evidence``) and its thumbnail
    pooled-K.npy        [rows, D] float16, of encoder K
    tokens-K.npy        [rows, N, T] float16, with [rows, N] mask-K.npy bool, frames-K.npy and slots-K.npy int16

A segment that is there is whole: it is written in a folder under a temporary name, flushed, and renamed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from regionvlp.errors import ShardError
from regionvlp.search.clips import Clip, ClipInput, Evidence
from regionvlp.search.encoders.base import EncodedClips, StoredTokens
from regionvlp.search.folder import SEGMENT_PREFIX, EncoderRecord, writing
from regionvlp.store.files import document_text, flush, read_document, temporary_path

CLIPS, EVIDENCE, RECEIPT = "clips.arrow", "evidence.arrow", "segment.json"
LOOK_BITS = 64
_TOKEN_PARTS = (("tokens", np.float16), ("mask", np.bool_), ("frames", np.int16), ("slots", np.int16))
_AT_ONCE = 256  # rows that are copied at a time
CLIPS_SCHEMA = pa.schema(
    [
        pa.field("clip_id", pa.string()),
        pa.field("video_id", pa.string()),
        pa.field("path", pa.string()),
        pa.field("start", pa.float64()),
        pa.field("end", pa.float64()),
        pa.field("stamp", pa.string()),
        pa.field("look", pa.uint64()),  # bits that are alike for clips that look alike
    ]
)
EVIDENCE_SCHEMA = pa.schema(
    [
        pa.field("frame_time", pa.list_(pa.float64())),
        pa.field("frame_size", pa.list_(pa.int32())),
        pa.field("frame", pa.list_(pa.int16())),
        pa.field("slot", pa.list_(pa.int16())),
        pa.field("boxes", pa.list_(pa.float32())),
        pa.field("scores", pa.list_(pa.float32())),
        pa.field("labels", pa.list_(pa.string())),
        pa.field("thumbnail", pa.binary()),
    ]
)


@dataclass(frozen=True)
class Rows:
    """What is to be written of B clips: in the columns of the files above, arrays by file name."""

    clips: pa.Table
    evidence: pa.Table
    arrays: dict[str, NDArray[Any]]

    @classmethod
    def of(cls, inputs: Sequence[ClipInput], encoded: Sequence[EncodedClips], records: Sequence[EncoderRecord]) -> Rows:
        """The rows of clips with what each encoder made of them, sorted by id."""
        order = sorted(range(len(inputs)), key=lambda i: inputs[i].clip.clip_id)
        inputs = [inputs[i] for i in order]
        clips = [{**vars(item.clip), "look": _look(item)} for item in inputs]
        evidence = [_evidence_row(item) for item in inputs]
        arrays: dict[str, NDArray[Any]] = {}
        for k, (made, record) in enumerate(zip(encoded, records, strict=True)):
            if record.width:
                assert made.pooled is not None, f"{record.name} gave no vectors"
                arrays[f"pooled-{k}.npy"] = made.pooled[order].astype(np.float16)
            for part, dtype in _TOKEN_PARTS if record.tokens else ():
                arrays[f"{part}-{k}.npy"] = getattr(made, part)[order].astype(dtype)
        return cls(pa.Table.from_pylist(clips, CLIPS_SCHEMA), pa.Table.from_pylist(evidence, EVIDENCE_SCHEMA), arrays)

    def at(self, paths: Mapping[str, str]) -> Rows:
        """The same, of files that lie at these paths, by video id; those that are not named lie where they lay."""
        found = pa.array(_paths(self.clips, paths), pa.string())
        return Rows(self.clips.set_column(CLIPS_SCHEMA.names.index("path"), "path", found), self.evidence, self.arrays)

    @classmethod
    def joined(cls, pieces: Sequence[Rows]) -> Rows:
        """The rows of several pieces, sorted by id."""
        clips, evidence = (pa.concat_tables([getattr(p, part) for p in pieces]) for part in ("clips", "evidence"))
        order = pc.sort_indices(clips.column("clip_id")).to_numpy()
        names = pieces[0].arrays
        arrays = {name: np.concatenate([piece.arrays[name] for piece in pieces])[order] for name in names}
        return cls(clips.take(order), evidence.take(order), arrays)

    def __len__(self) -> int:
        return len(self.clips)


def write_segment(folder: Path, number: int, pieces: Iterable[Rows]) -> tuple[str, int]:
    """Writes one segment from pieces of rows, each of which is let go before the next is asked for.

    Args:
        folder: the index.
        number: of the segment. pieces: at least one, of the same arrays.

    Returns:
        The segment's name and the number of its rows.

    Raises:
        ShardError: the disk refuses; nothing of the segment is left.
    """
    final = folder / f"{SEGMENT_PREFIX}{number:06d}"
    temporary = temporary_path(final)
    try:
        with writing(folder):
            temporary.mkdir()
            rows = _write_pieces(temporary, pieces)
            sizes = {name: (temporary / name).stat().st_size for name in sorted(os.listdir(temporary))}
            (temporary / RECEIPT).write_text(document_text({"rows": rows, "bytes": sizes}), encoding="utf-8")
            for name in os.listdir(temporary):
                flush(temporary / name)
            flush(temporary)
            os.rename(temporary, final)
            flush(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final.name, rows


def _write_pieces(folder: Path, pieces: Iterable[Rows]) -> int:
    rows = 0
    writers: dict[str, _Growing] = {}
    with (
        pa.OSFile(str(folder / CLIPS), "wb") as clips_file,
        pa.OSFile(str(folder / EVIDENCE), "wb") as evidence_file,
        pa.ipc.new_file(clips_file, CLIPS_SCHEMA) as clips,
        pa.ipc.new_file(evidence_file, EVIDENCE_SCHEMA) as evidence,
    ):
        try:
            for piece in pieces:
                clips.write_table(piece.clips)
                evidence.write_table(piece.evidence)
                for name, values in piece.arrays.items():
                    if name not in writers:
                        writers[name] = _Growing(folder / name, values)
                    writers[name].append(values)
                rows += len(piece)
        finally:
            for writer in writers.values():
                writer.close()
    return rows


class _Growing:
    """A .npy file whose first axis grows: the header is written again at the end, and has room for any length."""

    def __init__(self, path: Path, like: NDArray[Any]) -> None:
        self._file = path.open("wb")
        self._dtype, self._shape, self._rows = like.dtype, like.shape[1:], 0
        self._header(1 << 40)

    def append(self, values: NDArray[Any]) -> None:
        assert values.shape[1:] == self._shape, f"rows of {values.shape[1:]} in a file of {self._shape}"
        self._file.write(np.ascontiguousarray(values).data)
        self._rows += len(values)

    def close(self) -> None:
        self._file.seek(0)
        self._header(self._rows)
        self._file.close()

    def _header(self, rows: int) -> None:
        described = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (rows, *self._shape),
        }
        text = repr(described).ljust(246 - 2)
        self._file.write(b"\x93NUMPY\x01\x00" + (246).to_bytes(2, "little") + text.encode() + b" \n")


class Segment:
    """A segment, opened. Nothing is read before it is asked for.

    Args:
        folder: the index. name: of the segment. records: the index's encoders.

    Raises:
        ShardError: a file is gone, cut off or damaged.
    """

    def __init__(self, folder: Path, name: str, records: Sequence[EncoderRecord]) -> None:
        self.name, self.path, self._records = name, folder / name, records
        self._arrays: dict[str, NDArray[Any]] = {}
        receipt = read_document(self.path / RECEIPT)
        self.rows = int(receipt["rows"])
        for file, size in receipt["bytes"].items():
            try:
                found = (self.path / file).stat().st_size
            except OSError:
                found = -1
            if found != size:
                state = "gone" if found < 0 else f"cut off or changed: it has {found} bytes of {size}"
                raise ShardError(
                    f"{self.path / file} is {state}", "make the index anew, or delete this segment's clips"
                )

    @cached_property
    def clips(self) -> pa.Table:
        """The table of clips."""
        return self._table(CLIPS)

    def moved(self, paths: Mapping[str, str]) -> bool:
        """Whether any of its files lies elsewhere than at these paths, by video id."""
        return bool(_paths(self.clips, paths) != self.clips.column("path").to_pylist())

    @cached_property
    def _evidence(self) -> pa.Table:
        return self._table(EVIDENCE)

    def _table(self, name: str) -> pa.Table:
        try:
            with pa.memory_map(str(self.path / name)) as file:
                return pa.ipc.open_file(file).read_all()
        except (OSError, pa.ArrowException) as error:
            raise ShardError(f"{self.path / name} is damaged: {error}", "make the index anew") from None

    def hold(self) -> None:
        """Maps all files now, so that they can be read even when a writer has removed them."""
        assert len(self.clips) == len(self._evidence)
        for name in os.listdir(self.path):
            if name.endswith(".npy"):
                self.array(name)

    def array(self, name: str) -> NDArray[Any]:
        """One of the arrays, memory-mapped."""
        if name not in self._arrays:
            self._arrays[name] = self._mapped(name)
        return self._arrays[name]

    def _mapped(self, name: str) -> NDArray[Any]:
        try:
            found: NDArray[Any] = np.load(self.path / name, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise ShardError(f"{self.path / name} is damaged: {error}", "make the index anew") from None
        if len(found) != self.rows:
            raise ShardError(f"{self.path / name} holds {len(found)} rows of {self.rows}", "make the index anew")
        return found

    def clip(self, row: int) -> Clip:
        """The clip of a row."""
        values = self.clips.slice(row, 1).to_pylist()[0]
        values.pop("look")
        return Clip(**values)

    def look(self, row: int) -> int:
        """The bits of a clip's looks."""
        return int(self.clips.column("look")[row].as_py())

    def evidence(self, row: int) -> Evidence:
        """The regions of a row."""
        names = EVIDENCE_SCHEMA.names[:-1]
        columns = {name: self._evidence.column(name)[row].values for name in names}
        arrays = {name: values.to_numpy(zero_copy_only=False) for name, values in columns.items() if name != "labels"}
        arrays["frame_size"], arrays["boxes"] = arrays["frame_size"].reshape(-1, 2), arrays["boxes"].reshape(-1, 4)
        return Evidence(**arrays, labels=columns["labels"].to_pylist())

    def thumbnail(self, row: int) -> bytes:
        """The JPEG of a row; empty where there is none."""
        found: bytes = self._evidence.column("thumbnail")[row].as_py()
        return found

    def tokens(self, encoder: int, row: int) -> StoredTokens | None:
        """The tokens of a row, where they are stored."""
        if not self._records[encoder].tokens:
            return None
        return StoredTokens(*(np.asarray(self.array(f"{part}-{encoder}.npy")[row]) for part, _ in _TOKEN_PARTS))

    def pieces(self, rows: NDArray[np.int64]) -> Iterator[Rows]:
        """Some rows of the segment, in the order given, a piece at a time."""
        names = [name for name in sorted(os.listdir(self.path)) if name.endswith(".npy")]
        arrays = {name: self.array(name) for name in names}
        for start in range(0, len(rows), _AT_ONCE):
            chosen = rows[start : start + _AT_ONCE]
            yield Rows(
                self.clips.take(chosen), self._evidence.take(chosen), {name: arrays[name][chosen] for name in names}
            )


def _paths(clips: pa.Table, paths: Mapping[str, str]) -> list[str]:
    known = zip(clips.column("video_id").to_pylist(), clips.column("path").to_pylist(), strict=True)
    return [paths.get(video_id, before) for video_id, before in known]


def _evidence_row(item: ClipInput) -> dict[str, Any]:
    evidence = item.evidence
    values = {name: np.ravel(getattr(evidence, name)).tolist() for name in EVIDENCE_SCHEMA.names[:-2]}
    return {**values, "labels": list(evidence.labels), "thumbnail": item.thumbnail}


def _look(item: ClipInput) -> int:
    """64 bits by which copies of a clip are told.

    With a picture, where its brightness rises from left to right, in a grid of 8 x 8. Without, on which side of fixed
    random planes the mean features of the clip and of three of its frames lie.
    """
    if item.thumbnail:
        with Image.open(io.BytesIO(item.thumbnail)) as image:
            return _gradients(image)
    if item.pictures is not None:
        return _gradients(Image.fromarray(item.pictures.frames[len(item.pictures.frames) // 2]))
    regions = item.regions[0]
    mask = regions.mask()[..., None]
    frames = (regions.features.astype(np.float32) * mask).sum(1) / np.maximum(mask.sum(1), 1)
    parts = [frames[i] for i in sorted({0, len(frames) // 2, len(frames) - 1})]
    planes = _planes(frames.shape[1])
    bits = np.concatenate([(part - part.mean()) @ planes > 0 for part in (np.mean(parts, 0), *parts)])[:LOOK_BITS]
    packed = np.packbits(np.resize(bits, LOOK_BITS))
    return int.from_bytes(packed.tobytes(), "big")


def _gradients(image: Image.Image) -> int:
    grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), np.int16)
    return int.from_bytes(np.packbits(np.diff(grey, axis=1) > 0).tobytes(), "big")


def _planes(width: int) -> NDArray[np.float32]:
    seed = int.from_bytes(hashlib.sha256(json.dumps(["look", width]).encode()).digest()[:8], "big")
    return np.random.default_rng(seed).standard_normal((width, 16)).astype(np.float32)
