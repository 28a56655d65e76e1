"""What ``bench rwa`` compares with: the public form of region-word alignment, written out caption by caption.

Each caption is laid beside every video. Attended vectors are formed for every query, and their cosine with the query
is taken; autograd keeps whatever it needs. As in the public code the additive masks are float64, which draws the
attention of float32 tokens into float64.

Shape letters: V videos of N regions, T captions of W words, D joint width; Q queries and C contexts of a pair.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from regionvlp.losses import RegionWordScores, RegionWordSettings
from regionvlp.models import Encoded

_EPSILON = 1e-8


def expanded_scores(video: Encoded, text: Encoded, settings: RegionWordSettings) -> RegionWordScores:
    """[V, T] both, with contexts and queries expanded to all videos, and ``cosine_similarity``."""
    region_mask, word_mask = _additive(video.mask), _additive(text.mask)
    v2l: list[Tensor] = []
    l2v: list[Tensor] = []
    for caption in range(len(text)):
        words, mask = (x[caption].expand(len(video), *x.shape[1:]).contiguous() for x in (text.tokens, word_mask))
        v2l.append(_read(video.tokens, region_mask, words, mask, settings))
        l2v.append(_read(words, mask, video.tokens, region_mask, settings))
    return RegionWordScores(torch.stack(v2l, 1), torch.stack(l2v, 1))


def _read(
    query_VQD: Tensor, query_mask: Tensor, context_VCD: Tensor, context_mask: Tensor, settings: RegionWordSettings
) -> Tensor:
    """[V]: every step for these pairs alone, unit vectors included."""
    query_unit, context_unit = _unit(query_VQD, -1), _unit(context_VCD, -1)
    cosine_VQC = torch.bmm(query_unit, context_unit.transpose(1, 2))
    weight_VQC = _attention(cosine_VQC, context_mask, query_mask, settings)
    return functional.cosine_similarity(query_VQD, torch.bmm(weight_VQC, context_unit), dim=-1).mean(1)


def einsum_scores(video: Encoded, text: Encoded, settings: RegionWordSettings) -> RegionWordScores:
    """[V, T] both, with nothing expanded: one product for both directions, cosines from inner products and norms."""
    region_unit, word_unit = _unit(video.tokens, -1), _unit(text.tokens, -1)
    region_length, word_length = video.tokens.norm(dim=-1), text.tokens.norm(dim=-1)
    region_mask, word_mask = _additive(video.mask), _additive(text.mask)
    v2l: list[Tensor] = []
    l2v: list[Tensor] = []
    for words, length_W, unit_WD, mask_W in zip(text.tokens, word_length, word_unit, word_mask, strict=True):
        cosine_VNW = torch.einsum("vnd,wd->vnw", region_unit, unit_WD)
        weight_VNW = _attention(cosine_VNW, mask_W[None], region_mask, settings)
        read_VND = torch.einsum("vnw,wd->vnd", weight_VNW, unit_WD)
        along_VN = torch.einsum("vnd,vnd->vn", read_VND, video.tokens)
        v2l.append((along_VN / (read_VND.norm(dim=-1) * region_length).clamp_min(_EPSILON)).mean(1))
        weight_VWN = _attention(cosine_VNW.transpose(1, 2), region_mask, mask_W[None], settings)
        read_VWD = torch.einsum("vwn,vnd->vwd", weight_VWN, region_unit)
        along_VW = torch.einsum("vwd,wd->vw", read_VWD, words)
        l2v.append((along_VW / (read_VWD.norm(dim=-1) * length_W).clamp_min(_EPSILON)).mean(1))
    return RegionWordScores(torch.stack(v2l, 1), torch.stack(l2v, 1))


def _attention(cosine_VQC: Tensor, context_mask: Tensor, query_mask: Tensor, settings: RegionWordSettings) -> Tensor:
    """[V, Q, C]"""
    normed_VQC = _unit(functional.leaky_relu(cosine_VQC, 0.1), 1)
    logit_VQC = normed_VQC + query_mask[..., None] + context_mask[:, None]
    attention_VQC = (logit_VQC / settings.temperature).softmax(-1)
    if settings.refine:
        above_VQC = attention_VQC * attention_VQC.shape[-1] - attention_VQC.sum(-1, keepdim=True) > 0
        attention_VQC = attention_VQC * above_VQC.to(attention_VQC.dtype)
        attention_VQC = attention_VQC / attention_VQC.sum(-1, keepdim=True)
    return attention_VQC.to(cosine_VQC.dtype)


def _unit(x: Tensor, dim: int) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(x, dim=dim, keepdim=True)
    return x / (length + _EPSILON)


def _additive(mask: Tensor) -> Tensor:
    return (mask.double() - 1) * 100
