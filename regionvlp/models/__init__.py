"""Encoders: from regions, words (and later pixels) to one joint space. Every one returns :class:`Encoded`."""

from typing import TYPE_CHECKING

from regionvlp.lazy import exports

if TYPE_CHECKING:
    from regionvlp.models.dual_encoder import DualEncoder as DualEncoder
    from regionvlp.models.dual_encoder import build_dual_encoder as build_dual_encoder
    from regionvlp.models.encoded import Encoded as Encoded
    from regionvlp.models.region_encoder import RegionEncoder as RegionEncoder
    from regionvlp.models.settings import DualEncoderSettings as DualEncoderSettings
    from regionvlp.models.settings import RegionEncoderSettings as RegionEncoderSettings
    from regionvlp.models.settings import TextEncoderSettings as TextEncoderSettings
    from regionvlp.models.text_encoder import TextEncoder as TextEncoder

__getattr__, __dir__ = exports(
    __name__,
    {
        "regionvlp.models.dual_encoder": ["DualEncoder", "build_dual_encoder"],
        "regionvlp.models.encoded": ["Encoded"],
        "regionvlp.models.region_encoder": ["RegionEncoder"],
        "regionvlp.models.settings": ["DualEncoderSettings", "RegionEncoderSettings", "TextEncoderSettings"],
        "regionvlp.models.text_encoder": ["TextEncoder"],
    },
)
