"""DemoVLP: regions against words, as wholes and piece by piece.

In: batches of regions and captions. Out: the losses of global contrast and of a token matching, region-word alignment
unless the settings say otherwise (DemoVLP, section 3).
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from regionvlp.errors import ConfigError
from regionvlp.losses.settings import LossSettings
from regionvlp.models.dual_encoder import build_dual_encoder
from regionvlp.models.inflation import fit_regions, inflate_frames
from regionvlp.models.region_encoder import RegionEncoder
from regionvlp.models.settings import DualEncoderSettings, Inflation
from regionvlp.shards import Manifest
from regionvlp.systems.two_towers import TwoTowers


def build(
    model: DualEncoderSettings, loss: LossSettings, *, vocab_size: int | None = None, pretrained: bool = True
) -> DemoVLP:
    """Builds the system; arguments as :func:`regionvlp.systems.registry.build_system`."""
    return DemoVLP(build_dual_encoder(model, vocab_size=vocab_size, pretrained=pretrained), loss)


class DemoVLP(TwoTowers):
    """A region encoder and a text encoder, contrasted as wholes and token by token."""

    def adapt(self, state: dict[str, Tensor], inflation: Inflation) -> dict[str, Tensor]:
        """Fits the temporal and the position embedding."""
        settings = self._encoder.settings
        for name in state:
            if name.endswith("temporal_embed"):
                state[name] = inflate_frames(state[name], settings.frames, inflation)
            if name.endswith("custom_pos_embed"):
                state[name] = fit_regions(state[name], settings.regions)
        return state

    def check(self, manifest: Manifest, folder: str | Path) -> None:
        """Regions must have as many features as the region encoder reads."""
        reads = self._encoder.settings.feature_width
        if manifest.feature_width != reads:
            raise ConfigError(
                f"the regions in {folder} have {manifest.feature_width} features, the model reads {reads}",
                f"set model.video.feature_width={manifest.feature_width}, or use shards of another detector",
            )

    @property
    def _encoder(self) -> RegionEncoder:
        assert isinstance(self.model.video, RegionEncoder), "a system of regions has an encoder of regions"
        return self.model.video
