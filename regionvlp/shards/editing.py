"""Videos out of a shard folder for good, and videos by another name.

In: a folder and ids. Out: the shards that hold them written anew, each under a name of its own, with receipts that
tell; every other shard stays as it is. Stopped half-way and run again, either does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from regionvlp.errors import InputError, ShardError, nearest
from regionvlp.regions import VideoRegions
from regionvlp.shards.dropped import DROPPED, dropped_failure, note_dropped, read_dropped
from regionvlp.shards.reader import ShardReader
from regionvlp.shards.writer import ShardWriter
from regionvlp.store.claims import Claims, claim_name
from regionvlp.store.files import ASIDE, sha256_of
from regionvlp.store.locking import folder_lock
from regionvlp.store.manifest import Manifest
from regionvlp.store.plan import PlanTable, read_plan, write_plan
from regionvlp.store.receipts import Receipt, read_receipts

_EXAMPLES = 5


@dataclass(frozen=True)
class Edited:
    """What was done.

    Attributes:
        videos: how many videos were dropped or renamed by this call.
        shards: numbers of the shards that were written anew.
        aside: names of files under ``set-aside/`` that may hold dropped videos still.
    """

    videos: int
    shards: list[int]
    aside: list[str]


def drop(
    folder: Path,
    video_ids: Iterable[str],
    on_shard: Callable[[int], None] = lambda number: None,
    on_plan: Callable[[int], None] = lambda shards: None,
) -> Edited:
    """Takes videos out of a folder for good: their rows go, and nothing can bring them back into it.

    In the receipts they stand as failures of the reason ``dropped``, and ``dropped.json`` keeps any later run from
    storing them. Videos that are dropped already are passed over.

    Args:
        folder: the shard folder.
        video_ids: which videos; with rows, failed, or planned only.
        on_shard: called with the number of each shard that was written anew.
        on_plan: called once, with how many shards that will be.

    Raises:
        InputError: the folder knows nothing of some ids; nothing was done. ShardError: a shard is damaged, or somebody
            is at work on it.
    """
    wanted = dict.fromkeys(video_ids)
    manifest = Manifest.read(folder)
    receipts = list(read_receipts(folder))
    where = _Where(folder, receipts)
    gone = read_dropped(folder)
    _refuse_unknown(folder, [one for one in wanted if one not in gone and not where.knows(one)], where)
    note_dropped(folder, wanted)
    affected = [
        receipt
        for receipt in receipts
        if not where.rows(receipt).isdisjoint(wanted)
        or any(one.video_id in wanted and one.reason != DROPPED for one in receipt.failures)
    ]
    on_plan(len(affected))
    with Claims(folder) as claims:
        claims.sweep()
        for receipt in affected:
            _rewrite(folder, manifest, receipt, claims, wanted, {})
            on_shard(receipt.shard)
    aside = sorted(path.name for path in (folder / ASIDE).glob("shard-*") if not path.name.endswith(".json"))
    return Edited(sum(name not in gone for name in wanted), [receipt.shard for receipt in affected], aside)


def rename(
    folder: Path,
    names: Mapping[str, str],
    on_shard: Callable[[int], None] = lambda number: None,
    on_plan: Callable[[int], None] = lambda shards: None,
) -> Edited:
    """Gives videos other ids, in the data, the receipts and the plan, which goes on knowing where each video lies.

    Args:
        folder: the shard folder.
        names: old id -> new id.
        on_shard: called with the number of each shard that was written anew.
        on_plan: called once, with how many shards that will be.

    Raises:
        InputError: the folder knows nothing of an old id, or has a new one already; nothing was done. ShardError: a
            shard is damaged, or somebody is at work on it.
    """
    manifest = Manifest.read(folder)
    receipts = list(read_receipts(folder))
    where = _Where(folder, receipts)
    done_before = {old for old, new in names.items() if not where.knows(old) and where.knows(new)}
    _refuse_unknown(folder, [old for old in names if old not in done_before and not where.knows(old)], where)
    _check_names(names, where, read_dropped(folder))
    with Claims(folder) as claims:
        claims.sweep()
        if any(not claim.stale for claim in claims.all()):
            raise ShardError(f"somebody is at work on {folder}", "rename when the run has ended")
        affected = [
            receipt
            for receipt in receipts
            if not names.keys().isdisjoint(where.rows(receipt) | {one.video_id for one in receipt.failures})
        ]
        on_plan(len(affected))
        for receipt in affected:
            _rewrite(folder, manifest, receipt, claims, set(), names)
            on_shard(receipt.shard)
        _rename_planned(folder, names)
    return Edited(len(names) - len(done_before), [receipt.shard for receipt in affected], [])


class _Where:
    """Which shard knows of which videos."""

    def __init__(self, folder: Path, receipts: list[Receipt]) -> None:
        self._readers = {
            receipt.shard: ShardReader(folder, shards=[receipt.shard], checksums=False)
            for receipt in receipts
            if receipt.file is not None
        }
        self._rows = {shard: set(reader) for shard, reader in self._readers.items()}
        plan = read_plan(folder)
        planned = set() if plan is None else set(plan.table.column("video_id").to_pylist())
        failed = {failure.video_id for receipt in receipts for failure in receipt.failures}
        self._layers = (failed.union(*self._rows.values()), planned)

    def rows(self, receipt: Receipt) -> set[str]:
        """Ids with rows in a shard."""
        return self._rows.get(receipt.shard, set())

    def knows(self, video_id: str) -> bool:
        """Whether a video has rows, failed, or is planned."""
        return any(video_id in layer for layer in self._layers)

    def both(self, one: str, other: str) -> bool:
        """Whether two ids are two videos. A renaming that did not live to its end leaves the new id in the shards and
        the old one in the plan."""
        return any(one in layer and other in layer for layer in self._layers)

    def like(self, video_id: str) -> str:
        """A hint to an id that is close."""
        known = self._layers[0] | self._layers[1]
        return nearest(video_id, known) if len(known) <= 1000 else ""


def _refuse_unknown(folder: Path, unknown: Collection[str], where: _Where) -> None:
    if unknown:
        names = ", ".join(repr(one) for one in list(unknown)[:_EXAMPLES]) + (
            ", ..." if len(unknown) > _EXAMPLES else ""
        )
        hint = where.like(next(iter(unknown))) or "ids are paths below the folder that was extracted"
        raise InputError(f"{folder} knows nothing of {len(unknown)} of these videos: {names}", hint)


def _check_names(names: Mapping[str, str], where: _Where, dropped: Collection[str]) -> None:
    new = list(names.values())
    if len(set(new)) < len(new):
        raise InputError("two videos would get the same name", "give each a name of its own")
    for old, name in names.items():
        if not name or "\0" in name or not name.isprintable():
            raise InputError(f"{name!r} cannot be the id of a video", "give printable characters")
        if old in dropped or name in dropped:
            raise InputError(f"{old!r} cannot be renamed to {name!r}: one of them was dropped", "choose another name")
        if where.both(old, name):
            raise InputError(f"{old!r} cannot be renamed: there is a video {name!r}", "choose another name")


def _rewrite(
    folder: Path,
    manifest: Manifest,
    receipt: Receipt,
    claims: Claims,
    without: Collection[str],
    names: Mapping[str, str],
) -> None:
    """Writes a shard anew: without some videos, and with other names for some."""
    claim = claims.take(claim_name(receipt.shard), of_videos=receipt.videos)
    if claim is None:
        raise ShardError(f"somebody is at work on shard {receipt.shard}", "run again when they have ended")

    def renamed(video_id: str) -> str:
        return names.get(video_id, video_id)

    failures = [
        dropped_failure(one.video_id) if one.video_id in without else replace(one, video_id=renamed(one.video_id))
        for one in receipt.failures
    ]
    with claim, ShardWriter(folder, receipt.shard, manifest, replaces=receipt) as writer:
        for video in _videos(folder, receipt):
            if video.video_id in without:
                failures.append(dropped_failure(video.video_id))
            else:
                writer.add(replace(video, video_id=renamed(video.video_id)))
        writer.finish(
            failures=failures,
            partial=[replace(p, video_id=renamed(p.video_id)) for p in receipt.partial if p.video_id not in without],
            versions=receipt.versions,
            detector=receipt.detector,
            timings=receipt.timings,
            renamed={**receipt.renamed, **{new: old for old, new in names.items() if new in writer.video_ids}},
            publishing=claim.publishing(),
        )


def _videos(folder: Path, receipt: Receipt) -> Iterator[VideoRegions]:
    if receipt.file is None:
        return
    path = folder / receipt.file
    # Otherwise the new checksums would vouch for numbers that the old one does not.
    if sha256_of(path) != receipt.sha256:
        raise ShardError(f"{path} is not what its receipt says", f"run: regionvlp shards repair '{folder}'")
    yield from ShardReader(folder, shards=[receipt.shard], checksums=False).values()


def _rename_planned(folder: Path, names: Mapping[str, str]) -> None:
    with folder_lock(folder):
        plan = read_plan(folder)
        if plan is None:
            return
        table = plan.table
        ids, locations = table.column("video_id"), table.column("location")
        old = pa.array(list(names), pa.string())
        place = pc.index_in(ids, old)
        if place.null_count == len(table):
            return
        new = pc.take(pa.array(list(names.values()), pa.string()), place)
        # Where a row has no location, its id is one.
        moved = pc.if_else(pc.and_(pc.is_valid(place), pc.is_null(locations)), ids, locations)
        table = table.set_column(
            table.column_names.index("video_id"), table.schema.field("video_id"), pc.coalesce(new, ids)
        )
        table = table.set_column(table.column_names.index("location"), table.schema.field("location"), moved)
        write_plan(folder, PlanTable(table))
