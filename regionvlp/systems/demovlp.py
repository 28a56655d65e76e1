"""Tasks: what a trainer trains and an evaluator scores. One per system of the literature.

A task owns model and losses, says which keys of a batch it reads, and turns a batch into named scalars. The trainer
adds up those whose name ends in ``_loss``, logs all, and knows neither models nor losses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import model_validator
from torch import Tensor, nn

from regionvlp.config import Config
from regionvlp.errors import ConfigError, nearest
from regionvlp.losses import (
    RegionWordSettings,
    candidates,
    filip_loss,
    filip_similarity,
    global_contrast,
    global_similarity,
    region_word_loss,
    region_word_similarity,
    taco_similarity,
    taco_token_loss,
)
from regionvlp.losses.gather import Negatives
from regionvlp.losses.temperature import Temperature
from regionvlp.models import DualEncoder, DualEncoderSettings, Encoded, build_dual_encoder

ModelSettings = DualEncoderSettings
WORD_WEIGHT = "word_weight"  # the batch key


class LossSettings(Config):
    """Which losses, and how they contrast.

    Attributes:
        use_global: contrast of pooled vectors. Alone it is the paper's *Base* model.
        use_local: contrast of tokens.
        local: which one: ``region_word`` alignment, ``filip``, or ``taco``.
        word_weight: what ``taco`` weighs words by: ``equal``, or ``idf``, the inverse document frequency of nouns and
            verbs in the training captions and 0 for other words (as TACo does; finding them needs a tagger, see
            :mod:`regionvlp.data.text.content_words`).
        temperature: of the global contrast, ``filip`` and ``taco``; ``region_word`` has its own.
        negatives: from this process's batch (``local``, as published) or from all processes (``global``).
        region_word: settings of the alignment.
    """

    use_global: bool = True
    use_local: bool = True
    local: Literal["region_word", "filip", "taco"] = "region_word"
    word_weight: Literal["equal", "idf"] = "equal"
    temperature: Temperature = 0.05
    negatives: Negatives = "local"
    region_word: RegionWordSettings = RegionWordSettings()

    @property
    def weighs_words(self) -> bool:
        """Whether batches must say how rare their nouns and verbs are."""
        return self.use_local and self.local == "taco" and self.word_weight == "idf"

    @model_validator(mode="after")
    def _something_to_learn(self) -> LossSettings:
        if not self.use_global and not self.use_local:
            raise ValueError("use_global and use_local are both off, so there is nothing to learn")
        return self


class Task(nn.Module, ABC):
    """What the trainer and the evaluator see of a system.

    Attributes:
        batch_keys: the keys that :meth:`forward` reads.
    """

    batch_keys: tuple[str, ...]

    @abstractmethod
    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Scalars of a training batch by name; those ending in ``_loss`` are summed and differentiated."""

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


class DemoVLP(Task):
    """Regions against words, as wholes and piece by piece: global contrast + region-word alignment."""

    def __init__(self, model: DualEncoder, losses: LossSettings) -> None:
        super().__init__()
        self.batch_keys = DualEncoder.video_keys + DualEncoder.text_keys
        if losses.weighs_words:
            self.batch_keys += (WORD_WEIGHT,)
        self.model = model
        self.losses = losses

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compiles the encoders; the losses look at their input on the host and bring kernels of their own."""
        self.model.video.compile(*args, **kwargs)
        self.model.text.compile(*args, **kwargs)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``global_loss`` and the local losses that are in use."""
        settings = self.losses
        video, text = self.encode_video(batch), self.encode_text(batch)
        among = candidates(video, text, settings.negatives)
        scalars: dict[str, Tensor] = {}
        if settings.use_global:
            scalars |= global_contrast(video=video, text=text, temperature=settings.temperature, among=among)
        if settings.use_local and settings.local == "region_word":
            scalars |= region_word_loss(video=video, text=text, settings=settings.region_word, among=among)
        if settings.use_local and settings.local == "filip":
            scalars |= filip_loss(video=video, text=text, temperature=settings.temperature, among=among)
        if settings.use_local and settings.local == "taco":
            weight = batch[WORD_WEIGHT] if settings.word_weight == "idf" else text.mask
            scalars |= taco_token_loss(
                video=video, text=text, word_weight=weight, temperature=settings.temperature, among=among
            )
        return scalars

    def encode_video(self, batch: Mapping[str, Tensor]) -> Encoded:
        return self.model.encode_video(batch)

    def encode_text(self, batch: Mapping[str, Tensor]) -> Encoded:
        return self.model.encode_text(batch)

    def similarities(self, video: Encoded, text: Encoded) -> dict[str, Tensor]:
        """``global`` and ``local``, the parts in use, both with texts as rows; they are added with weight 1.

        The public evaluator adds the local part with videos as rows, untransposed, and so mixes two pairs in every
        entry off the diagonal (see :func:`regionvlp.evaluation.retrieval.fuse_similarities`).
        """
        parts: dict[str, Tensor] = {}
        if self.losses.use_global:
            parts["global"] = global_similarity(video=video, text=text)
        if self.losses.use_local and self.losses.local == "region_word":
            parts["local"] = region_word_similarity(video=video, text=text, settings=self.losses.region_word)
        if self.losses.use_local and self.losses.local == "filip":
            parts["local"] = filip_similarity(video=video, text=text)
        if self.losses.use_local and self.losses.local == "taco":
            parts["local"] = taco_similarity(video=video, text=text)
        return parts


TASKS: dict[str, type[DemoVLP]] = {"demovlp": DemoVLP}


def build_task(
    name: str,
    model: ModelSettings,
    losses: LossSettings,
    *,
    vocab_size: int | None = None,
    pretrained: bool = True,
) -> Task:
    """Builds a task by name.

    Args:
        name: a key of :data:`TASKS`.
        model, losses: its sections of the config.
        vocab_size: of the tokenizer, where ``model.text.vocab_size`` is left out.
        pretrained: whether to read the weights that ``model`` names; False where a checkpoint follows anyway.

    Raises:
        ConfigError: no such task. InputError, WeightsError: see :func:`regionvlp.models.build_dual_encoder`.
    """
    if name not in TASKS:
        raise ConfigError(f"no task '{name}'", nearest(name, TASKS) or f"tasks: {', '.join(TASKS)}")
    return TASKS[name](build_dual_encoder(model, vocab_size=vocab_size, pretrained=pretrained), losses)
