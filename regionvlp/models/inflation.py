"""Fitting a checkpoint's embeddings to other numbers of frames and regions.

In: one row per frame of the checkpoint. Out: one row per frame of the model. Source: the public DemoVLP and Frozen in
Time loaders, which know these three ways.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from regionvlp.models.settings import Inflation


def inflate_frames(rows_1FD: Tensor, frames: int, mode: Inflation = "zeros") -> Tensor:
    """Temporal rows [1, F, D] for ``frames`` frames.

    Fewer frames: the first rows. More frames: ``zeros`` appends zero rows (retrieval's default in the public code),
    ``interp`` takes the nearest row, ``bilinear`` goes linearly between rows with half-pixel centres.
    """
    have = rows_1FD.shape[1]
    if frames <= have:
        return rows_1FD[:, :frames]
    if mode == "zeros":
        return torch.cat((rows_1FD, rows_1FD.new_zeros(1, frames - have, rows_1FD.shape[2])), dim=1)
    if mode == "interp":
        return rows_1FD[:, torch.arange(frames, device=rows_1FD.device) * have // frames]
    along_frames = functional.interpolate(rows_1FD.transpose(1, 2), size=frames, mode="linear", align_corners=False)
    return along_frames.transpose(1, 2)


def fit_regions(rows_1ND: Tensor, regions: int) -> Tensor:
    """Position rows [1, 1 + R, D] for another number of regions: the rows of regions, which nothing reads, become 0."""
    fitted = rows_1ND.new_zeros(1, 1 + regions, rows_1ND.shape[2])
    kept = min(rows_1ND.shape[1], fitted.shape[1])
    fitted[:, :kept] = rows_1ND[:, :kept]
    return fitted
