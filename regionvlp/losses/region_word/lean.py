"""Region-word alignment of every pair, tile by tile, with a backward pass derived by hand.

:mod:`regionvlp.losses.region_word.alignment` says what is computed; here it is computed cheaply. The attended vector
of every token of every pair, B*B*N*D numbers, is never formed: only its cosine with the query is wanted, and for
weights w over unit contexts c_m

    <q, sum_m w_m c_m> = (sum_m w_m <q, c_m>) / sqrt(w' G w),    G_mk = <c_m, c_k>,

where the cosines <q, c_m> are at hand already and the Gram matrix G belongs to one context item, not to a pair (and is
only made where there are queries enough to pay for it). One
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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from regionvlp.losses.region_word.settings import RegionWordScores, RegionWordSettings
from regionvlp.losses.token_pairs import full_precision, refuse_second_derivative, widen
from regionvlp.models.encoded import Encoded

_EPSILON = 1e-8  # what the public code adds to every norm
_SLOPE = 0.1  # of the public code's LeakyReLU
_LOG2_E = 1 / math.log(2)
_BLOCK = 64  # rows at once of what is symmetric
ALIKE = 1e-3  # a query finds contexts alike where the weight of none is further above the average
_STEEPEST = 40.0  # logits within this of 0 need no maximum subtracted: their powers of 2, and the sum, are float32

# Tokens of the videos and of the captions in a tile: for one thread what its caches hold, for several what gives each
# of them enough to do, on other devices what memory affords.
_TILE_THREAD = 720, 768
_TILE_THREADS = 1440, 1536
_TILE_DEVICE = 4096, 4096


def lean_scores(
    video: Encoded, text: Encoded, settings: RegionWordSettings, *, v2l: bool = True, l2v: bool = True
) -> RegionWordScores:
    """Both scores of every pair, [videos, texts], differentiable once in the tokens of both sides; on any device.

    Args:
        video, text: of one width, all that is read of them finite.
        v2l, l2v: False for a score that nobody asks for; it is then left as zeros.
    """
    apply: Callable[..., tuple[Tensor, Tensor]] = _LeanScores.apply  # untyped before torch 2.14
    with full_precision(video.tokens):
        scores = apply(video.tokens, video.mask, text.tokens, text.mask, settings, (v2l, l2v))
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
        scratch = _Scratch(scores_VT)
        for video in _parts(regions, region_mask, settings, videos):
            for text in texts:
                cosine_VNTW = _cosines(video, text, scratch)
                pairs = video.rows[:, None], text.rows
                if l2v:
                    scores_VT[1][pairs] = _score(cosine_VNTW, video, text, settings, scratch)
                if v2l:
                    turned_TWVN = _turned(cosine_VNTW, scratch)
                    scores_VT[0][pairs] = _score(turned_TWVN, text, video, settings, scratch).T
        return scores_VT[0], scores_VT[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
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
    scratch = _Scratch(grads[0])
    for part in _parts(regions, region_mask, settings, videos):
        video = _Pulled(part)
        for text in texts:
            cosine_VNTW = _cosines(video.part, text.part, scratch)
            d_cosine_VNTW = scratch("d_cosine", cosine_VNTW.shape)
            pairs = video.part.rows[:, None], text.part.rows
            if l2v:
                _pull(cosine_VNTW, d_cosine_VNTW, grads[1][pairs], video, text, settings, scratch)
            else:
                d_cosine_VNTW.zero_()
            if v2l:
                turned_TWVN = _turned(cosine_VNTW, scratch)
                d_turned_TWVN = scratch("d_turned", turned_TWVN.shape)
                _pull(turned_TWVN, d_turned_TWVN, grads[0][pairs].T, text, video, settings, scratch)
                d_cosine_VNTW += _turned(d_turned_TWVN, scratch)
            flat = d_cosine_VNTW.flatten(2).flatten(0, 1)
            video.d_unit.flatten(0, 1).addmm_(flat, text.part.unit.flatten(0, 1))
            text.d_unit.flatten(0, 1).addmm_(flat.T, video.part.unit.flatten(0, 1))
        video.write(d_regions)
    for text in texts:
        text.write(d_words)
    return d_regions, d_words


class _Scratch:
    """Memory in which one tile after another is computed.

    On a CPU a fresh tensor of a tile's size costs more, in pages that the system hands out cleared, than what is
    computed in it.
    """

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self._flat: dict[str, Tensor] = {}

    def __call__(self, name: str, shape: Sequence[int]) -> Tensor:
        """Uninitialised, and only good until the name is asked for again."""
        size = math.prod(shape)
        if name not in self._flat or self._flat[name].numel() < size:
            self._flat[name] = self._like.new_empty(size)
        return self._flat[name][:size].view(shape)


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
    counted: Tensor

    @cached_property
    def gram(self) -> Tensor:
        """[B, N, N] of the unit tokens."""
        return self.unit @ self.unit.transpose(1, 2)

    @cached_property
    def upper(self) -> Tensor:
        """[B, N, N], the Gram matrix's part above the diagonal doubled, and the diagonal: as good as it in w' G w."""
        return self.gram.triu(1).mul_(2) + torch.diag_embed(self.gram.diagonal(dim1=1, dim2=2))


def _parts(tokens: Tensor, mask: Tensor, settings: RegionWordSettings, at_once: int) -> Iterator[_Part]:
    """A side in parts of about ``at_once`` tokens, longest items first; items that count nothing are left out."""
    width = mask.shape[1]
    if settings.query_mean == "padded":
        # A mask that is the same everywhere cancels in the public code's softmax: no region valid means all are.
        mask = mask | ~mask.any(1, keepdim=True)
    counts = mask.sum(1)
    order = torch.argsort(counts, descending=True, stable=True)
    real_first = torch.argsort((~mask).byte(), dim=1, stable=True)
    sizes = [count for count in counts[order].tolist() if count > 0]
    start = 0
    while start < len(sizes):
        longest = width if settings.reads_padding else sizes[start]
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
    if ragged and not settings.reads_padding:
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
        d_gram = self.d_gram.triu() + self.d_gram.triu(1).transpose(1, 2)
        self.d_unit.baddbmm_(d_gram, part.unit)
        along = (self.d_unit * part.unit).sum(-1)
        to_unit = (part.scale * part.length).clamp_min(_EPSILON)  # t / length = u / this
        aside = torch.where(part.scale > 0, (self.d_length - part.scale * along) / to_unit, 0)
        found = self.d_unit.mul_(part.scale[..., None]).addcmul_(part.unit, aside[..., None])
        d_tokens[part.rows[:, None], part.columns] = found.to(d_tokens.dtype)


def _cosines(video: _Part, text: _Part, scratch: _Scratch) -> Tensor:
    """[V, N, T, W]"""
    cosine_VNTW = scratch("cosine", (*video.length.shape, *text.length.shape))
    torch.mm(video.unit.flatten(0, 1), text.unit.flatten(0, 1).T, out=cosine_VNTW.flatten(2).flatten(0, 1))
    return cosine_VNTW


def _turned(x_CMQN: Tensor, scratch: _Scratch) -> Tensor:
    """[Q, N, C, M], in memory too."""
    turned_QNCM = scratch("turned", (*x_CMQN.shape[2:], *x_CMQN.shape[:2]))
    turned_QNCM.flatten(2).flatten(0, 1).copy_(x_CMQN.flatten(2).flatten(0, 1).T)
    return turned_QNCM


def _score(
    cosine_CMQN: Tensor, context: _Part, query: _Part, settings: RegionWordSettings, scratch: _Scratch
) -> Tensor:
    """[C, Q]: attend, focus, read, agree."""
    weight_CMQN, _ = _attend(cosine_CMQN, context, query, settings, scratch)
    square_CQN = _square(weight_CMQN, context, scratch)
    along_CQN = weight_CMQN.mul_(cosine_CMQN).sum(1)
    return (along_CQN * _inverse_root(square_CQN) * query.share).sum(-1)


def _pull(
    cosine_CMQN: Tensor,
    d_cosine_CMQN: Tensor,
    grad_CQ: Tensor,
    context: _Pulled,
    query: _Pulled,
    settings: RegionWordSettings,
    scratch: _Scratch,
) -> None:
    """Writes the gradient of :func:`_score` to ``d_cosine`` and adds it to what gathers on both parts; which contexts
    are kept is constant.

    With u = sum_m w_m a_m along the query and m = |v|, the agreement is u/m, and for the gradient g of it

        d a_m = g w_m / m,    d w_m = g (a_m / m - u (G w)_m / m^3),    d G = -1/2 sum g u w w' / m^3.

    w = exp(z) without its softmax denominator, whose share in the gradient vanishes, since u/m does not change when
    all of w is scaled. So d z = w d w = a d a - (g u w / m^3) G w.
    """
    weight_CMQN, sharpened = _attend(cosine_CMQN, context.part, query.part, settings, scratch)
    read_CMQN = scratch("read", weight_CMQN.shape)
    torch.bmm(context.part.gram, weight_CMQN.flatten(2), out=read_CMQN.flatten(2))
    product_CMQN = torch.mul(weight_CMQN, read_CMQN, out=scratch("product", weight_CMQN.shape))
    inverse_CQN = _inverse_root(product_CMQN.sum(1))
    torch.mul(weight_CMQN, cosine_CMQN, out=product_CMQN)
    agreement_CQN = product_CMQN.sum(1) * inverse_CQN
    pull_CQN = grad_CQ[..., None] * query.part.share * inverse_CQN

    torch.mul(weight_CMQN, pull_CQN[:, None], out=d_cosine_CMQN)
    torch.mul(weight_CMQN, (pull_CQN * agreement_CQN * -inverse_CQN)[:, None], out=product_CMQN)
    _add_upper(context.d_gram, product_CMQN, weight_CMQN)
    d_logit_CMQN = read_CMQN.mul_(product_CMQN).addcmul_(cosine_CMQN, d_cosine_CMQN)
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
        damped_CMQN *= query.part.normed
    d_damped_CMQN = d_logit_CMQN.mul_(factor_CMQ1).addcmul_(damped_CMQN, aside_CMQ1, value=-1)
    torch.ops.aten.leaky_relu_backward.grad_input(d_damped_CMQN, cosine_CMQN, _SLOPE, False, grad_input=product_CMQN)
    d_cosine_CMQN.add_(product_CMQN)
    # The factor (length + epsilon) / length in the share.
    part = query.part
    d_share_QN = (grad_CQ[..., None] * agreement_CQN).sum(0) * part.share
    query.d_length -= d_share_QN * _EPSILON / (part.length * (part.length + _EPSILON)).clamp_min(_EPSILON)


def _attend(
    cosine_CMQN: Tensor, context: _Part, query: _Part, settings: RegionWordSettings, scratch: _Scratch
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor] | None]:
    """[C, M, Q, N]: how much of each unit context every query reads, up to a factor per query.

    With it, for the public form, what its backward pass needs: the damped cosines, what they were multiplied by, and
    their norms over the queries.
    """
    sharpened = None
    weight_CMQN = scratch("weight", cosine_CMQN.shape)
    if settings.form == "paper":
        steepest = _LOG2_E
        torch.mul(cosine_CMQN, _LOG2_E, out=weight_CMQN)
    else:
        damped_CMQN = scratch("damped", cosine_CMQN.shape)
        torch.ops.aten.leaky_relu.out(cosine_CMQN, _SLOPE, out=damped_CMQN)
        normed_CMQN = damped_CMQN
        if query.normed is not None:
            normed_CMQN = torch.mul(damped_CMQN, query.normed, out=weight_CMQN)
        norm_CMQ1 = torch.linalg.vector_norm(normed_CMQN, dim=-1, keepdim=True)
        # What is divided by a norm that it is part of lies in [-1, 1].
        steepest = _LOG2_E / settings.temperature if query.normed is None else math.inf
        factor_CMQ1 = 1 / settings.temperature / (norm_CMQ1 + _EPSILON)
        torch.mul(damped_CMQN, factor_CMQ1 * _LOG2_E, out=weight_CMQN)
        sharpened = damped_CMQN, factor_CMQ1, norm_CMQ1
    if context.shut is not None:
        weight_CMQN += context.shut[:, :, None, None]
    if not (settings.refine and steepest <= _STEEPEST):
        weight_CMQN -= weight_CMQN.amax(1, keepdim=True)
    weight_CMQN.exp2_()  # on a CPU a good deal faster than exp
    if settings.refine:
        _focus(weight_CMQN, context, query)
    if settings.form == "paper":
        # The paper reads the words as they are, long ones louder; cosines and Gram matrix here are of unit vectors.
        # Only their proportions matter, and fit any dtype.
        loudest_C1 = context.length.amax(1, keepdim=True).clamp_min(_EPSILON)
        weight_CMQN *= (context.length / loudest_C1)[:, :, None, None]
    return weight_CMQN, sharpened


def _focus(weight_CMQN: Tensor, context: _Part, query: _Part) -> None:
    """Makes 0 what is not above the average over the counted contexts, and all 1 where they are alike."""
    counted_C111 = context.counted[:, None, None, None]
    per_average_C1QN = counted_C111 / weight_CMQN.sum(1, keepdim=True)
    alike_C1QN = weight_CMQN.amax(1, keepdim=True).mul_(per_average_C1QN) <= 1 + ALIKE
    on_cpu = weight_CMQN.device.type == "cpu"  # elsewhere asking whether there are any costs more than a pass or two
    some = not on_cpu or bool(alike_C1QN.any())
    if some:
        # Of a single one nothing is above the average, and what has no length finds everything alike.
        alike_C1QN &= (counted_C111 > 1) & (query.length > 0)
        per_average_C1QN.masked_fill_(alike_C1QN, 0)
        some = not on_cpu or bool(alike_C1QN.any())
    weight_CMQN *= per_average_C1QN
    # Equal weights are equal to their average, and rounding must not lift them above it.
    functional.threshold(weight_CMQN, 1 + 8 * torch.finfo(weight_CMQN.dtype).eps, 0, inplace=True)
    if some:
        open_CM = torch.ones_like(context.length) if context.shut is None else context.shut.exp()
        weight_CMQN.addcmul_(alike_C1QN.to(weight_CMQN.dtype), open_CM[:, :, None, None])


def _blocks(contexts: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns that cover the diagonal and all above it; what they cover below it lies beside the diagonal."""
    for start in range(0, contexts, _BLOCK):
        yield slice(start, start + _BLOCK), slice(start, None)


def _square(weight_CMQN: Tensor, context: _Part, scratch: _Scratch) -> Tensor:
    """[C, Q, N]: w' G w, the squared length of what each query read."""
    flat_CMX = weight_CMQN.flatten(2)
    if flat_CMX.shape[2] <= flat_CMX.shape[1] // 4:
        # A sentence against a hundred clips: so few queries read faster than a Gram matrix is made.
        read_CXD = torch.bmm(flat_CMX.transpose(1, 2), context.unit)
        return read_CXD.square_().sum(-1).view(len(read_CXD), *weight_CMQN.shape[2:])
    upper_CMM = context.upper
    square_CX = flat_CMX.new_zeros(flat_CMX.shape[0], flat_CMX.shape[2])
    for rows, columns in _blocks(flat_CMX.shape[1]):
        weight_CmX = flat_CMX[:, rows]
        read_CmX = torch.bmm(upper_CMM[:, rows, columns], flat_CMX[:, columns], out=scratch("read", weight_CmX.shape))
        square_CX += read_CmX.mul_(weight_CmX).sum(1)
    return square_CX.view(-1, *weight_CMQN.shape[2:])


def _add_upper(d_gram_CMM: Tensor, left_CMQN: Tensor, right_CMQN: Tensor) -> None:
    """Adds the products of ``left`` and ``right`` over the queries to ``d_gram``, on its diagonal and above it."""
    left_CMX, right_CXM = left_CMQN.flatten(2), right_CMQN.flatten(2).transpose(1, 2)
    for rows, columns in _blocks(left_CMX.shape[1]):
        d_gram_CMM[:, rows, columns].baddbmm_(left_CMX[:, rows], right_CXM[:, :, columns])


def _inverse_root(square: Tensor) -> Tensor:
    """1 / sqrt, and 0 where nothing was read."""
    return torch.where(square > _EPSILON**2, square.rsqrt(), 0)


def _tile(device: torch.device) -> tuple[int, int]:
    if device.type != "cpu":
        return _TILE_DEVICE
    return _TILE_THREAD if torch.get_num_threads() == 1 else _TILE_THREADS
