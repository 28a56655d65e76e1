"""Ways to match the tokens of a video with those of a caption, behind one interface.

A system asks for one by its ``loss`` settings and needs not know which it got. Shape letters: V videos, T texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from regionvlp.losses.alternatives import filip_loss, filip_similarity, taco_similarity, taco_token_loss
from regionvlp.losses.gather import Candidates
from regionvlp.losses.region_word.alignment import region_word_loss, region_word_similarity
from regionvlp.losses.region_word.settings import RegionWordSettings
from regionvlp.losses.settings import LossSettings
from regionvlp.models.encoded import Encoded

WORD_WEIGHT = "word_weight"  # the batch key


class TokenMatch(Protocol):
    """Scores pairs token by token."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The batch keys that :meth:`loss` reads beside the encodings."""

    def loss(self, video: Encoded, text: Encoded, among: Candidates, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Scalars by name, those to be summed ending in ``_loss``, of a batch paired row by row."""

    def similarity(self, video: Encoded, text: Encoded) -> Tensor:
        """[T, V] float: what retrieval adds to the global similarity."""


@dataclass(frozen=True)
class RegionWord:
    """Bidirectional region-word alignment (DemoVLP, section 3.2)."""

    settings: RegionWordSettings
    inputs: tuple[str, ...] = ()

    def loss(self, video: Encoded, text: Encoded, among: Candidates, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return region_word_loss(video=video, text=text, settings=self.settings, among=among)

    def similarity(self, video: Encoded, text: Encoded) -> Tensor:
        return region_word_similarity(video=video, text=text, settings=self.settings)


@dataclass(frozen=True)
class Filip:
    """FILIP's token-wise maximum similarity."""

    temperature: float
    inputs: tuple[str, ...] = ()

    def loss(self, video: Encoded, text: Encoded, among: Candidates, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return filip_loss(video=video, text=text, temperature=self.temperature, among=among)

    def similarity(self, video: Encoded, text: Encoded) -> Tensor:
        return filip_similarity(video=video, text=text)


@dataclass(frozen=True)
class Taco:
    """TACo's token term; with ``inputs`` words are weighed by the batch, without all alike."""

    temperature: float
    inputs: tuple[str, ...] = ()

    def loss(self, video: Encoded, text: Encoded, among: Candidates, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        weight = batch[WORD_WEIGHT] if self.inputs else text.mask
        return taco_token_loss(video=video, text=text, word_weight=weight, temperature=self.temperature, among=among)

    def similarity(self, video: Encoded, text: Encoded) -> Tensor:
        return taco_similarity(video=video, text=text)


def token_match(settings: LossSettings) -> TokenMatch | None:
    """The matching that the settings ask for; None where tokens are not compared."""
    if not settings.use_local:
        return None
    if settings.local == "region_word":
        return RegionWord(settings.region_word)
    if settings.local == "filip":
        return Filip(settings.temperature)
    return Taco(settings.temperature, (WORD_WEIGHT,) if settings.weighs_words else ())
