"""A shard folder in the other format or another dtype, shard by shard.

In: a folder. Out: another one with the same plan, ids, failures and detector, shard for shard; its manifest tells what
it was made from. Run again, it does what is missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from regionvlp.errors import InputError, ShardError
from regionvlp.regions import cast_features
from regionvlp.shards.dropped import note_dropped, read_dropped
from regionvlp.shards.reader import ShardReader
from regionvlp.shards.writer import ShardWriter
from regionvlp.store.claims import Claim, Claims, claim_name
from regionvlp.store.files import remove_leftovers, sha256_of
from regionvlp.store.locking import folder_lock
from regionvlp.store.manifest import Manifest
from regionvlp.store.plan import read_plan, write_plan
from regionvlp.store.receipts import Receipt, read_receipts, receipt_path
from regionvlp.store.recovery import set_lost_aside

_LOSS = {
    ("float32", "float16"): "features are rounded to 11 significant bits",
    ("float32", "uint8"): "features are rounded to 255 steps per region",
    ("float16", "uint8"): "features are rounded to 255 steps per region",
    ("uint8", "float16"): "products of code and scale are rounded to 11 significant bits",
}


def lacks_checksums(folder: Path) -> bool:
    """Whether a shard of a folder has data without checksums, as version 0.1 wrote it."""
    return any(receipt.file is not None and receipt.index is None for receipt in read_receipts(folder))


def converted_manifest(
    source: Manifest, file_format: str | None, dtype: str | None, *, checksums: bool = False
) -> Manifest:
    """The manifest of ``source`` in another format, another dtype, or both; None leaves one as it is.

    Args:
        source: the manifest of the folder to convert.
        file_format, dtype: what to convert to.
        checksums: it is to be converted for the checksums, so both may stay what they are.

    Raises:
        InputError: it would be the same. ShardError: no such format or dtype.
    """
    target = replace(source, format=file_format or source.format, dtype=dtype or source.dtype)
    if (target.format, target.dtype) == (source.format, source.dtype):
        if not checksums:
            raise InputError(
                f"the shards are {source.format} with {source.dtype} already, and have checksums",
                "choose --format or --dtype",
            )
        return target
    before = {"format": source.format, "dtype": source.dtype}
    return replace(target, video={**source.video, "converted_from": [*source.video.get("converted_from", []), before]})


def loss(source: Manifest, target: Manifest) -> str | None:
    """What a conversion loses, in words; None where every number stays what it is."""
    return _LOSS.get((source.dtype, target.dtype))


def convert(
    folder: Path,
    out: Path,
    target: Manifest,
    *,
    on_plan: Callable[[int, int], None] = lambda total, left: None,
    on_video: Callable[[int], None] = lambda frames: None,
) -> int:
    """Writes every finished shard of ``folder`` that ``out`` lacks.

    Args:
        folder: the shard folder to read.
        out: the one to fill.
        target: what :func:`converted_manifest` returned.
        on_plan: called once, with the numbers of videos in all and still to do.
        on_video: called after each video with its number of frames.

    Returns:
        The number of shards written.

    Raises:
        ShardError: ``out`` belongs to something else, a shard is damaged (nothing of it is then converted), or a video
            does not fit the new dtype.
    """
    if folder.resolve() == out.resolve():
        raise InputError("a folder cannot be converted into itself", "give another folder")
    manifest = Manifest.create_or_check(out, target)
    _copy_plan(folder, out)
    note_dropped(out, read_dropped(folder))
    receipts = list(read_receipts(folder))
    written = 0
    with Claims(out) as claims:
        claims.sweep()
        remove_leftovers(out)
        set_lost_aside(out, claims)
        left = [receipt for receipt in receipts if not receipt_path(out, receipt.shard).exists()]
        on_plan(sum(receipt.videos for receipt in receipts), sum(receipt.videos for receipt in left))
        for receipt in left:
            claim = claims.take(claim_name(receipt.shard), of_videos=receipt.videos)
            if claim is None:
                continue
            with claim:
                if not receipt_path(out, receipt.shard).exists():
                    _convert_shard(folder, receipt, out, manifest, claim, on_video)
                    written += 1
    return written


def _copy_plan(folder: Path, out: Path) -> None:
    plan = read_plan(folder)
    if plan is not None:
        with folder_lock(out):
            there = read_plan(out)
            if there is None or len(there) < len(plan):
                write_plan(out, plan)


def _convert_shard(
    folder: Path,
    receipt: Receipt,
    out: Path,
    manifest: Manifest,
    claim: Claim,
    on_video: Callable[[int], None],
) -> None:
    started = time.perf_counter()
    with ShardWriter(out, receipt.shard, manifest) as writer:
        if receipt.file is not None:
            path = folder / receipt.file
            # Otherwise the new checksum would vouch for numbers that the old one does not.
            if not path.exists() or sha256_of(path) != receipt.sha256:
                raise ShardError(f"{path} is not what its receipt says", f"run: regionvlp shards repair '{folder}'")
            reader = ShardReader(folder, shards=[receipt.shard], checksums=False)
            for video in reader.values():
                writer.add(replace(video, features=cast_features(video.features, manifest.memory_dtype)))
                on_video(video.num_frames)
        writer.finish(
            failures=receipt.failures,
            partial=receipt.partial,
            versions=receipt.versions,
            detector=receipt.detector,
            renamed=receipt.renamed,
            timings={**receipt.timings, "convert": round(time.perf_counter() - started, 3)},
            publishing=claim.publishing(),
        )
