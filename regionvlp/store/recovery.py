"""What runs that died left in a folder, put right by those that come after.

In: a folder and the claims of the caller. Nothing that a receipt stands for is ever removed.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from pathlib import Path

from regionvlp.store.claims import Claims, claim_name
from regionvlp.store.files import in_use, is_temporary, remove_leftovers, set_aside
from regionvlp.store.locking import folder_lock
from regionvlp.store.manifest import BaseManifest
from regionvlp.store.receipts import BaseReceipt, data_files, finished_shards, lost_shards, receipt_path

log = logging.getLogger(__name__)


def set_lost_aside(folder: Path, claims: Claims) -> None:
    """Has shards whose data file is gone or cut done again; what is left of them stays, in another place."""
    for number in lost_shards(folder):
        claim = claims.take(claim_name(number))
        if claim is None:
            continue
        with claim, claim.publishing():
            # Somebody may have been replacing the shard while its receipt was read.
            if number not in lost_shards(folder, [number]):
                continue
            receipt = BaseReceipt.read(receipt_path(folder, number))
            log.warning("shard %d is not what its receipt says; it is set aside and done again", number)
            for name in (receipt_path(folder, number).name, receipt.file):
                if name and (folder / name).exists():
                    set_aside(folder, name)


def tidy(folder: Path, claims: Claims, run: str, kind: type[BaseManifest]) -> None:
    """At the end of a run: removes the claims of the dead and what they left unfinished.

    While anybody is at work, only what belongs to dead processes of this machine goes.

    Args:
        folder: one with a manifest.
        claims: the caller's, who holds none.
        run: whose workers have all ended; an interrupt may have kept one from giving its claim back.
        kind: of the folder.
    """
    claims.sweep(lambda claim: claim.run == run)
    remove_leftovers(folder)
    if claims.all():
        return
    with folder_lock(folder):
        _remove_unnamed_data(folder, kind.read(folder))
        for name in os.listdir(folder):
            if is_temporary(name) and not in_use(name) and claims.is_old(folder / name):
                (folder / name).unlink(missing_ok=True)


def _remove_unnamed_data(folder: Path, manifest: BaseManifest) -> None:
    """Removes data of finished shards that their receipts do not name.

    A run did not live to write the receipt, and a later one wrote other data.
    """
    finished = set(finished_shards(folder))
    count = Counter(map(manifest.data_shard, os.listdir(folder)))
    for number in finished & count.keys():
        receipt = BaseReceipt.read(receipt_path(folder, number))
        for path in data_files(folder, manifest, number) if count[number] > 1 or receipt.file is None else ():
            if path.name != receipt.file:
                path.unlink(missing_ok=True)
