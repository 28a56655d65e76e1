"""Names of the files of a folder: which shard a name belongs to, told without opening anything.

In: a shard's number, or a name. Out: the other one. Every kind of folder numbers its shards alike; only what its data
files end with is its own.
"""

from __future__ import annotations

import re
from collections.abc import Collection

MANIFEST_NAME = "manifest.json"

_DATA = re.compile(r"shard-(\d{5,})(?:-[0-9a-f]{12})?(\.\w+)")
_RECEIPT = re.compile(r"shard-(\d{5,})\.json")


def shard_stem(number: int) -> str:
    """``shard-00012`` for 12."""
    return f"shard-{number:05d}"


def data_shard(name: str, suffixes: Collection[str]) -> int | None:
    """Number of the shard that a data file's name belongs to, such as ``shard-00012.h5``, or ``shard-00012-`` and the
    beginning of a checksum where the first name was taken; None for any other name.

    Args:
        name: of a file.
        suffixes: of the data files of this kind of folder, such as ``.h5``.
    """
    match = _DATA.fullmatch(name)
    return int(match[1]) if match and match[2] in suffixes else None


def receipt_shard(name: str) -> int | None:
    """Number of the shard that a receipt's name belongs to; None for any other name."""
    match = _RECEIPT.fullmatch(name)
    return int(match[1]) if match else None
