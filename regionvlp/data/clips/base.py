"""What clips are to the rest: a batch of them by number, as tensors by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from numpy.typing import ArrayLike

from regionvlp.data.clips.frames import FrameChoice
from regionvlp.data.draws import Draws

if TYPE_CHECKING:
    from torch import Tensor


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

    def read_batch(self, numbers: ArrayLike, choice: FrameChoice, draws: Draws | None = None) -> dict[str, Tensor]:
        """Reads B clips at once; one may stand there more than once.

        Args:
            numbers: [B] integers.
            choice: which frames of each.
            draws: of the B samples; without, nothing is drawn.

        Returns:
            ``keys`` -> [B, ...].

        Raises:
            UnreadableItemsError: naming those that cannot be read.
        """
