"""Which clips of an index count for a search: by folder, by date, by length."""

from __future__ import annotations

import fnmatch
import os
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Filters:
    """What a file must be like; None for what does not matter.

    Attributes:
        folder: it lies below it, or its id fits it as a pattern (``*.jpg``).
        after, before: it changed after or before that moment, seconds since 1970.
        shortest, longest: its length in seconds, as far as the index tells: the end of its last clip.
    """

    folder: str | None = None
    after: float | None = None
    before: float | None = None
    shortest: float | None = None
    longest: float | None = None

    def allowed(self, clips: pa.Table, live: Mask) -> Mask:
        """[N] bool: those of ``live`` whose files fit.

        Args:
            clips: N rows, see ``segment``. live: [N], those that count at all.
        """
        allowed = live.copy()
        if self.folder is not None:
            allowed &= _below(clips.column("video_id"), self.folder)
        if self.after is not None or self.before is not None:
            allowed &= self._of_date(clips.column("path"))
        if self.shortest is not None or self.longest is not None:
            allowed &= self._of_length(clips, live)
        return allowed

    def _of_date(self, paths: pa.ChunkedArray) -> Mask:
        after = -np.inf if self.after is None else self.after
        before = np.inf if self.before is None else self.before
        fitting = [path for path in pc.unique(paths).to_pylist() if after < _changed(path) < before]
        found: Mask = pc.is_in(paths, value_set=pa.array(fitting, pa.string())).to_numpy(zero_copy_only=False)
        return found

    def _of_length(self, clips: pa.Table, live: Mask) -> Mask:
        names = clips.column("video_id").combine_chunks().dictionary_encode()
        numbers = names.indices.to_numpy()
        lengths = np.zeros(len(names.dictionary))
        np.maximum.at(lengths, numbers[live], clips.column("end").to_numpy()[live])
        longest = np.inf if self.longest is None else self.longest
        fits: Mask = ((lengths >= (self.shortest or 0.0)) & (lengths <= longest))[numbers]
        return fits


def _below(ids: pa.ChunkedArray, folder: str) -> Mask:
    below = folder.replace(os.sep, "/").strip("/")
    if any(sign in below for sign in "*?["):
        fitting = [name for name in pc.unique(ids).to_pylist() if fnmatch.fnmatchcase(name, below)]
        found: Mask = pc.is_in(ids, value_set=pa.array(fitting, pa.string())).to_numpy(zero_copy_only=False)
        return found
    either: Mask = pc.or_(pc.starts_with(ids, below + "/"), pc.equal(ids, below)).to_numpy(zero_copy_only=False)
    return either


def _changed(path: str) -> float:
    """When a file changed, seconds since 1970; of one that is gone, NaN, which is neither before nor after."""
    try:
        return os.stat(path).st_mtime
    except OSError:
        return float("nan")
