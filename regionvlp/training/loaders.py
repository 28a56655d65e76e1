"""From datasets to the stream of batches that a trainer takes its steps on.

In: datasets with ``__len__`` and ``__getitem__(index)``, and what makes a batch of a list of items. Out: one batch
after another, in alternation over the datasets, from any position of any epoch.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset

from regionvlp.errors import ConfigError, InputError, RegionVLPError
from regionvlp.training.distributed import World
from regionvlp.training.randomness import mix, seeded
from regionvlp.training.sampler import EpochSampler, Key
from regionvlp.training.settings import TrainSettings

Batch = Mapping[str, Any]
GRACE = 60  # seconds that a loader process outlives a SIGTERM, so that the trainer can finish its step


class Indexed(Protocol):
    """A dataset as the loaders need it. ``set_epoch(epoch)``, where it has that, is called before an epoch's items."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class Loader:
    """The batches of one dataset.

    An item may draw from Python's, NumPy's or torch's global generator: they are seeded from seed, epoch and index
    before it is read, so it comes out the same in any worker, and after a resume.

    Args:
        dataset: the samples.
        collate: makes a batch (a mapping of tensors and lists) of a list of items.
        train: batch size, parts, workers and seed.
        world: this process among those of the run.
        name: of the dataset, as it appears in the log.
        number: position among several datasets, so that equal ones are shuffled differently.
        batch_size: instead of ``train.batch_size``, for datasets with a batch size of their own.
    """

    def __init__(
        self,
        dataset: Indexed,
        collate: Callable[[list[Any]], Batch],
        train: TrainSettings,
        world: World,
        name: str = "train",
        number: int = 0,
        batch_size: int | None = None,
    ) -> None:
        self.name, self.parts = name, train.accumulate
        batch_size = batch_size or train.batch_size
        seed = mix(train.seed, number)
        self.sampler = EpochSampler(len(dataset), batch_size, seed, world.rank, world.size, train.accumulate)
        self._loader: DataLoader[Any] = DataLoader(
            _SeededItems(dataset, seed),
            batch_sampler=self.sampler,
            collate_fn=_Collate(collate),
            num_workers=train.workers,
            pin_memory=world.device.type == "cuda",
            worker_init_fn=_outlive_signals,
            # Otherwise every iteration would draw from the generator that dropout draws from.
            generator=torch.Generator().manual_seed(seed),
        )

    def read(self, epoch: int, first: int, last: int) -> Iterator[list[Batch]]:
        """Yields the parts of each batch from step ``first`` to step ``last`` (excluded) of an epoch.

        Raises:
            InputError: an item could not be read, or no batch be made of them; in the words of what failed.
        """
        self.sampler.seek(epoch, first, last)
        parts: list[Batch] = []
        for batch in self._loader:
            if isinstance(batch, _Failure):
                raise InputError(batch.message, batch.hint)
            parts.append(batch)
            if len(parts) == self.parts:
                yield parts
                parts = []


class RoundRobin:
    """One batch of every dataset in turn, for ever: the alternation of DemoVLP and Frozen (spec section 5.2).

    A round is one batch, and so one optimizer step, of every dataset in the order given. An epoch ends with the
    shortest dataset, or after ``samples_per_epoch`` samples of all datasets and processes together (the public code
    counts each process for itself).

    Args:
        loaders: at least one, of unlike names.
        samples_per_epoch: None for no limit.

    Raises:
        ConfigError: ``samples_per_epoch`` allows for no round.
    """

    def __init__(self, loaders: Sequence[Loader], samples_per_epoch: int | None = None) -> None:
        assert loaders
        assert len({loader.name for loader in loaders}) == len(loaders)
        self.loaders = list(loaders)
        self._rounds = min(loader.sampler.steps for loader in loaders)
        if samples_per_epoch is not None:
            per_round = sum(loader.sampler.batch_size for loader in loaders)
            if samples_per_epoch < per_round:
                message = f"train.samples_per_epoch {samples_per_epoch} is less than one batch of every dataset"
                raise ConfigError(message, f"use at least {per_round}")
            self._rounds = min(self._rounds, samples_per_epoch // per_round)
        self.steps_per_epoch = self._rounds * len(self.loaders)
        self._epoch = self._step = 0
        self._open: list[Iterator[list[Batch]]] = []

    def next(self) -> tuple[Loader, list[Batch]]:
        """Returns the loader whose turn it is and the parts of its next batch; moves on by one step."""
        if self._step == self.steps_per_epoch:
            self.close()
            self._epoch, self._step = self._epoch + 1, 0
        if not self._open:
            self._open = [self._start(number) for number in range(len(self.loaders))]
        turn = self._step % len(self.loaders)
        parts = next(self._open[turn])
        self._step += 1
        return self.loaders[turn], parts

    def close(self) -> None:
        """Ends the worker processes; the next step starts new ones."""
        self._open = []

    def state_dict(self) -> dict[str, Any]:
        """Returns the position, and what must not change for it to mean the same."""
        return {"epoch": self._epoch, "step": self._step, "data": self._data()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes to the position of :meth:`state_dict`, under any number of processes.

        Raises:
            InputError: the datasets are not those of the saved state.
        """
        if state["data"] != self._data():
            raise InputError(
                f"the training data changed: {_describe(state['data'])} then, {_describe(self._data())} now",
                "restore it, or start a new run from the old weights",
            )
        self.close()
        self._epoch, self._step = state["epoch"], state["step"]

    def _start(self, number: int) -> Iterator[list[Batch]]:
        done = (self._step + len(self.loaders) - 1 - number) // len(self.loaders)
        return self.loaders[number].read(self._epoch, done, self._rounds)

    def _data(self) -> list[list[Any]]:
        samplers = [(loader.name, loader.sampler) for loader in self.loaders]
        return [[name, sampler.size, sampler.batch_size, self._rounds] for name, sampler in samplers]


def _describe(data: list[list[Any]]) -> str:
    parts = [f"{size} of '{name}' in batches of {batch}" for name, size, batch, _ in data]
    return f"{' and '.join(parts)}, {data[0][3]} rounds an epoch"


@dataclass(frozen=True)
class _Failure:
    """A user's mistake met in a worker: torch would wrap the exception in a traceback, a value comes through whole."""

    message: str
    hint: str


class _SeededItems(Dataset[Any]):
    """A dataset read by key, so that the epoch reaches it in whatever process it is read."""

    def __init__(self, dataset: Indexed, seed: int) -> None:
        self._dataset, self._seed = dataset, seed
        self._epoch: int | None = None

    def __getitem__(self, key: Key) -> Any:
        epoch, index = key
        if epoch != self._epoch:
            self._epoch = epoch
            set_epoch = getattr(self._dataset, "set_epoch", None)
            if set_epoch is not None:
                set_epoch(epoch)
        with seeded(self._seed, epoch, index):
            try:
                return self._dataset[index]
            except RegionVLPError as error:
                return _Failure(error.message, error.hint)


class _Collate:
    """Makes a batch of items, or passes on the first failure among them."""

    def __init__(self, collate: Callable[[list[Any]], Batch]) -> None:
        self._collate = collate

    def __call__(self, items: list[Any]) -> Batch | _Failure:
        failure = next((item for item in items if isinstance(item, _Failure)), None)
        if failure is not None:
            return failure
        try:
            return self._collate(items)
        except RegionVLPError as error:
            return _Failure(error.message, error.hint)


def _outlive_signals(_worker: int) -> None:
    """Lets a worker survive the signals that its whole process group gets until the trainer has ended its step.

    Ctrl-C, torchrun and batch systems signal the group. torch would have a worker die at once, and the trainer with
    it, in the middle of a step. After the grace time the alarm ends a worker that nobody has told to stop.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE))
