"""Which samples make which batch: a pure function of seed and batch number.

The order does not depend on how many processes or workers there are: a pass over a dataset is one permutation, its
batches the slices of it, and each process takes its share of a slice. So a run may go on with another number of
processes. Batches are numbered through from the beginning of a run; when a pass is over, the next begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from regionvlp.errors import ConfigError, InputError
from regionvlp.training.randomness import mix
from regionvlp.training.settings import split_batch

SPARES = 3  # times that a sample which cannot be read is replaced by another before the batch is given up
Ints = NDArray[np.int64]


class Request(NamedTuple):
    """A batch, or a process's part of one, to be read.

    Attributes:
        epoch: what the samples' draws depend on, besides their numbers and the seed: the number of the pass over the
            dataset. Of a mix of datasets it is the number of the batch, which tells the pass of each.
        samples: their numbers.
        spares: for each further try, which sample takes the place of each: one from beyond the batch in the pass's
            order, so that no batch holds a sample twice.
    """

    epoch: int
    samples: tuple[int, ...]
    spares: tuple[tuple[int, ...], ...]


class BatchSampler:
    """Requests for one process, without end, as a torch ``DataLoader`` without a batch size takes them.

    Args:
        size: samples in the dataset.
        batch_size: samples per optimizer step, over all processes and parts.
        rank, world_size: this process among all.
        parts: how many parts an optimizer step's batch is computed in; each part is one request.

    Attributes:
        steps: optimizer steps in an epoch.
        shares: how many samples of a batch are of each dataset.

    Raises:
        ConfigError: the batch does not divide evenly.
    """

    steps: int
    shares: Sequence[int]

    def __init__(self, size: int, batch_size: int, rank: int = 0, world_size: int = 1, parts: int = 1) -> None:
        self.share = split_batch(batch_size, world_size, parts)
        self.size, self.batch_size = size, batch_size
        self._rank, self._world_size, self._parts, self._first = rank, world_size, parts, 0

    def seek(self, first: int) -> None:
        """Chooses the batch that the next iteration begins with."""
        self._first = first

    def batch(self, number: int) -> tuple[int, Ints, Ints]:
        """A whole batch by number: what :class:`Request` holds, as arrays [B] and [SPARES, B]."""
        raise AssertionError("every sampler makes its batches")

    def __iter__(self) -> Iterator[Request]:
        for number in count(self._first):
            epoch, samples_B, spares_KB = self.batch(number)
            for part in range(self._parts):
                start = (part * self._world_size + self._rank) * self.share
                mine = slice(start, start + self.share)
                yield Request(epoch, tuple(samples_B[mine].tolist()), tuple(map(tuple, spares_KB[:, mine].tolist())))


class EpochSampler(BatchSampler):
    """Batches of one dataset, pass after pass.

    In a pass no sample comes twice, and none is left out but the last ``size % batch_size`` of the permutation, which
    would make a batch of another size; they are others in each pass.

    Args:
        size, batch_size, rank, world_size, parts: see :class:`BatchSampler`.
        seed: of the order.

    Raises:
        InputError: the dataset is smaller than a batch. ConfigError: the batch does not divide evenly.
    """

    def __init__(
        self, size: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1, parts: int = 1
    ) -> None:
        super().__init__(size, batch_size, rank, world_size, parts)
        self.seed, self.steps, self.shares = seed, size // batch_size, (batch_size,)
        self._order: tuple[int, Ints] | None = None  # of the last pass asked for
        if size < batch_size:
            raise InputError(
                f"the training data has {size} samples, fewer than one batch of {batch_size}",
                f"set the batch size to at most {size} (train.batch_size, or batch_size of the source)",
            )

    def batch(self, number: int) -> tuple[int, Ints, Ints]:
        epoch, within = divmod(number, self.steps)
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, epoch_order(self.size, self.seed, epoch).numpy()
        order = self._order[1]
        places = within * self.batch_size + np.arange(self.batch_size)
        # Of a set of one batch, all that is left is another sample of it.
        further = places + (self.batch_size % self.size or 1) * np.arange(1, SPARES + 1)[:, None]
        return epoch, order[places], order[further % self.size]


class MixSampler(BatchSampler):
    """Batches that hold samples of several datasets, always as many of each.

    Samples are numbered through: those of the second dataset follow those of the first.

    Args:
        samplers: of the datasets, each with its share of a batch for its batch size.
        epoch: ends when the ``longest`` dataset was gone through, or the ``shortest``.
        rank, world_size, parts: see :class:`BatchSampler`.

    Raises:
        ConfigError: the batch does not divide evenly.
    """

    def __init__(
        self,
        samplers: Sequence[EpochSampler],
        epoch: Literal["longest", "shortest"],
        rank: int = 0,
        world_size: int = 1,
        parts: int = 1,
    ) -> None:
        sizes, counts = ([getattr(one, name) for one in samplers] for name in ("size", "batch_size"))
        super().__init__(sum(sizes), sum(counts), rank, world_size, parts)
        self.steps = (max if epoch == "longest" else min)(one.steps for one in samplers)
        self._samplers, self.shares = samplers, counts
        self._starts = np.cumsum([0, *sizes[:-1]])
        # Spread over the batch, so that every process and part gets of each what the batch has of it.
        places = np.concatenate([(np.arange(n) + 0.5) / n for n in counts])
        self._spread = np.argsort(places, kind="stable")

    def batch(self, number: int) -> tuple[int, Ints, Ints]:
        found = [one.batch(number) for one in self._samplers]
        samples, spares = (
            np.concatenate([batch[k] + start for batch, start in zip(found, self._starts, strict=True)], axis=-1)
            for k in (1, 2)
        )
        return number, samples[self._spread], spares[:, self._spread]


def shares_of(batch_size: int, weights: Sequence[float]) -> list[int]:
    """How many samples of a mixed batch each dataset gives: by weight, rounded by the largest remainders.

    Raises:
        ConfigError: one would give none.
    """
    exact = batch_size * np.asarray(weights, np.float64) / np.sum(weights)
    counts = np.floor(exact).astype(int)
    for place in np.argsort(counts - exact, kind="stable")[: batch_size - counts.sum()]:
        counts[place] += 1
    if (counts == 0).any():
        place = int(np.argmin(counts))
        raise ConfigError(
            f"data.sources.{place} gives no sample to a mixed batch of {batch_size}: its weight is too small",
            "raise its weight, or train.batch_size",
        )
    return [int(n) for n in counts]


def epoch_order(size: int, seed: int, epoch: int) -> torch.Tensor:
    """Returns the permutation of ``size`` samples that a pass goes through."""
    return torch.randperm(size, generator=torch.Generator().manual_seed(mix(seed, epoch)))
