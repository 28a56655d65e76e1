"""Losses over :class:`regionvlp.models.Encoded`. Each takes its tensors by keyword and returns a dict of scalars.

Keys that end in ``_loss`` are what a trainer adds up. Every loss computes in float32 at least, under any autocast.
"""

from regionvlp.losses.alternatives import filip_loss as filip_loss
from regionvlp.losses.alternatives import filip_scores as filip_scores
from regionvlp.losses.alternatives import filip_similarity as filip_similarity
from regionvlp.losses.alternatives import taco_similarity as taco_similarity
from regionvlp.losses.alternatives import taco_token_loss as taco_token_loss
from regionvlp.losses.contrastive import global_contrast as global_contrast
from regionvlp.losses.contrastive import global_similarity as global_similarity
from regionvlp.losses.contrastive import info_nce as info_nce
from regionvlp.losses.gather import Candidates as Candidates
from regionvlp.losses.gather import candidates as candidates
from regionvlp.losses.region_word.alignment import region_word_loss as region_word_loss
from regionvlp.losses.region_word.alignment import region_word_scores as region_word_scores
from regionvlp.losses.region_word.alignment import region_word_similarity as region_word_similarity
from regionvlp.losses.region_word.settings import REGION_WORD_PRESETS as REGION_WORD_PRESETS
from regionvlp.losses.region_word.settings import RegionWordScores as RegionWordScores
from regionvlp.losses.region_word.settings import RegionWordSettings as RegionWordSettings
