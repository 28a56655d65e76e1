"""Which samples make which batch: a pure function of seed, epoch and batch number.

The order does not depend on how many processes or workers there are: an epoch is one permutation, batch number k its
k-th slice, and each process takes its share of that slice. So a run may go on with another number of processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from regionvlp.errors import InputError
from regionvlp.training.randomness import mix
from regionvlp.training.settings import split_batch

SPARES = 3  # times that a sample which cannot be read is replaced by another before the batch is given up


class Request(NamedTuple):
    """A batch to be read.

    Attributes:
        epoch: what the samples' draws depend on, besides their numbers and the seed.
        samples: their numbers.
        spares: for each further try, which sample takes the place of each: one from beyond the batch in the epoch's
            order, so that no batch holds a sample twice.
    """

    epoch: int
    samples: tuple[int, ...]
    spares: tuple[tuple[int, ...], ...]


class EpochSampler:
    """Requests for one process, as a torch ``DataLoader`` without a batch size takes them for its ``sampler``.

    In an epoch no sample comes twice, and none is left out but the last ``size % batch_size`` of the permutation,
    which would make a batch of another size; they are others in each epoch.

    Args:
        size: number of samples in the dataset.
        batch_size: samples per optimizer step, over all processes and parts.
        seed: of the order.
        rank, world_size: this process among all.
        parts: how many parts an optimizer step's batch is computed in; each part is one batch of this sampler.

    Raises:
        InputError: the dataset is smaller than a batch. ConfigError: the batch does not divide evenly.
    """

    def __init__(
        self, size: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1, parts: int = 1
    ) -> None:
        self.share = split_batch(batch_size, world_size, parts)
        if size < batch_size:
            raise InputError(
                f"the training data has {size} samples, fewer than one batch of {batch_size}",
                f"set train.batch_size to at most {size}",
            )
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self._rank, self._world_size, self._parts = rank, world_size, parts
        self._epoch, self._first, self._last = 0, 0, self.steps

    @property
    def steps(self) -> int:
        """Optimizer steps in a whole epoch."""
        return self.size // self.batch_size

    def seek(self, epoch: int, first: int = 0, last: int | None = None) -> None:
        """Chooses what the next iteration yields: the batches of steps ``first`` to ``last`` (excluded) of an epoch."""
        self._epoch, self._first, self._last = epoch, first, self.steps if last is None else last

    def __iter__(self) -> Iterator[Request]:
        order = epoch_order(self.size, self.seed, self._epoch).numpy()
        part = self.share * self._world_size
        for number in range(self._first * self._parts, self._last * self._parts):
            start = number * part + self._rank * self.share
            places = start + np.arange(self.share)
            # Of a set of one batch, all that is left is another sample of it.
            further = places + (self.batch_size % self.size or 1) * np.arange(1, SPARES + 1)[:, None]
            spares = order[further % self.size].tolist()
            yield Request(self._epoch, tuple(order[places].tolist()), tuple(map(tuple, spares)))

    def __len__(self) -> int:
        return (self._last - self._first) * self._parts


def epoch_order(size: int, seed: int, epoch: int) -> torch.Tensor:
    """Returns the permutation of ``size`` samples that an epoch goes through."""
    return torch.randperm(size, generator=torch.Generator().manual_seed(mix(seed, epoch)))
