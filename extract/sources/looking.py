"""Looks for the files of a few videos, before millions are planned, or become failures, of which none is there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from regionvlp.errors import InputError
from regionvlp.extract.sources import remote
from regionvlp.extract.sources.lookup import is_there
from regionvlp.extract.sources.source import Source
from regionvlp.store.plan import PlanTable

_LOOKED_AT = 200
_LOOKED_AT_REMOTE = 8  # each costs requests
_SOUGHT = 5000  # until one is there; of an old plan, most may be gone for good


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


def refuse_gone(source: Source, plan: PlanTable) -> None:
    """Refuses to go on where no planned video is there: their folder is not mounted on this machine, surely.

    For who did not list them; every video would become a failure.

    Raises:
        InputError: not one of those looked for is there.
    """
    rows = PlanTable(plan.table.take(pa.array(spread(len(plan), _SOUGHT), pa.int64())))
    if len(rows) and not any(map(source.is_there, rows)):
        raise InputError(
            f"none of the {len(rows)} planned videos that were looked for is below {source.root}",
            "is that folder mounted on this machine, under this path?",
        )


def spread(length: int, most: int) -> list[int]:
    """At most ``most`` positions, evenly over ``length``."""
    return [int(place) for place in np.unique(np.linspace(0, length - 1, min(most, length)).astype(np.int64))]
