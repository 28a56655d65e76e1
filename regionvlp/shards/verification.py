"""Verifies a shard folder: every fault is found and named, and a recorded failure is not a fault.

In: a folder. Out: a list of faults, empty where the folder is whole and its plan is done.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from regionvlp.errors import InputError, ShardError
from regionvlp.shards.checksums import frame_checksums
from regionvlp.shards.codec import video_regions
from regionvlp.shards.dropped import DROPPED_NAME, read_dropped
from regionvlp.shards.frames import frame_reader
from regionvlp.shards.guarded import Guarded, look_into
from regionvlp.shards.index import build_index
from regionvlp.shards.places import ShardIndex
from regionvlp.shards.schema import find_problem
from regionvlp.store.files import in_use, is_temporary, sha256_of
from regionvlp.store.manifest import MANIFEST_NAME, Manifest
from regionvlp.store.plan import PLAN_NAME, PlanTable, read_plan
from regionvlp.store.receipts import Receipt, data_files, finished_shards, names_shard, receipt_path

_EXAMPLES = 5  # of damaged frames that are named


@dataclass(frozen=True)
class Fault:
    """Something that is not as it should be.

    Attributes:
        shard: its number, None where no single shard is at fault.
        file: name of the file within the folder.
        message: what is wrong, in words.
        undone: nothing is bad, a planned shard is just not done yet.
    """

    shard: int | None
    file: str
    message: str
    undone: bool = False

    def __str__(self) -> str:
        return f"{self.file}: {self.message}"


def verify(folder: str | os.PathLike[str], *, deep: bool = True, planned: bool = False) -> list[Fault]:
    """Checks a shard folder.

    Args:
        folder: the shard folder.
        deep: also read every byte: checksums, and the numbers of every video. Without it, what file names, sizes, ids,
            receipts and plan tell.
        planned: the set was extracted, so it has a plan; without one nobody knows which videos it should hold.

    Returns:
        The faults, by shard; those of the folder itself first.

    Raises:
        InputError: there is no such folder.
    """
    path = Path(folder).absolute()
    if not path.is_dir():
        raise InputError(f"no shard folder at {folder}", "check the path")
    try:
        manifest = Manifest.read(path)
    except ShardError as error:
        return [Fault(None, MANIFEST_NAME, error.message)]
    return _Verification(path, manifest, deep, planned).run()


class _Verification:
    def __init__(self, folder: Path, manifest: Manifest, deep: bool, planned: bool) -> None:
        self._folder, self._manifest, self._deep = folder, manifest, deep
        self._needs_plan = planned
        self._faults: list[Fault] = []
        self._guarded = Guarded(manifest)
        self._plan: PlanTable | None = None
        self._dropped: dict[str, str] = {}

    def run(self) -> list[Fault]:
        try:
            self._plan = read_plan(self._folder)
        except ShardError as error:
            self._fault(None, PLAN_NAME, error.message)
        try:
            self._dropped = read_dropped(self._folder)
        except ShardError as error:
            self._fault(None, DROPPED_NAME, error.message)
        self._check_names()
        # One shard's ids at a time: what is kept of them is the index.
        index = build_index(self._check_shards())
        for video_id, first, second in index.duplicates():
            self._fault(second, self._manifest.data_name(second), f"{video_id!r} is in shard {first} as well")
        return sorted(self._faults, key=lambda fault: -1 if fault.shard is None else fault.shard)

    def _fault(self, shard: int | None, file: str, message: str, undone: bool = False) -> None:
        self._faults.append(Fault(shard, file, message, undone))

    def _check_names(self) -> None:
        """What the names of files tell: leftovers, data without a receipt, planned shards that are not done."""
        finished = set(finished_shards(self._folder))
        for name in sorted(os.listdir(self._folder)):
            if is_temporary(name) and not in_use(name):
                self._fault(None, name, "left by a process that ended while writing; delete it")
            shard = names_shard(name)
            suffix = Path(self._manifest.data_name(0)).suffix
            if shard is not None and (shard not in finished or Path(name).suffix != suffix):
                self._fault(shard, name, "data without a receipt")
        if self._plan is None and self._needs_plan:
            self._fault(None, PLAN_NAME, "missing, so nothing tells which videos there should be")
        if self._plan is not None:
            for shard in self._plan.shards():
                if shard not in finished:
                    name = receipt_path(self._folder, shard).name
                    self._fault(shard, name, "not done: planned, but has no receipt", undone=True)
            if twice := self._plan.repeated_id():
                self._fault(None, PLAN_NAME, f"{twice!r} is planned twice")

    def _check_shards(self) -> Iterator[tuple[int, list[str]]]:
        """Checks every shard that has a receipt and yields its number and the ids of its rows."""
        for shard in finished_shards(self._folder):
            name = receipt_path(self._folder, shard).name
            try:
                receipt = Receipt.read(self._folder / name)
            except ShardError as error:
                self._fault(shard, name, error.message)
                continue
            if not self._names_data(receipt):
                wanted = self._manifest.data_name(shard) if receipt.videos else None
                self._fault(shard, name, f"names the data file {receipt.file!r}, expected {wanted!r}")
                continue
            for path in data_files(self._folder, self._manifest, shard):
                if receipt.file is None:
                    self._fault(shard, path.name, "the receipt says that there is no data file")
                elif path.name != receipt.file:
                    self._fault(shard, path.name, f"data without a receipt: that of its shard names {receipt.file!r}")
            try:
                ids = self._check_data(receipt)
            except ShardError as error:
                self._fault(shard, receipt.file or name, error.message)
                continue
            self._check_rows(receipt, ids)
            yield shard, ids

    def _names_data(self, receipt: Receipt) -> bool:
        """Whether a receipt names a data file that can be its shard's, or none where there are no rows."""
        if receipt.format != self._manifest.format or (receipt.file is None) != (receipt.videos == 0):
            return False
        suffix = Path(self._manifest.data_name(0)).suffix
        return receipt.file is None or (names_shard(receipt.file) == receipt.shard and receipt.file.endswith(suffix))

    def _check_data(self, receipt: Receipt) -> list[str]:
        """Checks the data file of a receipt and returns the ids of its rows; raises ShardError at the first fault."""
        if receipt.file is None:
            return []
        path = self._folder / receipt.file
        try:
            size = path.stat().st_size
            if size != receipt.bytes:
                raise ShardError(f"{size} bytes, the receipt says {receipt.bytes}")
            # Before anything is parsed: a library may do worse than raise when it reads a damaged file.
            if self._deep and sha256_of(path) != receipt.sha256:
                raise ShardError(f"its bytes changed: the checksum is not the receipt's{self._damage(receipt)}")
        except OSError as error:
            raise ShardError(f"cannot be read: {error.strerror or error}") from error
        index = self._index(receipt)
        found = look_into(path, self._manifest) if self._deep else index or self._guarded.look_into(path)
        ids = list(found.ids)
        counts = {"videos": len(ids), "frames": int(found.places.num_frames.sum())}
        if self._deep:
            counts["regions"] = self._check_numbers(path, found, index)
        for name, count in counts.items():
            if count != getattr(receipt, name):
                raise ShardError(f"{count} {name}, the receipt says {getattr(receipt, name)}")
        if index is not None and (list(index.ids) != ids or not index.places.same(found.places)):
            raise ShardError("its receipt says that its rows lie elsewhere")
        return ids

    def _index(self, receipt: Receipt) -> ShardIndex | None:
        """What a receipt says of the inside of its data, None where it says nothing."""
        if receipt.index is None:
            return None
        name = receipt_path(self._folder, receipt.shard).name
        return ShardIndex.from_document(receipt.index, self._manifest, name)

    def _damage(self, receipt: Receipt) -> str:
        """Which frames of a file that changed are not what they were, in words; empty where nothing can tell."""
        index = self._index(receipt)
        if index is None or index.checksums is None:
            return ""
        assert receipt.file is not None
        reader = frame_reader(self._folder / receipt.file, index, self._manifest, check=True)
        bad = []
        for row, (video_id, frames) in enumerate(zip(index.ids, index.places.num_frames.tolist(), strict=True)):
            for slot in range(frames):
                try:
                    reader.video(row, slot, slot + 1)
                except ShardError:
                    bad.append(f"{slot} of {video_id!r}")
        more = ", ..." if len(bad) > _EXAMPLES else ""
        return f"; damaged are the frames {', '.join(bad[:_EXAMPLES])}{more}" if bad else "; every frame is whole"

    def _check_numbers(self, path: Path, found: ShardIndex, index: ShardIndex | None) -> int:
        """Reads every video; returns the number of regions."""
        regions = 0
        reader = frame_reader(path, found, self._manifest, check=False)
        sums = index.checksums if index is not None and len(index.ids) == len(found.ids) else None
        for row, (video_id, frames) in enumerate(zip(found.ids, found.places.num_frames.tolist(), strict=True)):
            columns = reader.video(row, 0, frames)
            video = video_regions(video_id, columns, self._manifest)
            problem = find_problem(video, self._manifest)
            if problem:
                raise ShardError(f"{video_id!r}: {problem}")
            if sums is not None and not np.array_equal(frame_checksums(columns, self._manifest), sums[row, :frames]):
                raise ShardError(f"{video_id!r}: its frames are not those that the receipt has checksums of")
            regions += int(video.num_regions.sum())
        return regions

    def _check_rows(self, receipt: Receipt, ids: list[str]) -> None:
        """Compares rows and failures with the plan."""
        name = receipt_path(self._folder, receipt.shard).name
        rows, failed = set(ids), {failure.video_id for failure in receipt.failures}
        for video_id in sorted(rows & failed):
            self._fault(receipt.shard, name, f"{video_id!r} has rows and is reported as failed")
        for video_id in sorted(rows & self._dropped.keys()):
            self._fault(receipt.shard, name, f"{video_id!r} was dropped, but has rows")
        if self._plan is None:
            return
        planned = set(self._plan.video_ids(receipt.shard))
        for video_id in sorted(planned - rows - failed):
            self._fault(receipt.shard, name, f"{video_id!r} is planned, but has neither rows nor a failure")
        for video_id in sorted((rows | failed) - planned):
            self._fault(receipt.shard, name, f"{video_id!r} is not planned for this shard")
