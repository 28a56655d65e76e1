"""What a user can set about training: two configuration sections, ``optim`` and ``train``. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, StringConstraints, field_validator

from regionvlp.config import HARMLESS, RESUMABLE, Config
from regionvlp.errors import ConfigError

Interval = Annotated[str, StringConstraints(pattern=r"^(never|[1-9][0-9]* (epochs?|steps?))$")]
"""How often something happens: ``never``, ``1 epoch``, ``500 steps``."""

Beta = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(gt=0, le=1)]


class OptimSettings(Config):
    """AdamW and its learning rate.

    The defaults are DemoVLP's pre-training: rate and schedule are its paper's (appendix A.3), the rest, of which the
    paper says nothing, its public code's.

    Attributes:
        lr: the peak learning rate.
        betas: of AdamW.
        eps: of AdamW; :func:`regionvlp.training.optim.build_optimizer` says where it is added.
        weight_decay: of weight matrices.
        decay_everything: decay biases, norms and embeddings as well.
        clip_norm: largest 2-norm of all gradients together; null does not clip.
        schedule: ``constant``; ``cosine`` to zero over the run; ``paper``, decayed after each milestone; or ``public``,
            what the public command does: ``lr`` in the first epoch and ``lr_after_first_epoch`` from the second on,
            decayed likewise.
        warmup_steps: steps of a linear rise from zero, on top of every schedule.
        milestones: with ``paper`` and ``public``, epochs after each of which the rate is multiplied by ``decay``.
        decay: see ``milestones``.
        lr_after_first_epoch: with ``public`` only.
    """

    lr: PositiveFloat = 1e-5
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    eps: PositiveFloat = 1e-6
    weight_decay: float = Field(default=0.0, ge=0)
    decay_everything: bool = False
    clip_norm: PositiveFloat | None = None
    schedule: Literal["constant", "cosine", "paper", "public"] = "paper"
    warmup_steps: int = Field(default=0, ge=0)
    milestones: tuple[PositiveInt, ...] = (30, 40)
    decay: Share = 0.1
    lr_after_first_epoch: PositiveFloat = 2e-4

    @field_validator("milestones")
    @classmethod
    def _ascend(cls, milestones: tuple[int, ...]) -> tuple[int, ...]:
        if list(milestones) != sorted(set(milestones)):
            raise ValueError("milestones must ascend, each named once")
        return milestones


class TrainSettings(Config):
    """How long, how much at once, and what is written when.

    Attributes:
        epochs: how often every video, or pair, is visited.
        turns: with several sources, a step of each in turn (``alternate``), or ``mix``: every batch holds samples of
            all, by their weights.
        epoch: ends when the ``longest`` source was gone through, while shorter ones begin again, or the ``shortest``,
            as the public code has it.
        device: ``auto`` takes CUDA where there is any.
        seed: of weights, order, captions and frames; the same seed gives the same run.
        eval_every: how often the held-out part is measured: ``never``, ``1 epoch``, ``500 steps``.
        save_every: how often a checkpoint is written; one is in any case at the end, and on SIGTERM and SIGUSR1.
        save_minutes: after so many minutes without a checkpoint one is written, wherever the run stands; null: never.
        patience: evaluations without a better best one after which the run ends early; null goes on to the end.
        log_every: steps between two lines of the log.
        best_metric: what the best checkpoint is chosen by, of what the evaluation returns; null takes the first.
        best_is: whether the ``highest`` or the ``lowest`` is best.
    """

    epochs: Annotated[PositiveInt, RESUMABLE] = 50
    max_steps: Annotated[PositiveInt | None, RESUMABLE] = None  # optimizer steps; ends the run before the epochs do
    # Pairs per optimizer step over all processes and accumulated parts, so that a recipe means the same anywhere.
    batch_size: PositiveInt = 128
    # Parts that a batch is computed in. Contrastive losses then only see the negatives of one part at a time, so that
    # their number is part of what is learnt unless loss.negatives names groups that fit into a part.
    accumulate: PositiveInt = 1
    turns: Literal["alternate", "mix"] = "alternate"
    epoch: Literal["longest", "shortest"] = "longest"
    # Ends an epoch after this many pairs over all sources and processes instead.
    samples_per_epoch: PositiveInt | None = None
    precision: Literal["auto", "float32", "bf16"] = "auto"  # auto: bf16 on a CUDA device that has it
    device: Annotated[str, HARMLESS] = Field(default="auto", pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$")
    compile: bool = False  # the encoders, by torch.compile
    seed: int = Field(default=0, ge=0, lt=2**63)  # what torch takes
    workers: Annotated[int, HARMLESS] = Field(default=2, ge=0)  # loader processes for each dataset and training process
    eval_every: Annotated[Interval, RESUMABLE] = "1 epoch"
    save_every: Annotated[Interval, HARMLESS] = "1 epoch"
    save_minutes: Annotated[PositiveFloat | None, HARMLESS] = 30.0
    keep: Annotated[PositiveInt, HARMLESS] = 2  # newest checkpoints that stay; the best one always does
    log_every: Annotated[PositiveInt, HARMLESS] = 10  # steps
    patience: Annotated[PositiveInt | None, RESUMABLE] = None
    best_metric: Annotated[str | None, RESUMABLE] = None  # of the evaluation; None: the first that it returns
    best_is: Annotated[Literal["highest", "lowest"] | None, RESUMABLE] = None  # None: as the metric has it


def split_batch(batch_size: int, world_size: int, accumulate: int) -> int:
    """Returns how many pairs one process holds at a time, of a global batch of ``batch_size``.

    Raises:
        ConfigError: the batch does not divide evenly.
    """
    shares = world_size * accumulate
    if batch_size % shares:
        raise ConfigError(
            f"train.batch_size {batch_size} does not divide among {world_size} processes x {accumulate} parts",
            f"use a multiple of {shares}",
        )
    return batch_size // shares


def planned_steps(train: TrainSettings, steps_per_epoch: int) -> int:
    """Returns how many optimizer steps the settings ask for."""
    steps = train.epochs * steps_per_epoch
    return steps if train.max_steps is None else min(steps, train.max_steps)


def check_warmup(optim: OptimSettings, planned: int) -> None:
    """Holds that a run or stage of so many steps reaches its learning rate.

    Raises:
        ConfigError: it ends before.
    """
    if optim.warmup_steps >= planned:
        raise ConfigError(
            f"optim.warmup_steps {optim.warmup_steps}: the run or stage ends after {planned} steps, before its "
            "learning rate is reached",
            f"set optim.warmup_steps to less than {planned}",
        )


def is_due(interval: str, step: int, steps_per_epoch: int) -> bool:
    """True where ``interval`` ends with optimizer step number ``step`` (the first is 1)."""
    if interval == "never":
        return False
    number, unit = interval.split()
    return step % (int(number) * (steps_per_epoch if unit.startswith("epoch") else 1)) == 0
