"""The configuration of a training run, from data to evaluation: what ``RUN/config.yaml`` holds."""

from __future__ import annotations

from pydantic import Field

from regionvlp.config import Config
from regionvlp.data.settings import AbsolutePath, DataSettings, SourceSettings
from regionvlp.models.inflation import Inflation
from regionvlp.systems.demovlp import LossSettings, ModelSettings
from regionvlp.training.settings import OptimSettings, TrainSettings


class TokenizerSettings(Config):
    """Where the tokenizer comes from; a checkpoint always carries its own copy.

    Attributes:
        name: a folder or a Hugging Face name such as ``distilbert-base-uncased``; null trains a WordPiece on the
            training captions.
        vocab_size: of a trained one, at most.
    """

    name: str | None = None
    vocab_size: int = Field(default=8000, ge=64)


class EvalSettings(Config):
    """What is evaluated during and after training.

    Attributes:
        source: the held-out captions and their shards; null for no evaluation.
        frames: F at evaluation; null takes ``data.frames``.
        batch_size: videos, and texts, that are encoded at a time.
    """

    source: SourceSettings | None = None
    frames: int | None = Field(default=None, ge=1, le=256)
    batch_size: int = Field(default=64, ge=1)


class RunConfig(Config):
    """Everything ``regionvlp pretrain`` and ``regionvlp finetune`` can be told.

    Attributes:
        task: which system, see :data:`regionvlp.systems.demovlp.TASKS`.
        init: a checkpoint folder whose weights (and tokenizer) the run starts from. Resuming a run is another thing.
        inflation: how its temporal embedding becomes one of more frames, see :func:`inflate_frames`.
    """

    task: str = "demovlp"
    init: AbsolutePath | None = None
    inflation: Inflation = "zeros"
    tokenizer: TokenizerSettings = TokenizerSettings()
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    loss: LossSettings = LossSettings()
    optim: OptimSettings = OptimSettings()
    train: TrainSettings = TrainSettings()
    eval: EvalSettings = EvalSettings()
