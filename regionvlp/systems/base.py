"""What a system is: all that the trainer and the evaluator know of DemoVLP, Frozen and their like.

A system owns model and losses, says which keys of a batch it reads, and turns a batch into named scalars. The trainer
adds up those whose name ends in ``_loss``, logs all, and knows neither models nor losses. What a system must remember
from step to step (momentum towers, queues, snapshots) are buffers: checkpoints, resuming and DistributedDataParallel
then carry them without knowing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

if TYPE_CHECKING:
    from regionvlp.models.encoded import Encoded
    from regionvlp.models.settings import Inflation
    from regionvlp.shards import Manifest


class Stage(NamedTuple):
    """A named part of a system: what its parameters and FLOPs are counted by.

    Attributes:
        name: for people.
        module: the part.
    """

    name: str
    module: nn.Module


class Trainable(nn.Module, ABC):
    """All that the trainer knows.

    Attributes:
        inputs: the batch keys that :meth:`forward` reads.
    """

    inputs: tuple[str, ...]

    @abstractmethod
    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Scalars of a training batch by name; those ending in ``_loss`` are summed and differentiated."""

    def after_step(self, step: int) -> None:
        """Called when optimizer step number ``step`` (the first is 1) is done."""

    def after_epoch(self, epoch: int) -> None:
        """Called when epoch number ``epoch`` (the first is 1) is done, after :meth:`after_step`."""


class System(Trainable):
    """Model and losses of one system of the literature."""

    @abstractmethod
    def encode_video(self, batch: Mapping[str, Tensor]) -> Encoded:
        """The videos of a batch in the joint space."""

    @abstractmethod
    def encode_text(self, batch: Mapping[str, Tensor]) -> Encoded:
        """The captions of a batch in the joint space."""

    @abstractmethod
    def similarities(self, video: Encoded, text: Encoded) -> dict[str, Tensor]:
        """What retrieval ranks by the sum of, by name: [texts, videos] float each."""

    def similarity(self, video: Encoded, text: Encoded) -> Tensor:
        """[texts, videos] float: what retrieval ranks by."""
        parts = list(self.similarities(video, text).values())
        return sum(parts[1:], start=parts[0])

    def adapt(self, state: dict[str, Tensor], inflation: Inflation) -> dict[str, Tensor]:
        """A checkpoint's weights, made for other numbers of frames or regions, fitted to this system's.

        Args:
            state: by the names of ``state_dict``; values may be replaced in place.
            inflation: how a temporal embedding becomes one of more frames.
        """
        return state

    @abstractmethod
    def check(self, manifest: Manifest, folder: str | Path) -> None:
        """Refuses shards that the model cannot read.

        Raises:
            ConfigError: naming both sizes.
        """

    @abstractmethod
    def stages(self) -> Iterable[Stage]:
        """The named parts, without overlap; together they hold every parameter."""
