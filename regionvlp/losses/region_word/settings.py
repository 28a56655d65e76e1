"""Which region-word alignment: the settings, and the score pair that they describe.

The alignment itself is explained in :mod:`regionvlp.losses.region_word.alignment`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import model_validator

from regionvlp.config import Config
from regionvlp.losses.temperature import Temperature

if TYPE_CHECKING:
    from torch import Tensor

Counted = Literal["valid", "padded"]


class RegionWordSettings(Config):
    """Which region-word alignment. The defaults are the paper's equations.

    Attributes:
        form: ``paper`` or ``public``, see :mod:`regionvlp.losses.region_word.alignment`.
        refine: whether to focus; off is the ablation of the paper's table 6.
        temperature: of the contrast; the public form also sharpens its attention by its inverse.
        threshold_count, query_mean, query_norm: whether the focusing threshold, the mean over queries and (public
            form) the norm across queries count ``valid`` tokens or the ``padded`` width too. The public code counts
            padding, so that its scores depend on the width captions were padded to (100).
        local_loss: ``nce_both``, InfoNCE in both directions (paper), or ``kl_row``, the public code's reverse KL
            from video to captions only.
    """

    form: Literal["paper", "public"] = "paper"
    refine: bool = True
    temperature: Temperature = 0.05
    threshold_count: Counted = "valid"
    query_mean: Counted = "valid"
    query_norm: Counted = "valid"
    local_loss: Literal["nce_both", "kl_row"] = "nce_both"

    @property
    def counts_padding(self) -> bool:
        """Whether scores depend on the widths that a batch was padded to."""
        return "padded" in (self.threshold_count, self.query_mean, self.query_norm)

    @property
    def reads_padding(self) -> bool:
        """Whether what stands in padding is read."""
        return "padded" in (self.query_mean, self.query_norm)

    @model_validator(mode="after")
    def _paper_is_one_thing(self) -> RegionWordSettings:
        if self.form == "paper" and self.counts_padding:
            raise ValueError("the paper form counts valid tokens only; 'padded' needs form 'public'")
        if self.form == "paper" and self.local_loss == "kl_row":
            raise ValueError("the paper form has two scores and local_loss 'nce_both'; 'kl_row' needs form 'public'")
        return self


REGION_WORD_PRESETS = {
    "paper": RegionWordSettings(),
    # Exactly the public code: captions must be padded to 100 tokens, as there.
    "public": RegionWordSettings(
        form="public", threshold_count="padded", query_mean="padded", query_norm="padded", local_loss="kl_row"
    ),
    # The public function of every pair as if it had no padding, whatever the batch is padded to.
    "valid": RegionWordSettings(form="public", local_loss="kl_row"),
}


class RegionWordScores(NamedTuple):
    """The two scores of every pair, both [videos, texts], each in [-1, 1].

    Attributes:
        v2l: regions ask words.
        l2v: words ask regions.
    """

    v2l: Tensor
    l2v: Tensor
