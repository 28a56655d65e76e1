"""A job: all that a worker must be told, in words that any process on any machine can be handed."""

from __future__ import annotations

import re
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from regionvlp.config import validate
from regionvlp.errors import InputError
from regionvlp.extract.settings import ExtractConfig
from regionvlp.extract.sources import Source
from regionvlp.store.owner import this_process


@dataclass(frozen=True)
class Job:
    """What is to be extracted, to where, and which part of it is one worker's.

    Attributes:
        source: the videos.
        out: the shard folder, absolute.
        config: see :class:`ExtractConfig`.
        task: (k, N): only the shards of slot k of N are this job's; (0, 1) for all.
        start: (i, n): of n workers, the i-th begins after i n-ths of the shards, so that they keep apart.
        run: shared by all workers of one command.
        worker: how the worker is called in the status.
    """

    source: Source
    out: Path
    config: ExtractConfig
    task: tuple[int, int] = (0, 1)
    start: tuple[int, int] = (0, 1)
    run: str = field(default_factory=lambda: secrets.token_hex(6))
    worker: str = ""

    @property
    def label(self) -> str:
        """How the worker is called; by default its process."""
        return self.worker or str(this_process())

    def to_dict(self) -> dict[str, Any]:
        """The job as JSON values."""
        config = self.config.model_dump(mode="json")
        return {
            "source": asdict(self.source),
            "out": str(self.out),
            "config": config,
            "task": list(self.task),
            "start": list(self.start),
            "run": self.run,
            "worker": self.worker,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Job:
        """The job that :meth:`to_dict` described."""
        return cls(
            source=Source(**values["source"]),
            out=Path(values["out"]),
            config=validate(ExtractConfig, values["config"], "the job"),
            task=(values["task"][0], values["task"][1]),
            start=(values["start"][0], values["start"][1]),
            run=values["run"],
            worker=values["worker"],
        )

    def in_order(self, shards: list[int]) -> list[int]:
        """The shards that are this job's, in the order in which its worker looks for work."""
        slot, slots = self.task
        mine = [number for number in shards if number % slots == slot]
        first = self.start[0] * len(mine) // self.start[1]
        return mine[first:] + mine[:first]


def parse_task(text: str) -> tuple[int, int]:
    """Reads ``k/N``. Slots may be counted from 0 or from 1: N/N and 0/N are the same one.

    Raises:
        InputError: it is no such thing, or k is beyond N.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not int(match[2]) > 0:
        raise InputError(f"cannot read '--task {text}'", "write slot/slots, such as 3/16")
    if int(match[1]) > int(match[2]):
        raise InputError(f"--task {text}: there is no slot {match[1]} of {match[2]}", "count slots from 0 or from 1")
    return int(match[1]) % int(match[2]), int(match[2])
