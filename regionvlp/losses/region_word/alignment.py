"""Bidirectional region-word alignment, the heart of DemoVLP (equations 6 to 12).

Two vectors can agree about a clip without any region agreeing with any word. This loss looks closer. For a pair of a
video and a caption, every region asks: *which words describe me?*

    attend   a_nl = softmax over words of <r_n, t_l>, where <,> is the cosine
    focus    keep only the words that get more than the average attention of this region
    read     alpha_n = sum of a_nl t_l over the words kept, t_l as it is: the caption as this region reads it
    agree    S_v2l = mean over regions of <r_n, alpha_n>

and S_v2l of the true pair is contrasted with other captions by InfoNCE. The same with roles swapped gives S_l2v: every
word asks for its regions, and the pair is contrasted with other videos. What is said of *queries* that ask and
*contexts* that answer serves both.

The public code computes something else under the same name. With c_m the unit vectors of the contexts, q_n those of
the queries (so that <,> is their inner product) and S the number of contexts:

    damp     b_mn = <c_m, q_n>, a tenth of it where negative
    norm     e_mn = b_mn / |b_m.|: a word that every region likes is liked less by each
    attend   p_n. = softmax over contexts of e_mn / temperature: 20 times sharper
    focus    keep p_nm > 1/S, padding counted in S
    agree    mean over queries of <q_n, sum of p_nm c_m> / |sum of p_nm c_m|, padding among the queries

The two directions are added, and the sum is contrasted from video to captions only, by a reverse KL. Both forms are
here, ``form: paper | public``; what counts as a token is a switch of its own. How all this is computed without B*B*N*D
numbers, and how it is differentiated, :mod:`regionvlp.losses.region_word.lean` tells.

Shape letters: V videos, T captions.
"""

from __future__ import annotations

import os
from functools import partial

import torch
from torch import Tensor

from regionvlp.errors import ConfigError, InputError
from regionvlp.losses.contrastive import info_nce
from regionvlp.losses.gather import Candidates, Contrast, this_batch
from regionvlp.losses.region_word.fused import fused_is_better, fused_obstacle, fused_scores
from regionvlp.losses.region_word.lean import lean_scores
from regionvlp.losses.region_word.settings import RegionWordScores, RegionWordSettings
from regionvlp.losses.token_pairs import check_comparable
from regionvlp.models.encoded import Encoded


def region_word_scores(
    *, video: Encoded, text: Encoded, settings: RegionWordSettings, v2l: bool = True, l2v: bool = True
) -> RegionWordScores:
    """Scores every video against every caption (any numbers of either).

    What computes them suits device and dtype; ``REGIONVLP_RWA=lean`` or ``fused`` in the environment takes the choice
    away (``auto`` leaves it).

    Defined results at the edges: a video without valid regions or a caption without valid words scores 0 with zero
    gradient; only where ``query_mean`` is padded is it treated as if it had no mask, as in the public code. A query of
    length 0, and one that has a single context to choose from while ``refine`` is on (nothing can be above the
    average of itself), contributes 0 with zero gradient; the public code gives NaN there. Hence a caption of one word
    scores 0 in v2l with refinement, in either form.

    Args:
        video: tokens [V, N, D] (regions), mask [V, N].
        text: tokens [T, W, D] (words, without CLS), mask [T, W].
        v2l, l2v: False for a score that nobody asks for; it is then left as zeros.

    Returns:
        Both [V, T], float32 (or float64 for float64 tokens).

    Raises:
        InputError: widths differ, a side is empty, or a token that is read is not finite. What stands in padding is
            read only where ``query_mean`` or ``query_norm`` is padded.
        ConfigError: the environment asks for the fused form where it cannot be had, or for no form at all.
    """
    check_comparable(video, text, padding_too=settings.reads_padding)
    return _scores(video, text, settings, v2l=v2l, l2v=l2v)


def region_word_similarity(*, video: Encoded, text: Encoded, settings: RegionWordSettings) -> Tensor:
    """[texts, videos]: S_v2l + S_l2v, the local part of the similarity that retrieval ranks by; in [-2, 2]."""
    return _sum(region_word_scores(video=video, text=text, settings=settings)).T


def region_word_loss(
    *, video: Encoded, text: Encoded, settings: RegionWordSettings, among: Candidates | None = None
) -> dict[str, Tensor]:
    """The local loss of a paired batch.

    ``nce_both`` gives ``local_v2l_loss`` (every video finds its caption) and ``local_l2v_loss`` (every caption finds
    its video); the paper contrasts S_v2l in the one and S_l2v in the other, the public form their sum in both.
    ``kl_row`` gives ``local_loss``.

    Args:
        video, text: see :func:`region_word_scores`, paired row by row.
        among: the candidates, where they are others than this batch (see :func:`regionvlp.losses.candidates`).

    Raises:
        InputError: the two sides are not paired, padding is counted and processes padded their tokens to different
            widths, or see :func:`region_word_scores`.
    """
    among = among or this_batch(video, text)
    if settings.counts_padding and not among.even:
        raise InputError(
            "this loss counts padding, and tokens came in different widths from different processes",
            "pad every batch to one width: data.pad_text=true, and regions untrimmed",
        )
    check_comparable(among.video, among.text, padding_too=settings.reads_padding)
    return among.mean(partial(_loss, settings=settings), video, text)


def _loss(group: Contrast, settings: RegionWordSettings) -> dict[str, Tensor]:
    """The loss of one group, whose tokens can be compared."""
    video, text = group.video, group.text
    if settings.form == "paper":
        if group.closed:
            scores = _scores(video, text, settings)
            return _nce_both(scores.v2l, scores.l2v.T, settings, group)
        # Each direction is contrasted along its own queries, so nothing is computed that is not used.
        rows_VT = _scores(video, group.among_text, settings, l2v=False).v2l
        rows_TV = _scores(group.among_video, text, settings, v2l=False).l2v.T
        return _nce_both(rows_VT, rows_TV, settings, group)
    rows_VT = _sum(_scores(video, group.among_text, settings))
    if settings.local_loss == "kl_row":
        return {"local_loss": kl_row(rows_VT, settings.temperature, group.first, group.same)}
    rows_TV = rows_VT.T if group.closed else _sum(_scores(group.among_video, text, settings)).T
    return _nce_both(rows_VT, rows_TV, settings, group)


def _scores(
    video: Encoded, text: Encoded, settings: RegionWordSettings, *, v2l: bool = True, l2v: bool = True
) -> RegionWordScores:
    fused = _takes_fused(video, text, settings, v2l=v2l, l2v=l2v)
    return (fused_scores if fused else lean_scores)(video, text, settings, v2l=v2l, l2v=l2v)


def _takes_fused(video: Encoded, text: Encoded, settings: RegionWordSettings, **directions: bool) -> bool:
    form = os.environ.get("REGIONVLP_RWA") or "auto"
    if form == "auto":
        return fused_is_better(video, text, settings, **directions)
    if form not in ("lean", "fused"):
        raise ConfigError(f"REGIONVLP_RWA is {form!r}", "auto, lean or fused")
    obstacle = fused_obstacle(video, text) if form == "fused" else None
    if obstacle is not None:
        raise ConfigError(f"REGIONVLP_RWA asks for the fused form: {obstacle}", "auto takes the lean form there")
    return form == "fused"


def _sum(scores: RegionWordScores) -> Tensor:
    """[V, T]"""
    return scores.v2l + scores.l2v


def _nce_both(rows_VT: Tensor, rows_TV: Tensor, settings: RegionWordSettings, group: Contrast) -> dict[str, Tensor]:
    return {
        "local_v2l_loss": info_nce(rows_VT, settings.temperature, group.first, group.same),
        "local_l2v_loss": info_nce(rows_TV, settings.temperature, group.first, group.same),
    }


def kl_row(score_VT: Tensor, temperature: float, first: int, same_VT: Tensor | None = None) -> Tensor:
    """The public local loss: mean over videos of KL(softmax of the row || one-hot + 1e-6).

    Reversed against cross-entropy: it is bounded, and fades for pairs that the model finds hopeless. Captions marked in
    ``same_VT``, being no negatives, are in neither distribution.
    """
    logit_VT = score_VT / temperature
    if same_VT is not None:
        logit_VT = logit_VT.masked_fill(same_VT, torch.finfo(logit_VT.dtype).min)  # p is 0, and p log p, too
    log_p_VT = logit_VT.log_softmax(1)
    truth_VT = torch.zeros_like(score_VT)
    truth_VT.diagonal(first).fill_(1)
    return (log_p_VT.exp() * (log_p_VT - (truth_VT + 1e-6).log())).sum(1).mean()
