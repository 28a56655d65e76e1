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

import torch
from torch import Tensor

from regionvlp.losses.contrastive import info_nce
from regionvlp.losses.gather import Candidates, candidates
from regionvlp.losses.region_word_lean import lean_scores
from regionvlp.losses.region_word_settings import RegionWordScores, RegionWordSettings
from regionvlp.losses.token_pairs import check_comparable, full_precision
from regionvlp.models.encoded import Encoded


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
    return pair_scores(video, text, settings)


def region_word_similarity(*, video: Encoded, text: Encoded, settings: RegionWordSettings) -> Tensor:
    """[texts, videos]: S_v2l + S_l2v, the local part of the similarity that retrieval ranks by; in [-2, 2]."""
    return _sum(pair_scores(video, text, settings)).T


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
    if settings.form == "paper":
        if among.video is video and among.text is text:
            scores = pair_scores(video, text, settings)
            return _nce_both(scores.v2l, scores.l2v.T, settings, among.first)
        # Each direction is contrasted along its own queries, so nothing is computed that is not used.
        rows_VT = pair_scores(video, among.text, settings, l2v=False).v2l
        rows_TV = pair_scores(among.video, text, settings, v2l=False).l2v.T
        return _nce_both(rows_VT, rows_TV, settings, among.first)
    rows_VT = _sum(pair_scores(video, among.text, settings))
    if settings.local_loss == "kl_row":
        return {"local_loss": kl_row(rows_VT, settings.temperature, among.first)}
    if among.video is video and among.text is text:
        rows_TV = rows_VT.T
    else:
        rows_TV = _sum(pair_scores(among.video, text, settings)).T
    return _nce_both(rows_VT, rows_TV, settings, among.first)


def pair_scores(
    video: Encoded, text: Encoded, settings: RegionWordSettings, *, v2l: bool = True, l2v: bool = True
) -> RegionWordScores:
    """Both scores of every pair, [videos, texts], by the fastest implementation that this device has.

    Args:
        v2l, l2v: False for a score that nobody asks for; it is then left as zeros.
    """
    check_comparable(video, text)
    with full_precision(video.tokens):
        return lean_scores(video, text, settings, v2l=v2l, l2v=l2v)


def _sum(scores: RegionWordScores) -> Tensor:
    return scores.v2l + scores.l2v


def _nce_both(rows_VT: Tensor, rows_TV: Tensor, settings: RegionWordSettings, first: int) -> dict[str, Tensor]:
    return {
        "local_v2l_loss": info_nce(rows_VT, settings.temperature, first),
        "local_l2v_loss": info_nce(rows_TV, settings.temperature, first),
    }


def kl_row(score_VT: Tensor, temperature: float, first: int) -> Tensor:
    """The public local loss: mean over videos of KL(softmax of the row || one-hot + 1e-6).

    Reversed against cross-entropy: it is bounded, and fades for pairs that the model finds hopeless.
    """
    log_p_VT = (score_VT / temperature).log_softmax(1)
    truth_VT = torch.zeros_like(score_VT)
    truth_VT.diagonal(first).fill_(1)
    return (log_p_VT.exp() * (log_p_VT - (truth_VT + 1e-6).log())).sum(1).mean()
