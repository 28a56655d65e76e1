"""Bidirectional region-word alignment, the heart of DemoVLP (equations 6 to 12).

Two vectors can agree about a clip without any region agreeing with any word. This loss looks closer. For a pair of a
video and a caption, every region asks: *which words describe me?*

    attend   a_nl = softmax over words of <r_n, t_l>, where <,> is the cosine
    focus    keep only the words that get more than the average attention of this region
    read     alpha_n = sum of a_nl t_l over the words kept: the caption as this region reads it
    agree    S_v2l = mean over regions of <r_n, alpha_n>

and S_v2l of the true pair is contrasted with other captions by InfoNCE. The same with roles swapped gives S_l2v: every
word asks for its regions, and the pair is contrasted with other videos. What is written once below, with *queries*
that ask and *contexts* that answer, serves both.

The attended vector alpha_n has D numbers for every region of every pair, B*B*N*D in all, and is never formed. Only
its cosine with the query is wanted, and for weights w over unit contexts c_m

    <q, sum_m w_m c_m> = (sum_m w_m <q, c_m>) / sqrt(w' G w),    G_mk = <c_m, c_k>,

where the cosines <q, c_m> are at hand already and the Gram matrix G belongs to one context item, not to a pair.

The public code computes something else under the same name (its attention is sharper and normalised across queries,
it counts padding, it has one score and another loss). Both forms are here, ``form: paper | public``.

Shape letters: V videos of N regions, T captions of W words; Q query items of N tokens, C context items of M tokens.
"""

from __future__ import annotations

from functools import partial
from typing import Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from regionvlp.config import Config
from regionvlp.losses.contrastive import info_nce
from regionvlp.losses.gather import Candidates, candidates
from regionvlp.losses.token_pairs import (
    UnitTokens,
    check_comparable,
    full_precision,
    in_blocks,
    masked_mean,
    pair_cosines,
    unit_tokens,
)
from regionvlp.models.encoded import Encoded

Counted = Literal["valid", "padded"]

_EPSILON = 1e-8  # what the public code adds to every norm


class RegionWordSettings(Config):
    """Which region-word alignment. The defaults are the paper's equations.

    Attributes:
        form: ``paper`` or ``public``, see the top of the file and :func:`_public_weights`.
        refine: whether to focus; off is the ablation of the paper's table 6.
        temperature: of the contrast; the public form also sharpens its attention by its inverse.
        threshold_count, query_mean, query_norm: whether the focusing threshold, the mean over queries and (public
            form) the norm across queries count ``valid`` tokens or the ``padded`` width too. The public code counts
            padding, so that its scores depend on the width captions were padded to (100).
        local_loss: ``nce_both``, InfoNCE in both directions (paper), or ``kl_row``, the public code's reverse KL
            from video to captions only.
    """

    form: Literal["paper", "public"] = "paper"
    refine: bool = True
    temperature: float = Field(default=0.05, gt=0)
    threshold_count: Counted = "valid"
    query_mean: Counted = "valid"
    query_norm: Counted = "valid"
    local_loss: Literal["nce_both", "kl_row"] = "nce_both"

    @model_validator(mode="after")
    def _paper_is_one_thing(self) -> RegionWordSettings:
        if self.form == "paper" and "padded" in (self.threshold_count, self.query_mean, self.query_norm):
            raise ValueError("the paper form counts valid tokens only; 'padded' needs form 'public'")
        if self.form == "paper" and self.local_loss == "kl_row":
            raise ValueError("the paper form has two scores and local_loss 'nce_both'; 'kl_row' needs form 'public'")
        return self


REGION_WORD_PRESETS = {
    "paper": RegionWordSettings(),
    # Exactly the public code: captions must be padded to 100 tokens, as there.
    "public": RegionWordSettings(
        form="public", threshold_count="padded", query_mean="padded", query_norm="padded", local_loss="kl_row"
    ),
    # The public function of every pair as if it had no padding, whatever the batch is padded to.
    "valid": RegionWordSettings(form="public", local_loss="kl_row"),
}


class RegionWordScores(NamedTuple):
    """The two scores of every pair, both [videos, texts], each in [-1, 1].

    Attributes:
        v2l: regions ask words.
        l2v: words ask regions.
    """

    v2l: Tensor
    l2v: Tensor


def region_word_scores(*, video: Encoded, text: Encoded, settings: RegionWordSettings) -> RegionWordScores:
    """Scores every video against every caption (any numbers of either).

    Defined results at the edges: a video without valid regions or a caption without valid words scores 0 with zero
    gradient; only where ``query_mean`` is padded is it treated as if it had no mask, as in the public code. A query of
    length 0, and one that has a single context to choose from while ``refine`` is on (nothing can be above the
    average of itself), contributes 0 with zero gradient; the public code gives NaN there. Hence a caption of one word
    scores 0 in v2l with refinement, in either form.

    Args:
        video: tokens [V, N, D] (regions), mask [V, N].
        text: tokens [T, W, D] (words, without CLS), mask [T, W].

    Returns:
        float32 (or float64 for float64 tokens).

    Raises:
        InputError: widths differ, or a side is empty.
    """
    v2l_VT = _scores(query=video, context=text, settings=settings)
    l2v_TV = _scores(query=text, context=video, settings=settings)
    return RegionWordScores(v2l_VT, l2v_TV.T)


def region_word_similarity(*, video: Encoded, text: Encoded, settings: RegionWordSettings) -> Tensor:
    """[texts, videos]: S_v2l + S_l2v, the local part of the similarity that retrieval ranks by; in [-2, 2]."""
    scores = region_word_scores(video=video, text=text, settings=settings)
    return (scores.v2l + scores.l2v).T


def region_word_loss(
    *, video: Encoded, text: Encoded, settings: RegionWordSettings, among: Candidates | None = None
) -> dict[str, Tensor]:
    """The local loss of a paired batch.

    ``nce_both`` gives ``local_v2l_loss`` (every video finds its caption) and ``local_l2v_loss`` (every caption finds
    its video); the paper contrasts S_v2l in the one and S_l2v in the other, the public
    form their sum in both. ``kl_row`` gives ``local_loss``.

    Args:
        video, text: see :func:`region_word_scores`, paired row by row.
        among: the candidates, where they are more than this batch (see :func:`candidates`).

    Raises:
        InputError: widths differ, or the two sides are not paired.
    """
    among = among or candidates(video, text)
    score = partial(_scores, settings=settings)
    if settings.form == "paper":
        # Each direction is contrasted along its own queries, so nothing is computed that is not used.
        rows_VT = score(query=video, context=among.text)
        rows_TV = score(query=text, context=among.video)
        return _nce_both(rows_VT, rows_TV, settings, among.first)
    rows_VT = score(query=video, context=among.text) + score(query=among.text, context=video).T
    if settings.local_loss == "kl_row":
        return {"local_loss": _kl_row(rows_VT, settings.temperature, among.first)}
    if among.video is video:
        rows_TV = rows_VT.T
    else:
        rows_TV = score(query=text, context=among.video) + score(query=among.video, context=text).T
    return _nce_both(rows_VT, rows_TV, settings, among.first)


def _scores(*, query: Encoded, context: Encoded, settings: RegionWordSettings) -> Tensor:
    """[Q, C]: one direction. The rows are the items that ask."""
    check_comparable(query, context)
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


def _nce_both(rows_VT: Tensor, rows_TV: Tensor, settings: RegionWordSettings, first: int) -> dict[str, Tensor]:
    return {
        "local_v2l_loss": info_nce(rows_VT, settings.temperature, first),
        "local_l2v_loss": info_nce(rows_TV, settings.temperature, first),
    }


def _kl_row(score_VT: Tensor, temperature: float, first: int) -> Tensor:
    """The public local loss: mean over videos of KL(softmax of the row || one-hot + 1e-6).

    Reversed against cross-entropy: it is bounded, and fades for pairs that the model finds hopeless.
    """
    log_p_VT = (score_VT / temperature).log_softmax(1)
    truth_VT = torch.zeros_like(score_VT)
    truth_VT.diagonal(first).fill_(1)
    return (log_p_VT.exp() * (log_p_VT - (truth_VT + 1e-6).log())).sum(1).mean()
