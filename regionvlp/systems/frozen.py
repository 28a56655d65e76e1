"""Frozen in Time: pixels against words (Bain et al., ICCV 2021).

In: batches of clips of pixels and captions. Out: the loss of global contrast and, where the settings say so, that of a
token matching over patches (DemoVLP, table 4b: *Frozen + RWA*).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from regionvlp.errors import ConfigError
from regionvlp.losses.settings import LossSettings
from regionvlp.models.dual_encoder import build_dual_encoder
from regionvlp.models.encoded import Encoded
from regionvlp.models.inflation import inflate_frames, resize_positions
from regionvlp.models.settings import Inflation, PixelDualEncoderSettings
from regionvlp.models.space_time import SpaceTimeEncoder
from regionvlp.shards import Manifest
from regionvlp.systems.two_towers import TwoTowers

log = logging.getLogger(__name__)


def build(
    model: PixelDualEncoderSettings, loss: LossSettings, *, vocab_size: int | None = None, pretrained: bool = True
) -> Frozen:
    """Builds the system; arguments as :func:`regionvlp.systems.registry.build_system`."""
    return Frozen(build_dual_encoder(model, vocab_size=vocab_size, pretrained=pretrained), loss)


class Frozen(TwoTowers):
    """A space-time transformer and a text encoder, contrasted as wholes and, by choice, token by token."""

    def encode_video(self, batch: Mapping[str, Tensor]) -> Encoded:
        """``pixels`` and ``frame_mask``: see :class:`SpaceTimeEncoder`."""
        shown = batch["frame_mask"]
        # Kernels without a mask are faster, and nearly every clip has all its frames. On a GPU this waits for the
        # batch to arrive, which the first layer would do as well.
        encoded: Encoded = self.model.video(batch["pixels"], None if bool(shown.all()) else shown)
        return encoded

    def adapt(self, state: dict[str, Tensor], inflation: Inflation) -> dict[str, Tensor]:
        """Fits the temporal embedding to the number of frames, and that of places to the size of a frame."""
        encoder = self.model.video
        assert isinstance(encoder, SpaceTimeEncoder), "a system of pixels has an encoder of pixels"
        frames, grid = encoder.settings.frames, encoder.settings.grid
        for name, rows in state.items():
            if name.endswith("temporal_embed"):
                state[name] = inflate_frames(rows, frames, inflation)
                if rows.shape[1] > frames:
                    log.info("the weights were made for %d frames: the first %d are used", rows.shape[1], frames)
            if name.endswith("video.pos_embed"):
                state[name] = resize_positions(rows, grid)
                if state[name] is not rows:
                    log.info("positions of %d patches resized to %d x %d", rows.shape[1] - 1, *grid)
        return state

    def check(self, manifest: Manifest, folder: str | Path) -> None:
        """Shards of regions hold no pixels."""
        message = f"{folder} holds regions, and this model reads pixels"
        raise ConfigError(message, "give the videos, or frames cached by 'regionvlp extract --what frames'")
