"""Losses over :class:`regionvlp.models.Encoded`. Each takes its tensors by keyword and returns a dict of scalars.

Keys that end in ``_loss`` are what a trainer adds up. Every loss computes in float32 at least, under any autocast.
"""

from typing import TYPE_CHECKING

from regionvlp.lazy import exports

if TYPE_CHECKING:
    from regionvlp.losses.alternatives import filip_loss as filip_loss
    from regionvlp.losses.alternatives import filip_scores as filip_scores
    from regionvlp.losses.alternatives import filip_similarity as filip_similarity
    from regionvlp.losses.alternatives import taco_similarity as taco_similarity
    from regionvlp.losses.alternatives import taco_token_loss as taco_token_loss
    from regionvlp.losses.contrastive import global_contrast as global_contrast
    from regionvlp.losses.contrastive import global_similarity as global_similarity
    from regionvlp.losses.contrastive import info_nce as info_nce
    from regionvlp.losses.contrastive import max_margin as max_margin
    from regionvlp.losses.gather import Candidates as Candidates
    from regionvlp.losses.gather import candidates as candidates
    from regionvlp.losses.region_word.alignment import region_word_loss as region_word_loss
    from regionvlp.losses.region_word.alignment import region_word_scores as region_word_scores
    from regionvlp.losses.region_word.alignment import region_word_similarity as region_word_similarity
    from regionvlp.losses.region_word.settings import REGION_WORD_PRESETS as REGION_WORD_PRESETS
    from regionvlp.losses.region_word.settings import RegionWordScores as RegionWordScores
    from regionvlp.losses.region_word.settings import RegionWordSettings as RegionWordSettings
    from regionvlp.losses.token_match import TokenMatch as TokenMatch

__getattr__, __dir__ = exports(
    __name__,
    {
        "regionvlp.losses.alternatives": [
            "filip_loss",
            "filip_scores",
            "filip_similarity",
            "taco_similarity",
            "taco_token_loss",
        ],
        "regionvlp.losses.contrastive": ["global_contrast", "global_similarity", "info_nce", "max_margin"],
        "regionvlp.losses.gather": ["Candidates", "candidates"],
        "regionvlp.losses.region_word.alignment": [
            "region_word_loss",
            "region_word_scores",
            "region_word_similarity",
        ],
        "regionvlp.losses.region_word.settings": ["REGION_WORD_PRESETS", "RegionWordScores", "RegionWordSettings"],
        "regionvlp.losses.token_match": ["TokenMatch"],
    },
)
