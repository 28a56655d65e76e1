"""Verifies and repairs a folder of cached frames. A recorded failure is not a fault."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from regionvlp.errors import InputError, ShardError
from regionvlp.shards.pictures.format import FrameManifest, FrameReceipt, embedded_manifest
from regionvlp.shards.pictures.reader import FrameReader
from regionvlp.store.files import in_use, is_temporary, sha256_of
from regionvlp.store.names import MANIFEST_NAME
from regionvlp.store.plan import PLAN_NAME, read_plan
from regionvlp.store.receipts import finished_shards, receipt_path
from regionvlp.store.repair import Fault, Repair, set_faults_aside


def verify_frames(folder: str | os.PathLike[str], *, deep: bool = True) -> list[Fault]:
    """Checks a frame folder.

    Args:
        folder: the folder. deep: also read every byte: checksums, and whether every JPEG is one.

    Returns:
        The faults; empty where the folder is whole and its plan is done.

    Raises:
        InputError: there is no such folder.
    """
    path = Path(folder).absolute()
    if not path.is_dir():
        raise InputError(f"no frame folder at {folder}", "check the path")
    try:
        manifest = FrameManifest.read(path)
    except ShardError as error:
        return [Fault(None, MANIFEST_NAME, error.message)]
    return [*_faults_of_names(path, manifest), *_faults_of_shards(path, manifest, deep)]


def repair_frames(folder: Path, *, dry_run: bool = False) -> Repair:
    """Sets aside what verification finds bad; the command that made the folder does that again.

    Raises:
        InputError, ShardError: see :func:`~regionvlp.store.repair.set_faults_aside`.
    """
    return set_faults_aside(
        folder, FrameManifest, verify_frames, lambda path, name: embedded_manifest(path), dry_run=dry_run
    )


def _faults_of_names(path: Path, manifest: FrameManifest) -> Iterator[Fault]:
    finished = set(finished_shards(path))
    for name in sorted(os.listdir(path)):
        if is_temporary(name) and not in_use(name):
            yield Fault(None, name, "left by a process that ended while writing; delete it")
        shard = FrameManifest.data_shard(name)
        if shard is not None and shard not in finished:
            yield Fault(shard, name, "data without a receipt")
    try:
        plan = read_plan(path)
    except ShardError as error:
        yield Fault(None, PLAN_NAME, error.message)
        return
    if plan is None:
        yield Fault(None, PLAN_NAME, "missing, so nothing tells which videos there should be")
        return
    for shard in plan.shards():
        if shard not in finished:
            name = receipt_path(path, shard).name
            yield Fault(shard, name, "not done: planned, but has no receipt", undone=True)


def _faults_of_shards(path: Path, manifest: FrameManifest, deep: bool) -> Iterator[Fault]:
    held: dict[str, int] = {}
    for shard in finished_shards(path):
        name = receipt_path(path, shard).name
        try:
            receipt = FrameReceipt.read(path / name)
        except ShardError as error:
            yield Fault(shard, name, error.message)
            continue
        if receipt.file is None:
            continue
        if receipt.is_lost(path):
            yield Fault(shard, receipt.file, "gone, or not of the size that its receipt says")
            continue
        if deep and sha256_of(path / receipt.file) != receipt.sha256:
            yield Fault(shard, receipt.file, "its checksum is not that of its receipt")
            continue
        yield from _faults_of_data(path, receipt, held, deep)


def _faults_of_data(path: Path, receipt: FrameReceipt, held: dict[str, int], deep: bool) -> Iterator[Fault]:
    assert receipt.file is not None
    reader = FrameReader(path, [receipt.shard])
    try:
        ids = list(reader)
        if len(ids) != receipt.videos:
            yield Fault(receipt.shard, receipt.file, f"holds {len(ids)} videos, its receipt says {receipt.videos}")
        for video_id in ids:
            if video_id in held:
                message = f"{video_id!r} is in shard {held[video_id]} as well"
                yield Fault(receipt.shard, receipt.file, message)
            held[video_id] = receipt.shard
            for jpeg in reader[video_id].jpegs if deep else ():
                with Image.open(io.BytesIO(jpeg)) as image:
                    image.verify()
    except (ShardError, OSError, SyntaxError) as error:
        yield Fault(receipt.shard, receipt.file, getattr(error, "message", str(error)))
