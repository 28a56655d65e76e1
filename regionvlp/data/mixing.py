"""Batches that hold samples of several sources.

In: the sources, and how many samples of each a batch has. Out: batches as :meth:`Pairs.read` gives them, the numbers
of samples and of clips running on from one source to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from regionvlp.data.pairs import Pairs
from regionvlp.errors import UnreadableItemsError


class MixedPairs:
    """See the module's header.

    Args:
        sources: of one number of frames, and of one width of their clips' tensors.
        shares: samples of each in a batch; by them the pass over a source follows from the number of a batch.
    """

    def __init__(self, sources: Sequence[Pairs], shares: Sequence[int]) -> None:
        self.sources, self.shares = list(sources), list(shares)
        self._starts = np.cumsum([0, *map(len, sources)])
        self._clips = np.cumsum([0, *(len(source.clips.ids) for source in sources)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, samples: ArrayLike, number: int) -> dict[str, Any]:
        """The batch of B samples, in their order; see :meth:`Pairs.read`.

        Args:
            samples: [B], numbered through the sources.
            number: of the batch, from the beginning of the run.

        Raises:
            UnreadableItemsError: some cannot be read. IndexError: there are not so many samples.
        """
        numbers_B = np.asarray(samples, np.int64)
        if ((numbers_B < 0) | (numbers_B >= len(self))).any():
            raise IndexError(f"samples {numbers_B.min()} to {numbers_B.max()} of {len(self)}")
        source_B = np.searchsorted(self._starts, numbers_B, side="right") - 1
        read: list[dict[str, Any]] = []
        places: list[int] = []
        reasons: dict[int, str] = {}
        for k in np.unique(source_B):
            source, at = self.sources[k], np.flatnonzero(source_B == k)
            epoch = number // (len(source) // self.shares[k])
            try:
                batch = source.read_clips(numbers_B[at] - self._starts[k], epoch)
            except UnreadableItemsError as error:
                reasons |= {int(at[place]): reason for place, reason in error.reasons.items()}
                continue
            read.append({**batch, "clip_number": batch["clip_number"] + int(self._clips[k])})
            places += at.tolist()
        if reasons:
            raise UnreadableItemsError(reasons)
        order = np.argsort(places)
        joined = {key: _joined([batch[key] for batch in read], order) for key in read[0]}
        return self.sources[0].with_captions(joined)


def _joined(values: Sequence[Any], order: np.ndarray[Any, np.dtype[np.int64]]) -> Any:
    """The rows of several batches in one, in another order."""
    if isinstance(values[0], torch.Tensor):
        return torch.cat(list(values))[torch.from_numpy(order)]
    every = [value for batch in values for value in batch]
    return [every[place] for place in order]
