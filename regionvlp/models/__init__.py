"""Encoders: from regions, words (and later pixels) to one joint space. Every one returns :class:`Encoded`."""

from regionvlp.models.dual_encoder import DualEncoder as DualEncoder
from regionvlp.models.dual_encoder import DualEncoderSettings as DualEncoderSettings
from regionvlp.models.dual_encoder import build_dual_encoder as build_dual_encoder
from regionvlp.models.encoded import Encoded as Encoded
from regionvlp.models.region_encoder import RegionEncoder as RegionEncoder
from regionvlp.models.region_encoder import RegionEncoderSettings as RegionEncoderSettings
from regionvlp.models.text_encoder import TextEncoder as TextEncoder
from regionvlp.models.text_encoder import TextEncoderSettings as TextEncoderSettings
