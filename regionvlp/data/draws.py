"""Random numbers of samples, many at once: each a pure function of seed, epoch and sample.

What a sample draws does not depend on its batch, on how many workers or processes there are, or on what was read
before it, so a run may be cut and gone on with anywhere. Shape letter: B samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

_WEYL = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


class Draws:
    """The draws of B samples.

    Args:
        seeds: what all of them share, such as seed and epoch; non-negative integers.
        samples: [B] non-negative integers, what tells them apart.
    """

    def __init__(self, seeds: Sequence[int], samples: ArrayLike) -> None:
        start = np.random.SeedSequence([len(seeds), *seeds]).generate_state(1, np.uint64)
        self._state_B = _mixed(_mixed(np.asarray(samples).astype(np.uint64)) ^ start)

    def __len__(self) -> int:
        return len(self._state_B)

    def uniform(self, use: int, count: int = 1) -> NDArray[np.float64]:
        """[B, count] numbers in [0, 1), others for every ``use``: a small number that says what is drawn."""
        counter = (np.uint64(use) << np.uint64(32)) + np.arange(1, count + 1, dtype=np.uint64)
        bits = _mixed(self._state_B[:, None] + counter * _WEYL)
        return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def integers(self, use: int, low: NDArray[np.int64], high: NDArray[np.int64]) -> NDArray[np.int64]:
        """[B, n] whole numbers from ``low`` up to, not including, ``high`` [B, n] each."""
        spread = high - low
        drawn: NDArray[np.int64] = low + np.minimum(
            (self.uniform(use, low.shape[1]) * spread).astype(np.int64), spread - 1
        )
        return drawn


def _mixed(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of SplitMix64 (Steele, Lea, Flood 2014): every bit of the input changes half of the output's."""
    bits = (bits ^ (bits >> np.uint64(30))) * _FIRST
    bits = (bits ^ (bits >> np.uint64(27))) * _SECOND
    return bits ^ (bits >> np.uint64(31))
