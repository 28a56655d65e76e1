"""Which losses a dual encoder learns by, and how they contrast: the ``loss`` section. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from regionvlp.config import Config
from regionvlp.losses.region_word.settings import RegionWordSettings
from regionvlp.losses.temperature import Temperature

Negatives = Literal["local", "global"]


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

    @property
    def counts_padding(self) -> bool:
        """Whether the losses depend on the widths that a batch was padded to."""
        return self.use_local and self.local == "region_word" and self.region_word.counts_padding

    @model_validator(mode="after")
    def _something_to_learn(self) -> LossSettings:
        if not self.use_global and not self.use_local:
            raise ValueError("use_global and use_local are both off, so there is nothing to learn")
        return self
