"""Other ways to compare tokens with tokens, which DemoVLP is ablated against (its tables 4 and 5).

FILIP (Yao et al., 2022) lets every token pick its single best partner; there is no attention and no focusing.
TACo (Yang et al., 2021) contrasts single content words: which of the videos shows this noun or verb?

Shape letters: V videos of N regions, T captions of W words, B pairs; Q query items of N tokens, C context items of M.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from regionvlp.errors import InputError
from regionvlp.losses.contrastive import info_nce
from regionvlp.losses.gather import Candidates, Contrast, this_batch
from regionvlp.losses.region_word.settings import RegionWordScores
from regionvlp.losses.temperature import check_temperature
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


def filip_scores(*, video: Encoded, text: Encoded) -> RegionWordScores:
    """FILIP's token-wise maximum similarity, both scores [videos, texts].

    v2l is the mean over valid regions of the best cosine with a valid word, l2v the mean over valid words of the best
    with a valid region. An item without valid tokens scores 0 with zero gradient.

    Raises:
        InputError: widths differ, a side is empty, or a valid token is not finite.
    """
    check_comparable(video, text)
    v2l_VT = _best_match(query=video, context=text)
    l2v_TV = _best_match(query=text, context=video)
    return RegionWordScores(v2l_VT, l2v_TV.T)


def filip_similarity(*, video: Encoded, text: Encoded) -> Tensor:
    """[texts, videos]: the sum of both scores."""
    scores = filip_scores(video=video, text=text)
    return (scores.v2l + scores.l2v).T


def filip_loss(
    *, video: Encoded, text: Encoded, temperature: float = 0.05, among: Candidates | None = None
) -> dict[str, Tensor]:
    """``local_v2l_loss`` and ``local_l2v_loss``: InfoNCE over captions on v2l, over videos on l2v.

    Args:
        video, text: tokens [B, N, D] and [B, W, D], paired row by row.
        temperature: of both contrasts.
        among: the candidates, where they are others than this batch (see :func:`regionvlp.losses.candidates`).

    Raises:
        InputError: the two sides are not paired, or see :func:`filip_scores`.
    """
    among = among or this_batch(video, text)
    check_comparable(among.video, among.text)

    def contrast(group: Contrast) -> dict[str, Tensor]:
        rows_VT = _best_match(query=group.video, context=group.among_text)
        rows_TV = _best_match(query=group.text, context=group.among_video)
        return {
            "local_v2l_loss": info_nce(rows_VT, temperature, group.first, group.same),
            "local_l2v_loss": info_nce(rows_TV, temperature, group.first, group.same),
        }

    return among.mean(contrast, video, text)


def taco_token_loss(
    *, video: Encoded, text: Encoded, word_weight: Tensor, temperature: float = 0.05, among: Candidates | None = None
) -> dict[str, Tensor]:
    """``taco_token_loss``: each content word finds its video by the best of the video's regions.

    The token-aware term of TACo; its fusion layers have no place in a model of two towers. The loss is the weighted
    mean over all content words, 0 where there are none: over those of a group of candidates, then over the groups, and
    with several processes the mean of their losses is that of all. A video without valid regions shows no word: its
    best cosine counts as 0, with zero gradient.

    Args:
        video, text: tokens [B, N, D] and [B, W, D], paired row by row.
        word_weight: [B, W] float, a word's inverse document frequency if it is a noun or verb, 0 if it is not.
        temperature: of the contrast, at least 0.0001.
        among: the candidates, where they are others than this batch (see :func:`regionvlp.losses.candidates`).

    Raises:
        InputError: ``word_weight`` has another shape than the words, or a word's weight is negative or no number;
            the two sides are not paired, their widths differ, a valid token is not finite, or the temperature is too
            low.
    """
    check_temperature(temperature)
    if word_weight.shape != text.mask.shape:
        shapes = f"{tuple(word_weight.shape)} for words {tuple(text.mask.shape)}"
        raise InputError(f"word_weight of shape {shapes}", "one weight per word, CLS left out")
    weight_BW = word_weight.masked_fill(~text.mask, 0)
    if not (weight_BW.isfinite() & (weight_BW >= 0)).all():
        raise InputError("word_weight holds negative, infinite or NaN weights", "weigh words by 0 or more")
    among = among or this_batch(video, text)
    check_comparable(among.video, among.text)
    weight_BW = weight_BW.to(torch.promote_types(text.tokens.dtype, torch.float32))
    totals = iter(among.totals(weight_BW.sum(1)))

    def contrast(group: Contrast) -> dict[str, Tensor]:
        # Of a group's words, this process's share of its captions has so many by rights; with more it counts for more.
        due = next(totals) * (len(group.text) / len(group.among_text))
        surprise_QW = _surprise(group, temperature)
        return {"taco_token_loss": (surprise_QW * weight_BW[group.rows]).sum() / due.clamp_min(1e-8)}

    return among.mean(contrast, video, text)


def _surprise(group: Contrast, temperature: float) -> Tensor:
    """[Q, W]: of each word, how little its best regions tell its video from the others."""
    with full_precision(group.text.tokens):
        logits_QCW = in_blocks(_best_context, unit_tokens(group.text), _answering(group.among_video)) / temperature
    if group.same is not None:
        logits_QCW = logits_QCW.masked_fill(group.same[..., None], -math.inf)
    truth_Q = torch.arange(group.first, group.first + len(group.text), device=logits_QCW.device)
    truth_QW = truth_Q[:, None].expand(-1, logits_QCW.shape[2])
    return functional.cross_entropy(logits_QCW, truth_QW, reduction="none")


def taco_similarity(*, video: Encoded, text: Encoded) -> Tensor:
    """[texts, videos]: mean over a caption's words, all alike, of the best cosine with a region (0 without words).

    Raises:
        InputError: see :func:`filip_scores`.
    """
    check_comparable(video, text)
    return _best_match(query=text, context=video)


def _best_match(*, query: Encoded, context: Encoded) -> Tensor:
    """[Q, C]: mean over query tokens of the best cosine with a context token."""

    def score(queries: UnitTokens, contexts: UnitTokens) -> Tensor:
        return masked_mean(_best_context(queries, contexts), queries.mask)

    with full_precision(query.tokens):
        return in_blocks(score, unit_tokens(query), _answering(context))


def _answering(context: Encoded) -> UnitTokens:
    """At least one token wide, since there is no best of none."""
    return unit_tokens(context.pad_to(max(1, context.mask.shape[1])))


def _best_context(query: UnitTokens, context: UnitTokens) -> Tensor:
    """[Q, C, N]: best cosine of each query token with a real context token; 0 where an item has none.

    The gradient goes to the best one alone, the first of equals (``amax`` would share it out).
    """
    cosine_CMQN = pair_cosines(query, context)
    lowest = torch.finfo(cosine_CMQN.dtype).min
    best_CQN = cosine_CMQN.masked_fill(~context.mask[:, :, None, None], lowest).max(1).values
    return best_CQN.where(context.mask.any(1)[:, None, None], 0).transpose(0, 1)
