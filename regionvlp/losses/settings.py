"""Which losses a dual encoder learns by, and how they contrast: the ``loss`` section. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from regionvlp.config import Config
from regionvlp.losses.region_word.settings import RegionWordSettings
from regionvlp.losses.temperature import Temperature


class GroupSettings(Config):
    """Contrast within groups.

    Attributes:
        group: pairs in each; they are slices of the global batch, in its order.
    """

    group: int = Field(ge=1)


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
        negatives: where a pair's come from. ``global``: the whole batch, whatever the number of processes; of a batch
            that is computed in parts (``train.accumulate``) the part. ``{group: N}``: the N pairs of its group, which
            must divide a part, so that neither parts nor processes change what is learnt. DemoVLP was published with
            the pairs of one GPU, ``{group: 128}``.
        duplicates: whether another pair of the same clip, or of a caption that reads the same, is one of a pair's
            ``negatives``, as in the published recipes, or left out of the contrast (``mask``): it would be pushed away
            from what it fits.
        region_word: settings of the alignment.
    """

    use_global: bool = True
    use_local: bool = True
    local: Literal["region_word", "filip", "taco"] = "region_word"
    word_weight: Literal["equal", "idf"] = "equal"
    temperature: Temperature = 0.05
    negatives: Literal["global"] | GroupSettings = "global"
    duplicates: Literal["negatives", "mask"] = "negatives"
    region_word: RegionWordSettings = RegionWordSettings()

    @property
    def contrasts(self) -> Literal["global"] | int:
        """What :func:`regionvlp.losses.candidates` takes: ``global``, or how many pairs make a group."""
        return self.negatives if self.negatives == "global" else self.negatives.group

    @property
    def weighs_words(self) -> bool:
        """Whether batches must say how rare their nouns and verbs are."""
        return self.use_local and self.local == "taco" and self.word_weight == "idf"

    @property
    def counts_padding(self) -> bool:
        """Whether the losses depend on the widths that a batch was padded to."""
        return self.use_local and self.local == "region_word" and self.region_word.counts_padding

    @field_validator("negatives", mode="before")
    @classmethod
    def _one_of_both(cls, given: Any) -> Any:
        if isinstance(given, Mapping):
            fine = list(given) == ["group"] and type(given["group"]) is int and given["group"] >= 1
        else:
            fine = given == "global" or isinstance(given, GroupSettings)
        if not fine:
            raise ValueError("it takes 'global' or {group: N}, N pairs in each group")
        return given

    @model_validator(mode="after")
    def _something_to_learn(self) -> LossSettings:
        if not self.use_global and not self.use_local:
            raise ValueError("use_global and use_local are both off, so there is nothing to learn")
        return self


class GlobalLossSettings(LossSettings):
    """The same, without a contrast of tokens unless it is asked for (Frozen in Time)."""

    use_local: bool = False
