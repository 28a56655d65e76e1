"""Two towers that meet in one space: a region encoder for videos, DistilBERT for captions.

In: a batch by key. Out: :class:`Encoded` of either side, which the losses compare.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from regionvlp.models.encoded import Encoded
from regionvlp.models.pretrained import load_distilbert, load_vit
from regionvlp.models.region_encoder import RegionEncoder
from regionvlp.models.settings import DualEncoderSettings
from regionvlp.models.text_encoder import TextEncoder, with_vocabulary


class DualEncoder(nn.Module):
    """Encodes videos and captions independently of each other."""

    video_keys = ("features", "location", "region_mask")
    text_keys = ("input_ids", "attention_mask")

    def __init__(self, video: RegionEncoder, text: TextEncoder) -> None:
        super().__init__()
        self.video = video
        self.text = text

    def encode_video(self, batch: Mapping[str, Tensor]) -> Encoded:
        """``features`` [B,F,R,C], ``location`` [B,F,R,P], ``region_mask`` [B,F,R] bool: see :class:`RegionEncoder`."""
        encoded: Encoded = self.video(*(batch[key] for key in self.video_keys))
        return encoded

    def encode_text(self, batch: Mapping[str, Tensor]) -> Encoded:
        """``input_ids`` [B,L], ``attention_mask`` [B,L]: see :class:`TextEncoder`."""
        encoded: Encoded = self.text(*(batch[key] for key in self.text_keys))
        return encoded


def build_dual_encoder(
    settings: DualEncoderSettings, *, vocab_size: int | None = None, pretrained: bool = True
) -> DualEncoder:
    """Builds both towers.

    Args:
        settings: their sizes.
        vocab_size: of the tokenizer, where the settings leave it open.
        pretrained: whether to read the weights that the settings name; False where a checkpoint follows anyway, so
            that a trained model needs none of the files it once started from.

    Raises:
        InputError, WeightsError: weights that are missing, unreadable, or of another shape.
    """
    video = RegionEncoder(settings.video)
    text = TextEncoder(with_vocabulary(settings.text, vocab_size))
    if pretrained and settings.video.pretrained is not None:
        load_vit(video, settings.video.pretrained)
    if pretrained and settings.text.pretrained is not None:
        load_distilbert(text, settings.text.pretrained)
    return DualEncoder(video, text)
