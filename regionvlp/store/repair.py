"""Sets aside what verification finds bad, so that the next run does exactly that again.

In: a folder, its kind, and what verifies that kind. Out: the same folder without faults of its own: a shard is whole,
or it is planned and has no receipt. Nothing is deleted: what is taken out lies under ``set-aside/`` in the folder, and
can be put back by hand.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regionvlp.errors import InputError, ShardError
from regionvlp.store.claims import Claims
from regionvlp.store.files import create_once, document_text, set_aside, sha256_of
from regionvlp.store.locking import folder_lock
from regionvlp.store.manifest import BaseManifest
from regionvlp.store.names import MANIFEST_NAME
from regionvlp.store.receipts import BaseReceipt, finished_shards, receipt_path


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


@dataclass(frozen=True)
class Repair:
    """What :func:`set_faults_aside` did, or would do.

    Attributes:
        faults: what verification found before.
        moved: names of the files that were set aside, in order.
        redo: numbers of the shards that the next run does again.
        restored: whether the manifest was damaged and is now the one that a data file holds.
    """

    faults: list[Fault]
    moved: list[str]
    redo: list[int]
    restored: bool


def set_faults_aside(
    folder: Path,
    kind: type[BaseManifest],
    verify: Callable[[Path], list[Fault]],
    embedded: Callable[[Path, str], Mapping[str, Any]],
    *,
    dry_run: bool = False,
) -> Repair:
    """Sets bad shards of a folder aside: data that changed, receipts that are damaged or do not fit, doubled videos.

    Shards that are planned and not done are no fault here: the next run does them. A damaged manifest is restored from
    a data file whose receipt vouches for it. A damaged plan is set aside, and the next run plans anew.

    Args:
        folder: the folder.
        kind: of the folder.
        verify: finds the faults of such a folder.
        embedded: the manifest inside a whole data file of a format, given its path and the format.
        dry_run: only say what would be done.

    Raises:
        InputError: there is no such folder. ShardError: it is not one of its kind, its manifest is damaged and no data
            file is whole, or a worker is at it just now.
    """
    restored = _restore_manifest(folder, kind, embedded, dry_run)
    if dry_run and restored:
        fault = Fault(None, MANIFEST_NAME, "damaged; the rest is looked at once it is restored")
        return Repair([fault], [MANIFEST_NAME], [], restored=True)
    if not dry_run:
        with Claims(folder) as claims:
            alive = next((claim for claim in claims.all() if not claim.stale), None)
        if alive is not None:
            raise ShardError(
                f"{alive.process or 'a worker'} is at work on {alive.name}", "repair when the run has ended"
            )
    faults = verify(folder)
    redo = sorted({fault.shard for fault in faults if fault.shard is not None and not fault.undone})
    names = [name for shard in redo for name in _files_of(folder, kind, shard)]
    names += dict.fromkeys(fault.file for fault in faults if fault.shard is None)
    if not dry_run:
        with folder_lock(folder):
            for name in names:
                set_aside(folder, name)
    return Repair(faults, [MANIFEST_NAME] * restored + names, redo, restored)


def _files_of(folder: Path, kind: type[BaseManifest], shard: int) -> Iterator[str]:
    """Receipt and data of a shard. The receipt first: so at no moment one stands for data that is gone."""
    receipt = receipt_path(folder, shard)
    if receipt.exists():
        yield receipt.name
    yield from sorted(name for name in os.listdir(folder) if kind.data_shard(name) == shard)


def _restore_manifest(
    folder: Path, kind: type[BaseManifest], embedded: Callable[[Path, str], Mapping[str, Any]], dry_run: bool
) -> bool:
    """Whether the manifest was damaged; it is then the one inside a whole data file again."""
    if not folder.is_dir():
        raise InputError(f"no {kind.KIND} at {folder}", "check the path")
    try:
        kind.read(folder)
        return False
    except ShardError as damage:
        for receipt in _whole_receipts(folder, kind):
            assert receipt.file is not None
            path = folder / receipt.file
            if sha256_of(path) != receipt.sha256:
                continue
            manifest = kind.from_dict(embedded(path, receipt.format), path)
            if not dry_run:
                if (folder / MANIFEST_NAME).exists():
                    set_aside(folder, MANIFEST_NAME)
                create_once(folder / MANIFEST_NAME, document_text(manifest.as_dict()))
            return True
        if not any(folder.glob("shard-*")):  # a folder of something else
            raise
        raise ShardError(damage.message, "no data file is whole that could tell it: restore the file") from None


def _whole_receipts(folder: Path, kind: type[BaseManifest]) -> Iterator[BaseReceipt]:
    """Receipts that can be read and whose data is there."""
    for number in finished_shards(folder):
        with suppress(ShardError):
            receipt = BaseReceipt.read(receipt_path(folder, number))
            if receipt.format in kind.SUFFIXES and receipt.file is not None and (folder / receipt.file).is_file():
                yield receipt
