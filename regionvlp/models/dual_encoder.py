"""Two towers that meet in one space: an encoder of regions or of pixels for videos, a text encoder for captions.

In: a batch by key. Out: :class:`Encoded` of either side, which the losses compare.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from regionvlp.models.encoded import Encoded
from regionvlp.models.pretrained import load_text_weights, load_vit
from regionvlp.models.region_encoder import RegionEncoder
from regionvlp.models.settings import DualEncoderSettings, PixelDualEncoderSettings
from regionvlp.models.space_time import SpaceTimeEncoder
from regionvlp.models.text_encoder import TextEncoder, with_vocabulary


class DualEncoder(nn.Module):
    """Encodes videos and captions independently of each other."""

    text_keys = ("input_ids", "attention_mask")

    def __init__(self, video: RegionEncoder | SpaceTimeEncoder, text: TextEncoder) -> None:
        super().__init__()
        self.video = video
        self.text = text

    @property
    def video_keys(self) -> tuple[str, ...]:
        """The batch keys that :meth:`encode_video` reads."""
        return self.video.inputs

    def encode_video(self, batch: Mapping[str, Tensor]) -> Encoded:
        """The keys of :attr:`video_keys`: see the encoder's ``forward``."""
        encoded: Encoded = self.video(*(batch[key] for key in self.video_keys))
        return encoded

    def encode_text(self, batch: Mapping[str, Tensor]) -> Encoded:
        """``input_ids`` [B,L], ``attention_mask`` [B,L]: see :class:`TextEncoder`."""
        encoded: Encoded = self.text(*(batch[key] for key in self.text_keys))
        return encoded


def build_dual_encoder(
    settings: DualEncoderSettings | PixelDualEncoderSettings,
    *,
    vocab_size: int | None = None,
    pretrained: bool = True,
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
    video = _video_encoder(settings)
    model = DualEncoder(video, TextEncoder(with_vocabulary(settings.text, vocab_size)))
    if pretrained and settings.video.pretrained is not None:
        load_vit(video, settings.video.pretrained)
    if pretrained and settings.text.pretrained is not None:
        load_text_weights(model.text, settings.text.pretrained)
    return model


def _video_encoder(settings: DualEncoderSettings | PixelDualEncoderSettings) -> RegionEncoder | SpaceTimeEncoder:
    if isinstance(settings, DualEncoderSettings):
        return RegionEncoder(settings.video)
    return SpaceTimeEncoder(settings.video)
