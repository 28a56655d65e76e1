"""One data file open for reading: videos or single frames of it by row.

It holds a plain file descriptor and a :class:`Layout`, and reads at explicit offsets only, so that neither threads nor
forked processes can disturb each other.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regionvlp.errors import ShardError
from regionvlp.regions import VideoRegions
from regionvlp.shards.formats import Layout, unreadable
from regionvlp.shards.schema import ShardSpec


class DataFile:
    """Opens the file at ``path``; it is closed when the last one who uses it lets go.

    Raises:
        ShardError: the file cannot be opened.
    """

    def __init__(self, path: Path, spec: ShardSpec, layout: Layout) -> None:
        self._descriptor = -1
        self._path, self._layout = path, layout
        self._features, self._small = spec.features, spec.small_columns
        try:
            self._descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise ShardError(f"cannot read {path}: {error.strerror}", "was the folder moved or changed?") from error

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def read(self, video_id: str, row: int, first: int, stop: int) -> VideoRegions:
        """Reads the frame slots ``first`` to ``stop`` (not included) of the video in ``row``.

        Raises:
            ShardError: the file is damaged or cannot be read.
        """
        layout = self._layout
        values: dict[str, NDArray[Any]] = {}
        for column in self._small:
            values[column.name] = np.empty((stop - first, *column.shape), column.dtype)
            self._fill(values[column.name], layout.columns[column.name].item(row) + first * column.frame_bytes)
        features = np.empty((stop - first, *self._features.shape), self._features.dtype)
        for frame, slot in zip(features, range(first, stop), strict=True):
            self._fill(frame, layout.features.item(row, slot))
        if not all(0 <= count <= features.shape[1] for count in values["num_regions"].tolist()):
            raise unreadable(self._path, f"num_regions of {video_id!r} is out of range")
        return VideoRegions(video_id=video_id, features=features, **values)

    def _fill(self, values: NDArray[Any], offset: int) -> None:
        try:
            count = os.preadv(self._descriptor, [values.data], offset)
        except OSError as error:
            raise ShardError(f"cannot read {self._path}: {error.strerror}", "check the disk") from error
        if count != values.nbytes:
            raise unreadable(self._path, "it ends too early")
