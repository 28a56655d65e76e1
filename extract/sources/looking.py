"""Looks for the files of a few videos, before millions are planned, or become failures, of which none is there."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from regionvlp.errors import InputError, VideoError
from regionvlp.extract.sources import remote
from regionvlp.extract.sources.lookup import find_file, is_there
from regionvlp.extract.sources.source import Source
from regionvlp.store.plan import UNKNOWN, PlanTable

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


def listed(source: Source, planned: PlanTable | None) -> pa.Table:
    """What ``source.scan`` finds, with size and time of change of some files that a list names.

    A list says nothing of what is in its files, so another root or a file that was replaced would go unnoticed. A
    listing of millions is not looked up as a whole; those that are looked at are spread over it, and those that were
    looked at when the folder was planned are so again.

    Args:
        source: what to list.
        planned: the plan of the folder, where there is one.

    Raises:
        InputError: see :meth:`Source.scan`; or no listed video is there.
    """
    found = source.scan()
    refuse_absent(source, found)
    if not source.is_listed or remote.is_url(source.root):
        return found
    places = set(spread(len(found), _LOOKED_AT))
    if planned is not None:
        ids, known = (
            found.column("video_id"),
            planned.table.filter(pc.not_equal(planned.table.column("bytes"), UNKNOWN)),
        )
        watched = known.column("video_id").take(pa.array(spread(len(known), _LOOKED_AT), pa.int64()))
        places.update(pc.indices_nonzero(pc.is_in(ids, watched.combine_chunks())).to_pylist())
    sizes, times = (found.column(name).to_numpy().copy() for name in ("bytes", "mtime_ns"))
    for place in places:
        row = found.slice(place, 1).to_pylist()[0]
        with contextlib.suppress(VideoError, OSError):
            status = find_file(source.root, row["location"] or row["video_id"]).stat()
            sizes[place], times[place] = status.st_size, status.st_mtime_ns
    for name, values in (("bytes", sizes), ("mtime_ns", times)):
        at = found.schema.get_field_index(name)
        found = found.set_column(at, found.schema.field(at), pa.chunked_array([values]))
    return found


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
