"""The two file formats behind one face: what a format module offers, and how it is found.

A format writes videos one by one and, when a file is done, tells where in the file each value lies. Values are stored
without filters in both formats, so that reading is a seek and a read at a known place and needs neither HDF5 nor Arrow:
no library handle stays open, none can cross a fork, and one frame costs its own bytes only.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from regionvlp.errors import ShardError
from regionvlp.shards.manifest import Manifest


@dataclass(frozen=True)
class Layout:
    """Where the N videos of one data file lie; about 8 bytes per frame slot and small column.

    Attributes:
        num_frames: [N] int32, F of each video.
        columns: name of a small column -> [N] int64, byte offset of the first frame's values; frames follow densely.
        features: [N, S] int64, byte offset of each frame's features; -1 where the slot was never written.
    """

    num_frames: NDArray[np.int32]
    columns: dict[str, NDArray[np.int64]]
    features: NDArray[np.int64]

    def check(self, path: Path) -> Layout:
        """Returns itself where every frame of every video has a place.

        Raises:
            ShardError: a number of frames out of range, or a frame without features.
        """
        slots = self.features.shape[1]
        used = np.arange(slots) < self.num_frames[:, None]
        if ((self.num_frames < 1) | (self.num_frames > slots)).any() or (self.features[used] < 0).any():
            raise unreadable(path, "frames are missing")
        return self


class DataWriter(Protocol):
    """Writes one data file, video by video, to the path it was made with."""

    def add(self, video_id: str, columns: Mapping[str, NDArray[Any]]) -> None:
        """Appends one video: every column of the spec, [F, ...], C-contiguous, in the stored dtype."""

    def close(self) -> None:
        """Writes what is left and closes the file. The file is whole only where this did not raise."""

    def abort(self) -> None:
        """Closes the file as it is, without an error, whatever happened before."""


class Format(Protocol):
    """What the modules :mod:`.hdf5` and :mod:`.parquet` offer. The readers raise ShardError for a damaged file, and
    for one that was written under a manifest other than the given one."""

    def open_writer(self, path: Path, manifest: Manifest) -> DataWriter:
        """Starts a new file."""

    def read_ids(self, path: Path, manifest: Manifest) -> list[str]:
        """The video ids of a file in the order of its rows, and nothing else."""

    def read_manifest(self, path: Path) -> dict[str, Any]:
        """The manifest that a whole file was written under, as JSON values."""

    def read_layout(self, path: Path, manifest: Manifest) -> Layout:
        """Where everything lies."""


def format_of(manifest: Manifest) -> Format:
    """The module that reads and writes the format of a manifest, imported on first use."""
    return format_named(manifest.format)


def format_named(name: str) -> Format:
    """The module of a format by its name."""
    return cast(Format, importlib.import_module(f"regionvlp.shards.{name}"))


def check_embedded(path: Path, manifest: Manifest, embedded: Mapping[str, object]) -> None:
    """Compares the manifest inside a data file with that of the folder.

    Raises:
        ShardError: the file was written under other settings.
    """
    difference = manifest.difference(embedded)
    if difference:
        raise ShardError(
            f"{path} does not belong into this folder: {difference} in the file", "move it out of the folder"
        )


def unreadable(path: Path, why: object) -> ShardError:
    """The error for a data file that cannot be used."""
    return ShardError(f"{path} is damaged: {why}", f"run: regionvlp shards verify '{path.parent}'")
