"""From datasets to the stream of batches that a trainer takes its steps on.

In: datasets that give a batch of samples by number. Out: one batch after another, in alternation over the datasets,
from any position. Worker processes live as long as the loader; what they are to read, epoch included,
stands in each request, and what went wrong comes back as a value in place of the batch.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

import torch
from torch.utils.data import DataLoader, Dataset

from regionvlp.errors import ConfigError, InputError, RegionVLPError, UnreadableItemsError
from regionvlp.training.distributed import World
from regionvlp.training.interrupts import SAVE
from regionvlp.training.randomness import mix
from regionvlp.training.sampler import BatchSampler, EpochSampler, Request
from regionvlp.training.settings import TrainSettings

Batch = Mapping[str, Any]
GRACE = 60  # seconds that a loader process outlives a SIGTERM, so that the trainer can finish its step
FORM = 3  # of what a sample draws; runs of another form cannot go on in mid-epoch
logger = logging.getLogger(__name__)


class Batches(Protocol):
    """Samples, a batch of them at a time. What a sample is depends on its number and the epoch alone."""

    def __len__(self) -> int: ...

    def read(self, samples: Sequence[int], epoch: int) -> Batch:
        """The batch of some samples; :class:`UnreadableItemsError` says which of them cannot be read."""


class Loader:
    """The batches of one dataset.

    A sample that cannot be read is left out: the log names it, and one from beyond its batch in the epoch's order takes
    its place, the same one on any number of processes and workers.

    Args:
        dataset: the samples.
        train: batch size, parts, workers and seed.
        world: this process among those of the run.
        name: of the dataset, as it appears in the log.
        number: position among several datasets, so that equal ones are shuffled differently.
        batch_size: instead of ``train.batch_size``, for datasets with a batch size of their own.
        unreadable: share of the samples that may be left out; one always may.
        sampler: of the batches, where they are not slices of one dataset's order.

    Attributes:
        left_out: samples that this process met and could not read, and why.
    """

    def __init__(
        self,
        dataset: Batches,
        train: TrainSettings,
        world: World,
        name: str = "train",
        number: int = 0,
        batch_size: int | None = None,
        unreadable: float = 0.0,
        sampler: BatchSampler | None = None,
    ) -> None:
        self.name, self.parts = name, train.accumulate
        self.left_out: dict[int, str] = {}
        self._dataset, self._workers, self._pin = dataset, train.workers, world.device.type == "cuda"
        self._most = max(1, int(unreadable * len(dataset) / world.size))
        self._seed = mix(train.seed, number)
        self.sampler = sampler or EpochSampler(
            len(dataset), batch_size or train.batch_size, self._seed, world.rank, world.size, train.accumulate
        )
        self._loader: DataLoader[Any] | None = None

    def read(self, first: int) -> Iterator[list[Batch]]:
        """Yields the parts of each batch from number ``first`` on, without end.

        Raises:
            InputError: a batch could not be made, in the words of what failed; or more samples than may be left out
                could not be read.
        """
        self.sampler.seek(first)
        parts: list[Batch] = []
        for answer in self._open():
            self._note(answer["left_out"])
            if answer["failure"] is not None:
                raise InputError(*answer["failure"])
            parts.append(answer["batch"])
            if len(parts) == self.parts:
                yield parts
                parts = []

    def close(self) -> None:
        """Ends the worker processes; the next read starts new ones."""
        self._loader = None

    def _open(self) -> DataLoader[Any]:
        if self._loader is None:
            self._loader = DataLoader(
                _Answers(self._dataset),
                sampler=self.sampler,  # type: ignore[arg-type]
                batch_size=None,  # a request is a batch
                num_workers=self._workers,
                persistent_workers=self._workers > 0,
                pin_memory=self._pin,
                worker_init_fn=_outlive_signals,
                # Otherwise every iteration would draw from the generator that dropout draws from.
                generator=torch.Generator().manual_seed(self._seed),
            )
        return self._loader

    def _note(self, left_out: Mapping[int, str]) -> None:
        """Counts samples that could not be read.

        Raises:
            InputError: there are more than may be.
        """
        for sample, reason in left_out.items():
            if sample in self.left_out:
                continue
            self.left_out[sample] = reason
            logger.warning("%s: left out, and another taken instead: %s", self.name, reason)
        if len(self.left_out) > self._most:
            raise InputError(
                f"{len(self.left_out)} of the {self.sampler.size} samples of '{self.name}' cannot be read, more than "
                f"data.unreadable allows; the last: {list(self.left_out.values())[-1]}",
                "extract them again ('regionvlp shards verify' lists the damage), or raise data.unreadable",
            )


class RoundRobin:
    """One batch of every dataset in turn, for ever: the alternation of DemoVLP and Frozen (spec section 5.2).

    A round is one batch, and so one optimizer step, of every dataset in the order given. A dataset that was gone
    through begins again in another order, wherever the epoch stands.

    Args:
        loaders: at least one, of unlike names.
        samples_per_epoch: ends an epoch after so many samples of all datasets and processes together (the public code
            counts each process for itself); None for ``epoch``.
        epoch: ends when the ``longest`` dataset was gone through, or the ``shortest`` (as the public code has it).

    Attributes:
        steps_per_epoch: optimizer steps.

    Raises:
        ConfigError: ``samples_per_epoch`` allows for no round.
    """

    def __init__(
        self,
        loaders: Sequence[Loader],
        samples_per_epoch: int | None = None,
        epoch: Literal["longest", "shortest"] = "longest",
    ) -> None:
        assert loaders
        assert len({loader.name for loader in loaders}) == len(loaders)
        self.loaders = list(loaders)
        self.rounds = (max if epoch == "longest" else min)(loader.sampler.steps for loader in loaders)
        if samples_per_epoch is not None:
            per_round = sum(loader.sampler.batch_size for loader in loaders)
            if samples_per_epoch < per_round:
                message = f"train.samples_per_epoch {samples_per_epoch} is less than one batch of every dataset"
                raise ConfigError(message, f"use at least {per_round}")
            self.rounds = samples_per_epoch // per_round
        self.steps_per_epoch = self.rounds * len(self.loaders)
        self._step = 0
        self._open: list[Iterator[list[Batch]]] = []

    def next(self) -> tuple[Loader, list[Batch]]:
        """Returns the loader whose turn it is and the parts of its next batch; moves on by one step."""
        if not self._open:
            self._open = [self._start(number) for number in range(len(self.loaders))]
        turn = self._step % len(self.loaders)
        parts = next(self._open[turn])
        self._step += 1
        return self.loaders[turn], parts

    def close(self) -> None:
        """Ends the worker processes; the next step starts new ones."""
        self._open = []
        for loader in self.loaders:
            loader.close()

    @property
    def left_out(self) -> int:
        """How many samples this process could not read since it began."""
        return sum(len(loader.left_out) for loader in self.loaders)

    def state_dict(self) -> dict[str, Any]:
        """Returns the position, and what must not change for it to mean the same."""
        return {"form": FORM, "step": self._step, "data": self._data()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes to the position of :meth:`state_dict`, under any number of processes.

        Raises:
            InputError: the datasets are not those of the saved state, or were drawn from in another way.
        """
        if state.get("form") != FORM:
            raise InputError(
                "this run was begun by another version of regionvlp, which chose samples in another way",
                "start a new run from its weights with --set init=...",
            )
        # Names are those of files, which may have moved.
        if [values[1:] for values in state["data"]] != [values[1:] for values in self._data()]:
            raise InputError(
                f"the training data changed: {_describe(state['data'])} then, {_describe(self._data())} now",
                "restore it, or start a new run from the old weights",
            )
        self.close()
        self._step = state["step"]

    def _start(self, number: int) -> Iterator[list[Batch]]:
        done = (self._step + len(self.loaders) - 1 - number) // len(self.loaders)
        return self.loaders[number].read(done)

    def _data(self) -> list[list[Any]]:
        samplers = [(loader.name, loader.sampler) for loader in self.loaders]
        return [[name, sampler.size, sampler.batch_size, self.rounds] for name, sampler in samplers]


def _describe(data: list[list[Any]]) -> str:
    parts = [f"{size} of '{name}' in batches of {batch}" for name, size, batch, _ in data]
    return f"{' and '.join(parts)}, {data[0][3]} rounds an epoch"


class _Answers(Dataset[Any]):
    """A dataset asked for whole batches, which answers with what became of a request."""

    def __init__(self, dataset: Batches) -> None:
        self._dataset = dataset

    def __getitem__(self, request: Request) -> dict[str, Any]:
        left_out: dict[int, str] = {}
        samples = list(request.samples)
        for spares in (*request.spares, ()):
            try:
                batch = self._dataset.read(samples, request.epoch)
                return {"batch": batch, "left_out": left_out, "failure": None}
            except UnreadableItemsError as error:
                for at, reason in error.reasons.items():
                    left_out[samples[at]] = reason
                    if spares:
                        samples[at] = spares[at]
                failure = error.message, error.hint
            except RegionVLPError as error:
                failure = error.message, error.hint
                break
        return {"batch": None, "left_out": left_out, "failure": failure}


def _outlive_signals(_worker: int) -> None:
    """Lets a worker survive the signals that its whole process group gets until the trainer has ended its step.

    Ctrl-C, torchrun and batch systems signal the group. torch would have a worker die at once, and the trainer with
    it, in the middle of a step. After the grace time the alarm ends a worker that nobody has told to stop.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if SAVE:
        signal.signal(SAVE, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE))
