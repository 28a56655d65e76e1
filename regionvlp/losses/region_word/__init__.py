"""Bidirectional region-word alignment (DemoVLP, section 3.2): settings, the loss, and how it is computed."""

from regionvlp.losses.region_word.alignment import region_word_loss as region_word_loss
from regionvlp.losses.region_word.alignment import region_word_scores as region_word_scores
from regionvlp.losses.region_word.alignment import region_word_similarity as region_word_similarity
from regionvlp.losses.region_word.settings import REGION_WORD_PRESETS as REGION_WORD_PRESETS
from regionvlp.losses.region_word.settings import RegionWordScores as RegionWordScores
from regionvlp.losses.region_word.settings import RegionWordSettings as RegionWordSettings
