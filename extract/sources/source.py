"""A source of videos: what there is (:meth:`Source.scan`) and how a planned row becomes a file (:meth:`Source.local`).

A source is a few words that any process can rebuild or unpickle; nothing is listed or opened before it is asked for.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from regionvlp.errors import VideoError
from regionvlp.shards.plan import PlanRow

if TYPE_CHECKING:
    import pyarrow as pa

# kind -> the module of this package whose ``scan`` lists it
KINDS = {"folder": "folder"}


@dataclass(frozen=True)
class Source:
    """Where videos come from.

    Attributes:
        kind: a key of :data:`KINDS`.
        videos: what the user named, absolute.
        root: the folder that ids and locations are relative to, absolute.
    """

    kind: str
    videos: str
    root: str

    def scan(self) -> pa.Table:
        """Lists the videos: the columns of a plan but ``shard``, sorted by id, every id once.

        Raises:
            InputError: there are none, the listing cannot be read, or an id is bad or stands for two videos.
        """
        module = importlib.import_module(f"regionvlp.extract.sources.{KINDS[self.kind]}")
        found: pa.Table = module.scan(self)
        return found

    def path(self, row: PlanRow) -> Path:
        """The file of a row.

        Raises:
            VideoError: it is not there now.
        """
        path = Path(self.root, row.location or row.video_id)
        if not os.path.lexists(path):
            raise VideoError(
                "planned, but no longer in the folder", stage="open", reason="missing-file", transient=True
            )
        return path

    @contextmanager
    def local(self, row: PlanRow) -> Iterator[Path]:
        """Gives a path under which the video can be opened until the block ends.

        Raises:
            VideoError: the video is not there, or could not be fetched.
        """
        yield self.path(row)
