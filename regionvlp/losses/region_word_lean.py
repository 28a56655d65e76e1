"""The scores of region-word alignment for every pair of a video and a caption, in blocks of pairs."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from regionvlp.losses.region_word_settings import RegionWordScores, RegionWordSettings
from regionvlp.losses.token_pairs import UnitTokens, full_precision, in_blocks, masked_mean, pair_cosines, unit_tokens
from regionvlp.models.encoded import Encoded

_EPSILON = 1e-8  # what the public code adds to every norm


def lean_scores(
    video: Encoded, text: Encoded, settings: RegionWordSettings, *, v2l: bool = True, l2v: bool = True
) -> RegionWordScores:
    """Both scores of every pair, [videos, texts], differentiable in the tokens of both sides; on any device.

    Args:
        video, text: of one width, neither empty, all that is read of them finite.
        v2l, l2v: False for a score that nobody asks for; it is then left as zeros.
    """
    zeros = video.tokens.new_zeros(len(video), len(text), dtype=torch.float32)
    regions_ask = _scores(query=video, context=text, settings=settings) if v2l else zeros
    words_ask = _scores(query=text, context=video, settings=settings).T if l2v else zeros
    return RegionWordScores(regions_ask, words_ask)


def _scores(*, query: Encoded, context: Encoded, settings: RegionWordSettings) -> Tensor:
    """[Q, C]: one direction. The rows are the items that ask."""
    split = partial(
        unit_tokens,
        keep_padding="padded" in (settings.query_mean, settings.query_norm),
        added=_EPSILON if settings.form == "public" else 0.0,
    )
    with full_precision(query.tokens):
        return in_blocks(partial(_score_block, settings=settings), split(query), split(context))


def _score_block(query: UnitTokens, context: UnitTokens, *, settings: RegionWordSettings) -> Tensor:
    """[Q, C]: attend, focus, read, agree."""
    cosine_CMQN = pair_cosines(query, context)
    if settings.form == "paper":
        weight_CMQN = _paper_weights(cosine_CMQN, context, settings)
        agreement_CQN = _cosine_with_attended(weight_CMQN, cosine_CMQN, context)
        return masked_mean(agreement_CQN, query.mask)
    weight_CMQN = _public_weights(cosine_CMQN, query, context, settings)
    agreement_CQN = _cosine_with_attended(weight_CMQN, cosine_CMQN, context)
    # The public code compares the raw query with what it read, not the query divided by (length + epsilon).
    agreement_CQN = agreement_CQN * ((query.length + _EPSILON) / query.length.clamp_min(_EPSILON))
    counted_QN = query.mask if settings.query_mean == "valid" else torch.ones_like(query.mask)
    return masked_mean(agreement_CQN, counted_QN)


def _paper_weights(cosine_CMQN: Tensor, context: UnitTokens, settings: RegionWordSettings) -> Tensor:
    """[C, M, Q, N]: how much of each unit context every query reads."""
    real_CM11 = context.mask[:, :, None, None]
    attention_CMQN = _softmax(cosine_CMQN, real_CM11)
    if settings.refine:
        attention_CMQN = _above_average(attention_CMQN, real_CM11)
    # The paper reads the words as they are, long ones louder; cosines and Gram matrix here are of unit vectors.
    return attention_CMQN * context.length[:, :, None, None]


def _public_weights(
    cosine_CMQN: Tensor, query: UnitTokens, context: UnitTokens, settings: RegionWordSettings
) -> Tensor:
    """[C, M, Q, N]: the public code's attention.

    It differs from the paper's in three ways: negative cosines are damped to a tenth; each context is divided by its
    norm over all queries of the item, so that a word that every region likes is liked less by each; and the softmax
    is 20 times sharper. The threshold is one part in the number of contexts, padding included. (It also divides by
    the mass kept, which no cosine can see.)
    """
    damped_CMQN = functional.leaky_relu(cosine_CMQN, 0.1)
    normed_CMQN = damped_CMQN if settings.query_norm == "padded" else damped_CMQN * query.mask
    norm_CMQ1 = torch.linalg.vector_norm(normed_CMQN, dim=-1, keepdim=True)
    real_CM = context.mask
    if settings.query_mean == "padded":
        # A mask that is the same everywhere cancels in the public code's softmax: no region valid means all are.
        real_CM = real_CM | ~real_CM.any(1, keepdim=True)
    attention_CMQN = _softmax(damped_CMQN / (norm_CMQ1 + _EPSILON) / settings.temperature, real_CM[:, :, None, None])
    if not settings.refine:
        return attention_CMQN
    counted_CM = real_CM if settings.threshold_count == "valid" else torch.ones_like(real_CM)
    return _above_average(attention_CMQN, counted_CM[:, :, None, None])


def _above_average(attention_CMQN: Tensor, counted_CM11: Tensor) -> Tensor:
    """Focus: what is not above the average over the counted contexts becomes 0."""
    count_C111 = counted_CM11.sum(1, keepdim=True)
    return attention_CMQN * (attention_CMQN * count_C111 > attention_CMQN.sum(1, keepdim=True))


def _cosine_with_attended(weight_CMQN: Tensor, cosine_CMQN: Tensor, context: UnitTokens) -> Tensor:
    """[C, Q, N]: cosine of each query with its weighted sum of unit contexts; 0 where nothing has weight."""
    gram_CMM = context.unit @ context.unit.transpose(1, 2)
    along_CQN = (weight_CMQN * cosine_CMQN).sum(1)
    gram_weight_CMQN = (gram_CMM @ weight_CMQN.flatten(2)).view_as(weight_CMQN)
    square_CQN = (weight_CMQN * gram_weight_CMQN).sum(1)  # |attended vector|^2
    return along_CQN * square_CQN.clamp_min(_EPSILON**2).rsqrt()


def _softmax(logits_CMQN: Tensor, real_CM11: Tensor) -> Tensor:
    """Softmax over the real contexts, exactly 0 elsewhere; all 0 where an item has none."""
    # The lowest finite number rather than -inf: a softmax over nothing is then uniform instead of NaN, and cleared.
    lowest = torch.finfo(logits_CMQN.dtype).min
    return logits_CMQN.masked_fill(~real_CM11, lowest).softmax(1) * real_CM11
