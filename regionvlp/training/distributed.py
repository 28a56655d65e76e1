"""The processes of one training run: alone, or as many as torchrun started.

Control messages (flags, log values, random states) travel over gloo on the CPU, apart from the gradients: they never
wait for a GPU, and their long time limit lets the main process evaluate while the others wait, without hiding a hang
of the gradients' own group.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

from regionvlp.devices import pick_device
from regionvlp.errors import SaidElsewhereError

CONTROL_TIMEOUT = timedelta(days=1)  # an evaluation may take hours
CPU = torch.device("cpu")
PEER_GONE = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "remote process exited")
logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process among those of the run."""

    rank: int = 0
    size: int = 1
    device: torch.device = CPU
    control: dist.ProcessGroup | None = None  # gloo; None where the process is alone

    @property
    def is_main(self) -> bool:
        """True for the one process that logs, evaluates and writes."""
        return self.rank == 0

    def barrier(self) -> None:
        """Waits for all processes."""
        if self.control is not None:
            dist.barrier(group=self.control)

    def any(self, *flags: bool) -> list[bool]:
        """For each flag whether it is True on at least one process."""
        return [share > 0 for share in self.mean([float(flag) for flag in flags])]

    def mean(self, values: Sequence[float]) -> list[float]:
        """Returns the values averaged over processes, which must all give equally many; NaN stays NaN."""
        if self.control is None:
            return list(values)
        summed = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(summed, group=self.control)
        averaged: list[float] = (summed / self.size).tolist()
        return averaged

    def gather(self, value: T) -> list[T]:
        """Returns every process's ``value``, by rank, on every process."""
        if self.control is None:
            return [value]
        values: list[T] = [value] * self.size
        dist.all_gather_object(values, value, group=self.control)
        return values

    def from_main(self, value: T) -> T:
        """Returns the main process's ``value`` on every process."""
        return self.gather(value)[0]

    def agree(self, failure: BaseException | None) -> None:
        """Ends every process where the main one failed, which alone says why.

        Args:
            failure: of the main process; that of another is not looked at.

        Raises:
            BaseException: ``failure`` on the main process. SaidElsewhereError: on the others.
        """
        code = self.from_main(getattr(failure, "exit_code", 1) if failure else 0)
        if code:
            raise failure if self.is_main and failure else SaidElsewhereError(code)


def open_world(device: str = "auto") -> World:
    """Reads torchrun's environment and joins the run; without torchrun the process is alone.

    Args:
        device: ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:N``. Under torchrun each process takes
            the GPU of its local rank.

    Raises:
        ConfigError: CUDA is asked for and absent, or has fewer devices than processes.
    """
    launched = "WORLD_SIZE" in os.environ and "RANK" in os.environ
    rank, size = (int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])) if launched else (0, 1)
    place = pick_device(device, int(os.environ.get("LOCAL_RANK", "0")) if size > 1 else None)
    if size == 1:
        return World(device=place)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
    control = dist.new_group(backend="gloo", timeout=CONTROL_TIMEOUT)
    assert isinstance(control, dist.ProcessGroup)
    return World(rank, size, place, control)


@contextmanager
def one_complaint(world: World) -> Iterator[None]:
    """A process that ends leaves the others in the middle of an exchange: what they have to say of it is no news.

    Raises:
        SaidElsewhereError: instead of the error of an exchange whose other end is gone.
    """
    try:
        yield
    except RuntimeError as error:
        if world.control is None or not any(words in str(error) for words in PEER_GONE):
            raise
        logger.warning("process %d stops, for another process of the run is gone", world.rank)
        raise SaidElsewhereError(2) from None


def close_world(world: World) -> None:
    """Leaves the run that :func:`open_world` joined; does nothing where the process was alone."""
    if world.control is not None:
        dist.destroy_process_group()
