"""Two encoders that meet in one space: what DemoVLP and Frozen in Time have in common.

In: batches of clips and captions. Out: the losses of global contrast and of a token matching, region-word alignment
where the settings say so (DemoVLP, section 3).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from regionvlp.data.pairs import PAIR_KEYS
from regionvlp.losses.contrastive import global_contrast, global_similarity
from regionvlp.losses.gather import candidates
from regionvlp.losses.settings import LossSettings
from regionvlp.losses.token_match import token_match
from regionvlp.models.dual_encoder import DualEncoder
from regionvlp.models.encoded import Encoded
from regionvlp.systems.base import Stage, System


class TwoTowers(System):
    """A video encoder and a text encoder, contrasted as wholes and token by token."""

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

    def stages(self) -> Iterable[Stage]:
        return Stage("video encoder", self.model.video), Stage("text encoder", self.model.text)
