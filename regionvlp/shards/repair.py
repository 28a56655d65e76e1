"""Sets aside what verification finds bad in a folder of regions; see :mod:`regionvlp.store.repair`."""

from __future__ import annotations

from pathlib import Path

from regionvlp.shards.formats import format_named
from regionvlp.shards.manifest import Manifest
from regionvlp.shards.verification import verify
from regionvlp.store.repair import Repair, set_faults_aside


def repair(folder: Path, *, dry_run: bool = False) -> Repair:
    """Makes a shard folder whole; what was bad lies under ``set-aside/`` in it, and the next run does that again.

    Args:
        folder: the shard folder.
        dry_run: only say what would be done.

    Raises:
        InputError, ShardError: see :func:`~regionvlp.store.repair.set_faults_aside`.
    """
    return set_faults_aside(
        folder, Manifest, verify, lambda path, name: format_named(name).read_manifest(path), dry_run=dry_run
    )
