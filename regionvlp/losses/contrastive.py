"""Global contrast: a clip against a caption, one vector each (DemoVLP, equations 4 and 5).

Shape letters: B paired items, D joint width.
In: ``Encoded.pooled`` of both sides. Out: InfoNCE in both directions, and the similarity that retrieval ranks by.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from regionvlp.errors import InputError
from regionvlp.losses.gather import Candidates, Contrast, this_batch
from regionvlp.losses.temperature import check_temperature
from regionvlp.losses.token_pairs import check_pooled, full_precision, widen
from regionvlp.models.encoded import Encoded


def global_contrast(
    *, video: Encoded, text: Encoded, temperature: float = 0.05, among: Candidates | None = None
) -> dict[str, Tensor]:
    """``global_loss``: every caption finds its video, every video its caption.

    The sum (not the average) of the two directions, each a mean over this process's items: DemoVLP, equations 4
    and 5. A batch of one item has loss 0.

    Args:
        video, text: ``pooled`` [B, D] each, paired row by row.
        temperature: what cosines are divided by, at least 0.0001.
        among: the candidates, where they are others than this batch (see :func:`regionvlp.losses.candidates`).

    Raises:
        InputError: widths differ, the two sides are not paired, a vector is not finite, or the temperature is too low.
    """
    among = among or this_batch(video, text)
    check_pooled(among.video, among.text)

    def contrast(group: Contrast) -> dict[str, Tensor]:
        similarity_TV = _cosines(group.among_video, group.text)
        rows_VT = similarity_TV.T if group.closed else _cosines(group.video, group.among_text).T
        text_rows = info_nce(similarity_TV, temperature, group.first, group.same)
        return {"global_loss": text_rows + info_nce(rows_VT, temperature, group.first, group.same)}

    return among.mean(contrast, video, text)


def global_similarity(*, video: Encoded, text: Encoded) -> Tensor:
    """[texts, videos]: cosine of the pooled vectors, norms floored at 1e-8; a zero vector is similar to nothing (0).

    Raises:
        InputError: widths differ, a side is empty, or a vector is not finite.
    """
    check_pooled(video, text)
    return _cosines(video, text)


def _cosines(video: Encoded, text: Encoded) -> Tensor:
    """[texts, videos]"""
    with full_precision(video.pooled):
        text_TD = functional.normalize(widen(text.pooled), dim=-1, eps=1e-8)
        video_VD = functional.normalize(widen(video.pooled), dim=-1, eps=1e-8)
        return text_TD @ video_VD.T


def max_margin(similarity_BB: Tensor, margin: float = 0.2, *, with_truth: bool = False) -> Tensor:
    """Mean over both directions of ``max(0, margin + similarity to another - similarity to the own one)``.

    Frozen in Time's other loss, for comparisons: no pair pulls harder than its margin.

    Args:
        similarity_BB: [B, B], item i of one side belongs to item i of the other.
        margin: how far ahead the own one shall be.
        with_truth: average over the pairs themselves as well, each of which counts as ``margin`` in both directions, as
            the public code does where it is not told otherwise.

    Raises:
        InputError: the matrix is not square.
    """
    if similarity_BB.ndim != 2 or similarity_BB.shape[0] != similarity_BB.shape[1]:
        raise InputError(f"similarities of shape {list(similarity_BB.shape)}", "pair the two sides item by item")
    behind = torch.stack([similarity_BB, similarity_BB.T]) - similarity_BB.diagonal()[:, None]
    over = (behind + margin).clamp(min=0)
    if with_truth:
        return over.mean()
    others = ~torch.eye(len(similarity_BB), dtype=torch.bool, device=over.device)
    return over[:, others].mean() if len(similarity_BB) > 1 else over.sum() * 0


def info_nce(similarity_QC: Tensor, temperature: float, first: int = 0, same_QC: Tensor | None = None) -> Tensor:
    """Mean over queries of ``-log softmax(similarity / temperature)`` at the true candidate.

    Args:
        similarity_QC: [queries, candidates].
        temperature: at least 0.0001.
        first: the candidate that belongs to query 0; query i belongs to ``first + i``.
        same_QC: [queries, candidates] bool, those that are left out, being no negatives; None for none.

    Raises:
        InputError: the temperature is too low, or no number.
    """
    check_temperature(temperature)
    truth = torch.arange(first, first + len(similarity_QC), device=similarity_QC.device)
    logits_QC = similarity_QC / temperature
    if same_QC is not None:
        logits_QC = logits_QC.masked_fill(same_QC, -math.inf)
    return functional.cross_entropy(logits_QC, truth)
