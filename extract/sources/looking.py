"""Looks for the files of a few listed videos, before millions are planned of which none is there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from regionvlp.errors import InputError
from regionvlp.extract.sources import remote
from regionvlp.extract.sources.lookup import is_there
from regionvlp.extract.sources.source import Source

_LOOKED_AT = 200
_LOOKED_AT_REMOTE = 8  # each costs requests


@dataclass(frozen=True)
class Looked:
    """What a look at some videos found.

    Attributes:
        checked: videos looked for, spread over the listing; 0 where the listing itself saw the files.
        missing: how many of them are not there.
        example: one that is not there.
    """

    checked: int
    missing: int
    example: str | None


def look(source: Source, found: pa.Table) -> Looked:
    """Looks for the files of some of the videos that ``source.scan`` found."""
    if not source.is_listed:
        return Looked(0, 0, None)
    most = _LOOKED_AT_REMOTE if remote.is_url(source.root) else _LOOKED_AT
    rows = found.take(pa.array(spread(len(found), most))).to_pylist()
    missing = [place for row in rows if not is_there(source.root, place := row["location"] or row["video_id"])]
    return Looked(len(rows), len(missing), missing[0] if missing else None)


def refuse_absent(source: Source, found: pa.Table) -> None:
    """Refuses a list of which no video is there: the root is another, surely.

    Raises:
        InputError: not one of those looked for is there.
    """
    looked = look(source, found)
    if looked.checked and looked.missing == looked.checked:
        raise InputError(
            f"none of the {looked.checked} listed videos that were looked for is below {source.root}, such as "
            f"{looked.example}",
            "name the folder that they lie in: --root DIR",
        )


def spread(length: int, most: int) -> list[int]:
    """At most ``most`` positions, evenly over ``length``."""
    return [int(place) for place in np.unique(np.linspace(0, length - 1, min(most, length)).astype(np.int64))]
