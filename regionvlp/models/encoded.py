"""What every encoder returns and every loss reads.

Shape letters: B batch, N tokens of one item (regions of a video, words of a caption), D joint width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from regionvlp.errors import InputError


@dataclass(frozen=True)
class Encoded:
    """A batch of videos or captions in the joint space. Nothing is normalised yet; the losses do that.

    Attributes:
        pooled: [B, D] float, one vector per item (the projected CLS token).
        tokens: [B, N, D] float, one vector per region or word, CLS not among them. Rows of padding hold whatever
            the encoder made of them: only the ``public`` form of a loss ever looks at them.
        mask: [B, N] bool, True where a token is real.

    Raises:
        InputError: the three do not fit together, or the mask is not boolean (an additive or 0/1 float mask means
            something else in each library, so it is never guessed at), or the embeddings are no floating-point numbers.
    """

    pooled: Tensor
    tokens: Tensor
    mask: Tensor

    def __post_init__(self) -> None:
        if self.mask.dtype is not torch.bool:
            raise InputError(f"a token mask has dtype {self.mask.dtype}", "give a boolean mask, True = real token")
        if not (self.pooled.is_floating_point() and self.tokens.is_floating_point()):
            raise InputError(f"pooled are {self.pooled.dtype}, tokens {self.tokens.dtype}", "give floating point")
        shapes = tuple(self.pooled.shape), tuple(self.tokens.shape), tuple(self.mask.shape)
        fits = self.tokens.ndim == 3 and self.mask.shape == self.tokens.shape[:2]
        if not fits or self.pooled.shape != (self.tokens.shape[0], self.tokens.shape[2]):
            raise InputError("pooled {}, tokens {} and mask {} do not fit".format(*shapes), "[B,D], [B,N,D], [B,N]")

    def __len__(self) -> int:
        return len(self.pooled)

    def __getitem__(self, rows: slice) -> Encoded:
        """The items of a slice, as views."""
        return Encoded(self.pooled[rows], self.tokens[rows], self.mask[rows])

    def to(self, target: torch.device | torch.dtype | str) -> Encoded:
        """Moves to a device, or changes the dtype of the embeddings (the mask stays boolean)."""
        mask = self.mask if isinstance(target, torch.dtype) else self.mask.to(target)
        return Encoded(self.pooled.to(target), self.tokens.to(target), mask)

    def pad_to(self, width: int) -> Encoded:
        """The same items with N = ``width`` tokens (at least as many as now), new ones zero and masked."""
        extra = width - self.tokens.shape[1]
        assert extra >= 0, "padding cannot cut tokens away"
        tokens = functional.pad(self.tokens, (0, 0, 0, extra))
        return Encoded(self.pooled, tokens, functional.pad(self.mask, (0, extra)))

    @staticmethod
    def cat(parts: Sequence[Encoded]) -> Encoded:
        """Joins batches along B; the token axis is padded to the widest of them."""
        width = max(part.tokens.shape[1] for part in parts)
        parts = [part.pad_to(width) for part in parts]
        return Encoded(
            torch.cat([part.pooled for part in parts]),
            torch.cat([part.tokens for part in parts]),
            torch.cat([part.mask for part in parts]),
        )
