"""What clips are to the rest: a batch of them by number, as tensors by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, overload

import pyarrow as pa
from numpy.typing import ArrayLike

from regionvlp.data.clips.frame_choice import FrameChoice
from regionvlp.data.draws import Draws

if TYPE_CHECKING:
    from torch import Tensor


class VideoIds(Sequence[str]):
    """Ids in a column of strings, made into Python's one by one when they are asked for."""

    def __init__(self, column: pa.ChunkedArray | pa.Array) -> None:
        self.column = column

    def __len__(self) -> int:
        return len(self.column)

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), 10_000):
            yield from self.column.slice(start, 10_000).to_pylist()

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            found: list[str] = self.column.take(pa.array(range(len(self))[index], pa.int64())).to_pylist()
            return found
        return str(self.column[index].as_py())


class Clips(Protocol):
    """The videos of a source, numbered from 0.

    Attributes:
        ids: their ids, by number.
        keys: the batch keys that :meth:`read_batch` gives.
    """

    @property
    def ids(self) -> Sequence[str]: ...

    @property
    def keys(self) -> tuple[str, ...]: ...

    def most_frames(self) -> int | None:
        """Frames of the longest clip that there can be; None where nobody knows before the videos are decoded."""

    def read_batch(self, numbers: ArrayLike, choice: FrameChoice, draws: Draws | None = None) -> dict[str, Tensor]:
        """Reads B clips at once; one may stand there more than once.

        Args:
            numbers: [B] integers.
            choice: which frames of each.
            draws: of the B samples; without, nothing is drawn.

        Returns:
            ``keys`` -> [B, ...].

        Raises:
            UnreadableItemsError: naming those that cannot be read. ShardError: a whole file of them is gone.
        """
