"""Tokens against tokens: what may be compared, and the cosines that FILIP and TACo take their best from.

A token-wise loss has two directions. In each, the tokens of one side ask (*queries*, Q items of N tokens) and those of
the other side answer (*contexts*, C items of M tokens). Written once per direction, a loss serves both: regions ask
words, then words ask regions.

Shape letters: Q query items of N tokens, C context items of M tokens, D joint width. The cosines of a direction are
kept as [C, M, Q, N]: one matrix product makes them, and the best context of every query is found along whole rows of
memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from regionvlp.errors import InputError
from regionvlp.models.encoded import Encoded

# [C, M, Q, N] elements worked on at a time: on a CPU what the caches hold, elsewhere what memory affords.
_AT_ONCE_CPU = 1 << 20
_AT_ONCE_DEVICE = 1 << 26


@dataclass(frozen=True)
class UnitTokens:
    """The directions of a batch of tokens.

    Attributes:
        unit: [B, N, D], length 1; exactly zero, with zero gradient, where the token is zero or padding.
        mask: [B, N] bool, True = real.
    """

    unit: Tensor
    mask: Tensor

    def __len__(self) -> int:
        return len(self.unit)

    def __getitem__(self, rows: slice) -> UnitTokens:
        return UnitTokens(self.unit[rows], self.mask[rows])


def unit_tokens(encoded: Encoded) -> UnitTokens:
    """The directions of tokens [B, N, D], in float32 or better; whatever stands in padding becomes zero."""
    tokens = widen(encoded.tokens).masked_fill(~encoded.mask[..., None], 0)
    length = torch.linalg.vector_norm(tokens, dim=-1)
    # A zero token has no direction. Selecting its scale keeps the infinite derivative of 1/length out of the graph.
    scale = torch.where(length > 1e-8, 1 / length.clamp_min(1e-8), 0)
    return UnitTokens(tokens * scale[..., None], encoded.mask)


def pair_cosines(query: UnitTokens, context: UnitTokens) -> Tensor:
    """[C, M, Q, N]: cosine of every context token with every query token, in one matrix product."""
    flat = context.unit.flatten(0, 1) @ query.unit.flatten(0, 1).T
    return flat.view(*context.mask.shape, *query.mask.shape)


def masked_mean(values_QCN: Tensor, mask_QN: Tensor) -> Tensor:
    """[Q, C]: mean over the real query tokens; 0 for an item that has none."""
    count_Q1 = mask_QN.sum(-1, keepdim=True).clamp_min(1)
    return torch.einsum("qcn,qn->qc", values_QCN, mask_QN.to(values_QCN.dtype) / count_Q1)


def in_blocks(score: Callable[[UnitTokens, UnitTokens], Tensor], query: UnitTokens, context: UnitTokens) -> Tensor:
    """[Q, C, ...]: ``score(query block, context block)`` laid together; cosines exist for one block at a time."""
    at_once = _AT_ONCE_CPU if query.unit.device.type == "cpu" else _AT_ONCE_DEVICE
    pairs = max(1, at_once // max(1, query.mask.shape[1] * context.mask.shape[1]))
    queries = min(len(query), pairs)
    contexts = max(1, pairs // max(1, queries))
    rows: list[Tensor] = []
    for q in range(0, len(query), queries):
        block = query[q : q + queries]
        rows.append(torch.cat([score(block, context[c : c + contexts]) for c in range(0, len(context), contexts)], 1))
    return torch.cat(rows)


def check_comparable(video: Encoded, text: Encoded, *, padding_too: bool = False) -> None:
    """Refuses tokens that no loss can compare.

    Args:
        video, text: tokens [B, N, D] each.
        padding_too: whether what stands in padding is read, too.

    Raises:
        InputError: a side is empty, their widths differ, or a token has no finite length: it holds NaN or infinity,
            or numbers too large to be squared.
    """

    def fine_B(side: Encoded) -> Tensor:
        fine_BN = _finite(side.tokens)
        return (fine_BN if padding_too else fine_BN | ~side.mask).all(1)

    _check_sides(video, text)
    _check_finite("tokens", fine_B(video), fine_B(text))


def check_pooled(video: Encoded, text: Encoded) -> None:
    """Refuses pooled vectors [B, D] that cannot be compared; as :func:`check_comparable`."""
    _check_sides(video, text)
    _check_finite("pooled vectors", _finite(video.pooled), _finite(text.pooled))


def _check_sides(video: Encoded, text: Encoded) -> None:
    if not len(video) or not len(text):
        raise InputError("nothing to compare: no videos or no captions in the batch", "give at least one of each")
    widths = video.tokens.shape[-1], text.tokens.shape[-1]
    if widths[0] != widths[1]:
        raise InputError(f"videos of width {widths[0]}, captions of width {widths[1]}", "use one joint width")
    dtypes = video.tokens.dtype, text.tokens.dtype
    if torch.float64 in dtypes and dtypes[0] != dtypes[1]:
        raise InputError(f"videos of {dtypes[0]}, captions of {dtypes[1]}", "float64 goes with float64 alone")


def _finite(vectors: Tensor) -> Tensor:
    """[...] bool: whether vectors [..., D] have a finite length."""
    wide = torch.promote_types(vectors.dtype, torch.float32)
    length: Tensor = torch.linalg.vector_norm(vectors.detach(), dim=-1, dtype=wide)
    return length.isfinite()


def _check_finite(what: str, videos_B: Tensor, captions_B: Tensor) -> None:
    if videos_B.all() & captions_B.all():  # a GPU is waited for once
        return
    side, fine_B = ("captions", captions_B) if videos_B.all() else ("videos", videos_B)
    raise InputError(
        f"the {what} of {int((~fine_B).sum())} {side} hold NaN, infinite or huge numbers",
        "check the features; or the model has diverged",
    )


def widen(x: Tensor) -> Tensor:
    """float32 for what is narrower: scores are multiplied by 20 and more before they enter a softmax."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def refuse_second_derivative() -> None:
    """For backward passes written by hand, under which autograd can see nothing.

    torch's ``once_differentiable`` refuses less: where the incoming gradients are constants, the part of a second
    derivative that goes through the inputs would silently be missing.

    Raises:
        NotImplementedError: backward is run with ``create_graph``.
    """
    if torch.is_grad_enabled():
        raise NotImplementedError("region-word scores have no second derivative: leave create_graph off")


def full_precision(x: Tensor) -> torch.autocast:
    """A context in which matrix products keep the dtype of their inputs, whatever autocast the caller runs under."""
    return torch.autocast(x.device.type, enabled=False)
