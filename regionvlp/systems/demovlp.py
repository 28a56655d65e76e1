"""DemoVLP: regions against words, as wholes and piece by piece.

In: batches of regions and captions. Out: the losses of global contrast and of a token matching, region-word alignment
unless the settings say otherwise (DemoVLP, section 3).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from regionvlp.data.pairs import PAIR_KEYS
from regionvlp.errors import ConfigError
from regionvlp.losses.contrastive import global_contrast, global_similarity
from regionvlp.losses.gather import candidates
from regionvlp.losses.settings import LossSettings
from regionvlp.losses.token_match import token_match
from regionvlp.models.dual_encoder import DualEncoder, build_dual_encoder
from regionvlp.models.encoded import Encoded
from regionvlp.models.inflation import fit_regions, inflate_frames
from regionvlp.models.settings import DualEncoderSettings, Inflation
from regionvlp.shards import Manifest
from regionvlp.systems.base import Stage, System


def build(
    model: DualEncoderSettings, loss: LossSettings, *, vocab_size: int | None = None, pretrained: bool = True
) -> DemoVLP:
    """Builds the system; arguments as :func:`regionvlp.systems.registry.build_system`."""
    return DemoVLP(build_dual_encoder(model, vocab_size=vocab_size, pretrained=pretrained), loss)


class DemoVLP(System):
    """A region encoder and a text encoder, contrasted as wholes and token by token."""

    def __init__(self, model: DualEncoder, losses: LossSettings) -> None:
        super().__init__()
        self.model = model
        self.losses = losses
        self.match = token_match(losses)
        self._same = PAIR_KEYS if losses.duplicates == "mask" else ()
        read = self.match.inputs if self.match else ()
        self.inputs = model.video_keys + model.text_keys + read + self._same

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compiles the encoders; the losses look at their input on the host and bring kernels of their own."""
        self.model.video.compile(*args, **kwargs)
        self.model.text.compile(*args, **kwargs)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``global_loss`` and the losses of the token matching, whichever are in use.

        Where duplicates are masked, ``duplicates`` says how many candidates of a pair were left out, on average.
        """
        video, text = self.encode_video(batch), self.encode_text(batch)
        among = candidates(video, text, self.losses.contrasts, keys=[batch[key] for key in self._same])
        scalars: dict[str, Tensor] = {}
        if self.losses.use_global:
            scalars |= global_contrast(video=video, text=text, temperature=self.losses.temperature, among=among)
        if self.match:
            scalars |= self.match.loss(video, text, among, batch)
        if self._same:
            scalars["duplicates"] = among.left_out()
        return scalars

    def encode_video(self, batch: Mapping[str, Tensor]) -> Encoded:
        return self.model.encode_video(batch)

    def encode_text(self, batch: Mapping[str, Tensor]) -> Encoded:
        return self.model.encode_text(batch)

    def similarities(self, video: Encoded, text: Encoded) -> dict[str, Tensor]:
        """``global`` and ``local``, the parts in use, both with texts as rows; they are added with weight 1.

        The public evaluator adds the local part with videos as rows, untransposed, and so mixes two pairs in every
        entry off the diagonal (see :func:`regionvlp.evaluation.retrieval.fuse_similarities`).
        """
        parts: dict[str, Tensor] = {}
        if self.losses.use_global:
            parts["global"] = global_similarity(video=video, text=text)
        if self.match:
            parts["local"] = self.match.similarity(video, text)
        return parts

    def adapt(self, state: dict[str, Tensor], inflation: Inflation) -> dict[str, Tensor]:
        """Fits the temporal and the position embedding."""
        settings = self.model.video.settings
        for name in state:
            if name.endswith("temporal_embed"):
                state[name] = inflate_frames(state[name], settings.frames, inflation)
            if name.endswith("custom_pos_embed"):
                state[name] = fit_regions(state[name], settings.regions)
        return state

    def check(self, manifest: Manifest, folder: str | Path) -> None:
        """Regions must have as many features as the region encoder reads."""
        reads = self.model.video.settings.feature_width
        if manifest.feature_width != reads:
            raise ConfigError(
                f"the regions in {folder} have {manifest.feature_width} features, the model reads {reads}",
                f"set model.video.feature_width={manifest.feature_width}, or use shards of another detector",
            )

    def stages(self) -> Iterable[Stage]:
        return Stage("video encoder", self.model.video), Stage("text encoder", self.model.text)
