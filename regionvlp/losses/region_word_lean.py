"""Region-word alignment of every pair, tile by tile, with a backward pass derived by hand.

:mod:`regionvlp.losses.region_word` says what is computed; here it is computed cheaply. The attended vector of every
token of every pair, B*B*N*D numbers, is never formed: only its cosine with the query is wanted, and for weights w over
unit contexts c_m

    <q, sum_m w_m c_m> = (sum_m w_m <q, c_m>) / sqrt(w' G w),    G_mk = <c_m, c_k>,

where the cosines <q, c_m> are at hand already and the Gram matrix G belongs to one context item, not to a pair. One
matrix product makes the cosines of a tile, some videos by some captions, and both directions read them. Autograd would
keep a dozen tensors of the size of all cosines; here the backward pass makes every tile anew, and nothing is saved but
the inputs. Tokens that do not count are cut away first: items are sorted by how many they have, and a tile is as
wide as its longest item.

Shape letters: V videos of N regions, T captions of W words, D joint width. Within a direction C context items of M
tokens answer Q query items of N tokens; its cosines are [C, M, Q, N], so that a sum over the contexts runs along
whole rows of memory and the product with G needs no transposed copy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from regionvlp.losses.region_word_settings import RegionWordScores, RegionWordSettings
from regionvlp.losses.token_pairs import full_precision, widen
from regionvlp.models.encoded import Encoded

_EPSILON = 1e-8  # what the public code adds to every norm
_SLOPE = 0.1  # of the public code's LeakyReLU
_LOG2_E = 1 / math.log(2)
_STEEPEST = 40.0  # logits within this of 0 need no maximum subtracted: their powers of 2, and the sum, are float32

# Tokens of the videos and of the captions in a tile: on a CPU what its caches hold, elsewhere what memory affords.
_TILE_CPU = 240, 768
_TILE_DEVICE = 4096, 4096


def lean_scores(
    video: Encoded, text: Encoded, settings: RegionWordSettings, *, v2l: bool = True, l2v: bool = True
) -> RegionWordScores:
    """Both scores of every pair, [videos, texts], differentiable once in the tokens of both sides; on any device.

    Args:
        video, text: of one width, all that is read of them finite.
        v2l, l2v: False for a score that nobody asks for; it is then left as zeros.
    """
    directions = v2l, l2v
    scores: tuple[Tensor, Tensor] = _LeanScores.apply(
        video.tokens, video.mask, text.tokens, text.mask, settings, directions
    )
    return RegionWordScores(*scores)


class _LeanScores(torch.autograd.Function):
    """(v2l, l2v) of the raw tokens of both sides. Saves its inputs, computes each tile again in backward."""

    @staticmethod
    def forward(
        ctx: Any,
        regions: Tensor,
        region_mask: Tensor,
        words: Tensor,
        word_mask: Tensor,
        settings: RegionWordSettings,
        directions: tuple[bool, bool],
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(regions, region_mask, words, word_mask)
        ctx.settings, ctx.directions = settings, directions
        v2l, l2v = directions
        scores_VT = regions.new_zeros(2, len(regions), len(words), dtype=widen(regions[:0]).dtype)
        videos, captions = _tile(regions.device)
        texts = list(_parts(words, word_mask, settings, captions))
        for video in _parts(regions, region_mask, settings, videos):
            for text in texts:
                cosine_VNTW = _cosines(video, text)
                pairs = video.rows[:, None], text.rows
                if l2v:
                    scores_VT[1][pairs] = _score(cosine_VNTW, video, text, settings)
                if v2l:
                    scores_VT[0][pairs] = _score(_turned(cosine_VNTW), text, video, settings).T
        return scores_VT[0], scores_VT[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise NotImplementedError("region-word scores have no second derivative: leave create_graph off")
        with full_precision(grads[0]):
            regions, region_mask, words, word_mask = ctx.saved_tensors
            sides = regions, region_mask, words, word_mask
            d_regions, d_words = _gradients(*sides, ctx.settings, ctx.directions, grads)
        return d_regions, None, d_words, None, None, None


def _gradients(
    regions: Tensor,
    region_mask: Tensor,
    words: Tensor,
    word_mask: Tensor,
    settings: RegionWordSettings,
    directions: tuple[bool, bool],
    grads: tuple[Tensor, ...],
) -> tuple[Tensor, Tensor]:
    """Of both sides' tokens, from the gradients [V, T] of the two scores."""
    v2l, l2v = directions
    d_regions, d_words = torch.zeros_like(regions), torch.zeros_like(words)
    videos, captions = _tile(regions.device)
    texts = [_Pulled(part) for part in _parts(words, word_mask, settings, captions)]
    for part in _parts(regions, region_mask, settings, videos):
        video = _Pulled(part)
        for text in texts:
            cosine_VNTW = _cosines(video.part, text.part)
            pairs = video.part.rows[:, None], text.part.rows
            d_cosine_VNTW = torch.zeros_like(cosine_VNTW)
            if v2l:
                turned = _turned(cosine_VNTW)
                d_turned = torch.zeros_like(turned)
                _pull(turned, d_turned, grads[0][pairs].T, text, video, settings)
                d_cosine_VNTW = _turned(d_turned)
            if l2v:
                _pull(cosine_VNTW, d_cosine_VNTW, grads[1][pairs], video, text, settings)
            flat = d_cosine_VNTW.flatten(2).flatten(0, 1)
            video.d_unit.flatten(0, 1).addmm_(flat, text.part.unit.flatten(0, 1))
            text.d_unit.flatten(0, 1).addmm_(flat.T, video.part.unit.flatten(0, 1))
        video.write(d_regions)
    for text in texts:
        text.write(d_words)
    return d_regions, d_words


@dataclass(frozen=True)
class _Part:
    """Some items of one side, cut to the tokens that count.

    Attributes:
        rows: [B], which items of the batch.
        columns: [B, N], which of their tokens.
        unit: [B, N, D], tokens divided by their length; zero where the token is zero or does not count.
        length: [B, N].
        scale: [B, N], what tokens were multiplied by; 0 where the token is zero.
        share: [B, N], of each token in the mean over queries, times what the public form's cosine needs.
        normed: [B, N], 1 where a token enters the norm over queries; None where all that are not zero do.
        shut: [B, N], -inf where a token must get no attention, else 0; None where all may.
        gram: [B, N, N] of the unit tokens.
        counted: [B], how many contexts the focusing threshold counts.
    """

    rows: Tensor
    columns: Tensor
    unit: Tensor
    length: Tensor
    scale: Tensor
    share: Tensor
    normed: Tensor | None
    shut: Tensor | None
    gram: Tensor
    counted: Tensor


def _parts(tokens: Tensor, mask: Tensor, settings: RegionWordSettings, at_once: int) -> Iterator[_Part]:
    """A side in parts of about ``at_once`` tokens, longest items first; items that count nothing are left out."""
    width = mask.shape[1]
    if settings.query_mean == "padded":
        # A mask that is the same everywhere cancels in the public code's softmax: no region valid means all are.
        mask = mask | ~mask.any(1, keepdim=True)
    keep_padding = "padded" in (settings.query_mean, settings.query_norm)
    counts = mask.sum(1)
    order = torch.argsort(counts, descending=True, stable=True)
    real_first = torch.argsort((~mask).byte(), dim=1, stable=True)
    sizes = [count for count in counts[order].tolist() if count > 0]
    start = 0
    while start < len(sizes):
        longest = width if keep_padding else sizes[start]
        stop = min(len(sizes), start + max(1, at_once // longest))
        rows = order[start:stop]
        columns = real_first[rows, :longest]
        yield _part(tokens, mask, rows, columns, counts[rows], sizes[stop - 1] < longest, settings)
        start = stop


def _part(
    tokens: Tensor,
    mask: Tensor,
    rows: Tensor,
    columns: Tensor,
    count: Tensor,
    ragged: bool,
    settings: RegionWordSettings,
) -> _Part:
    public = settings.form == "public"
    chosen = widen(tokens[rows[:, None], columns])
    real = mask[rows[:, None], columns]
    if ragged and settings.query_mean == settings.query_norm == "valid":
        chosen = chosen.masked_fill(~real[..., None], 0)
    length = torch.linalg.vector_norm(chosen, dim=-1)
    scale = torch.where(length > _EPSILON, 1 / (length + _EPSILON * public).clamp_min(_EPSILON), 0)
    unit = chosen.mul_(scale[..., None])
    if settings.query_mean == "padded":
        share = torch.full_like(length, 1 / mask.shape[1])
    else:
        share = real.to(length.dtype) / count[:, None]
    if public:
        # The public code compares the raw query with what it read, not the query divided by (length + epsilon).
        share = share * ((length + _EPSILON) / length.clamp_min(_EPSILON))
    return _Part(
        rows,
        columns,
        unit,
        length,
        scale,
        share,
        real.to(length.dtype) if ragged and (settings.query_norm, settings.query_mean) == ("valid", "padded") else None,
        torch.zeros_like(length).masked_fill_(~real, -math.inf) if ragged else None,
        unit @ unit.transpose(1, 2),
        (torch.full_like(count, mask.shape[1]) if settings.threshold_count == "padded" else count).to(length.dtype),
    )


class _Pulled:
    """A part and the gradients that gather on it."""

    def __init__(self, part: _Part) -> None:
        self.part = part
        self.d_unit = torch.zeros_like(part.unit)
        self.d_length = torch.zeros_like(part.length)
        self.d_gram = torch.zeros_like(part.gram)

    def write(self, d_tokens: Tensor) -> None:
        """Carries the gradients on to the raw tokens and puts them in their places.

        For u = s t with s = 1 / (length + added):  dt = s du + (d_length - s <du, u>) t / length.
        """
        part = self.part
        self.d_unit.baddbmm_(self.d_gram, part.unit)
        along = (self.d_unit * part.unit).sum(-1)
        to_unit = (part.scale * part.length).clamp_min(_EPSILON)  # t / length = u / this
        aside = torch.where(part.scale > 0, (self.d_length - part.scale * along) / to_unit, 0)
        found = self.d_unit.mul_(part.scale[..., None]).addcmul_(part.unit, aside[..., None])
        d_tokens[part.rows[:, None], part.columns] = found.to(d_tokens.dtype)


def _cosines(video: _Part, text: _Part) -> Tensor:
    """[V, N, T, W]"""
    flat = video.unit.flatten(0, 1) @ text.unit.flatten(0, 1).T
    return flat.view(*video.length.shape, *text.length.shape)


def _turned(x_CMQN: Tensor) -> Tensor:
    """[Q, N, C, M], in memory too."""
    flat = x_CMQN.flatten(2).flatten(0, 1)
    return flat.T.contiguous().view(*x_CMQN.shape[2:], *x_CMQN.shape[:2])


def _score(cosine_CMQN: Tensor, context: _Part, query: _Part, settings: RegionWordSettings) -> Tensor:
    """[C, Q]: attend, focus, read, agree."""
    weight_CMQN, _ = _attend(cosine_CMQN, context, query, settings)
    square_CQN = _square(weight_CMQN, context.gram)
    along_CQN = weight_CMQN.mul_(cosine_CMQN).sum(1)
    return (along_CQN * _inverse_root(square_CQN) * query.share).sum(-1)


def _pull(
    cosine_CMQN: Tensor,
    d_cosine_CMQN: Tensor,
    grad_CQ: Tensor,
    context: _Pulled,
    query: _Pulled,
    settings: RegionWordSettings,
) -> None:
    """Adds the gradient of :func:`_score` to ``d_cosine`` and to what gathers on both parts; which contexts are kept
    is constant.

    With u = sum_m w_m a_m along the query and m = |v|, the agreement is u/m, and for the gradient g of it

        d a_m += g w_m / m,    d w_m = g (a_m / m - u (G w)_m / m^3),    d G = -1/2 sum g u w w' / m^3.

    w = exp(z) without its softmax denominator, whose share in the gradient vanishes, since u/m does not change when
    all of w is scaled. So d z = w d w.
    """
    weight_CMQN, sharpened = _attend(cosine_CMQN, context.part, query.part, settings)
    d_weight_CMQN = (context.part.gram @ weight_CMQN.flatten(2)).view_as(weight_CMQN)
    product_CMQN = weight_CMQN * d_weight_CMQN
    inverse_CQN = _inverse_root(product_CMQN.sum(1))
    torch.mul(weight_CMQN, cosine_CMQN, out=product_CMQN)
    agreement_CQN = product_CMQN.sum(1) * inverse_CQN
    pull_CQN = grad_CQ[..., None] * query.part.share * inverse_CQN
    turn_C1QN = (pull_CQN * agreement_CQN * inverse_CQN)[:, None]

    d_cosine_CMQN.addcmul_(weight_CMQN, pull_CQN[:, None])
    torch.mul(weight_CMQN, turn_C1QN, out=product_CMQN)
    context.d_gram.baddbmm_(product_CMQN.flatten(2), weight_CMQN.flatten(2).transpose(1, 2), alpha=-1)
    d_logit_CMQN = d_weight_CMQN.mul_(-turn_C1QN).addcmul_(cosine_CMQN, pull_CQN[:, None]).mul_(weight_CMQN)
    if settings.form == "paper":
        d_cosine_CMQN.add_(d_logit_CMQN)
        # A weight has its context's length as a factor.
        d_length_CM = d_logit_CMQN.sum((2, 3)) / context.part.length.clamp_min(_EPSILON)
        context.d_length += d_length_CM
        return
    assert sharpened is not None
    damped_CMQN, factor_CMQ1, norm_CMQ1 = sharpened
    torch.mul(d_logit_CMQN, damped_CMQN, out=product_CMQN)
    aside_CMQ1 = product_CMQN.sum(-1, keepdim=True) * factor_CMQ1
    aside_CMQ1 /= (norm_CMQ1 + _EPSILON) * norm_CMQ1.clamp_min(_EPSILON**2)
    if query.part.normed is not None:
        damped_CMQN = damped_CMQN * query.part.normed
    d_damped_CMQN = d_logit_CMQN.mul_(factor_CMQ1).addcmul_(damped_CMQN, aside_CMQ1, value=-1)
    d_cosine_CMQN.add_(torch.ops.aten.leaky_relu_backward(d_damped_CMQN, cosine_CMQN, _SLOPE, False))
    # The factor (length + epsilon) / length in the share.
    part = query.part
    d_share_QN = (grad_CQ[..., None] * agreement_CQN).sum(0) * part.share
    query.d_length -= d_share_QN * _EPSILON / (part.length * (part.length + _EPSILON)).clamp_min(_EPSILON)


def _attend(
    cosine_CMQN: Tensor, context: _Part, query: _Part, settings: RegionWordSettings
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor] | None]:
    """[C, M, Q, N]: how much of each unit context every query reads, up to a factor per query.

    With it, for the public form, what its backward pass needs: the damped cosines, what they were multiplied by, and
    their norms over the queries.
    """
    sharpened = None
    if settings.form == "paper":
        steepest = _LOG2_E
        logit_CMQN = cosine_CMQN * _LOG2_E
    else:
        damped_CMQN = functional.leaky_relu(cosine_CMQN, _SLOPE)
        normed_CMQN = damped_CMQN if query.normed is None else damped_CMQN * query.normed
        norm_CMQ1 = torch.linalg.vector_norm(normed_CMQN, dim=-1, keepdim=True)
        # What is divided by a norm that it is part of lies in [-1, 1].
        steepest = _LOG2_E / settings.temperature if query.normed is None else math.inf
        factor_CMQ1 = 1 / settings.temperature / (norm_CMQ1 + _EPSILON)
        logit_CMQN = damped_CMQN * (factor_CMQ1 * _LOG2_E)
        sharpened = damped_CMQN, factor_CMQ1, norm_CMQ1
    if context.shut is not None:
        logit_CMQN += context.shut[:, :, None, None]
    if not (settings.refine and steepest <= _STEEPEST):
        logit_CMQN -= logit_CMQN.amax(1, keepdim=True)
    weight_CMQN = logit_CMQN.exp2_()  # on a CPU a good deal faster than exp
    if settings.refine:
        # Focus: what is not above the average over the counted contexts becomes 0. Equal weights are equal to their
        # average, and rounding must not lift them above it.
        per_average_C1QN = context.counted[:, None, None, None] / weight_CMQN.sum(1, keepdim=True)
        weight_CMQN *= per_average_C1QN
        functional.threshold(weight_CMQN, 1 + 8 * torch.finfo(weight_CMQN.dtype).eps, 0, inplace=True)
    if settings.form == "paper":
        # The paper reads the words as they are, long ones louder; cosines and Gram matrix here are of unit vectors.
        weight_CMQN *= context.length[:, :, None, None]
    return weight_CMQN, sharpened


def _square(weight_CMQN: Tensor, gram_CMM: Tensor) -> Tensor:
    """[C, Q, N]: w' G w, the squared length of what each query read."""
    contexts = gram_CMM.shape[1]
    flat_CMX = weight_CMQN.flatten(2)
    if contexts <= 64:
        return (gram_CMM @ flat_CMX).mul_(flat_CMX).view_as(weight_CMQN).sum(1)
    # G is symmetric: of the blocks off its diagonal one half does.
    upper_CMM = gram_CMM.triu(1).mul_(2) + torch.diag_embed(gram_CMM.diagonal(dim1=1, dim2=2))
    square_CX = flat_CMX.new_zeros(flat_CMX.shape[0], flat_CMX.shape[2])
    for start in range(0, contexts, 64):
        stop = start + 64
        read_CmX = upper_CMM[:, start:stop, start:] @ flat_CMX[:, start:]
        square_CX += read_CmX.mul_(flat_CMX[:, start:stop]).sum(1)
    return square_CX.view(-1, *weight_CMQN.shape[2:])


def _inverse_root(square: Tensor) -> Tensor:
    """1 / sqrt, and 0 where nothing was read."""
    return torch.where(square > _EPSILON**2, square.rsqrt(), 0)


def _tile(device: torch.device) -> tuple[int, int]:
    return _TILE_CPU if device.type == "cpu" else _TILE_DEVICE
