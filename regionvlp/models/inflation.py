"""Fitting a checkpoint's embeddings to other numbers of frames, regions and patches.

In: one row per frame of the checkpoint. Out: one row per frame of the model. Source: the public DemoVLP and Frozen in
Time loaders, which know these three ways.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from regionvlp.errors import WeightsError
from regionvlp.models.settings import Inflation


def inflate_frames(rows_1FD: Tensor, frames: int, mode: Inflation = "zeros") -> Tensor:
    """Temporal rows [1, F, D] for ``frames`` frames.

    Fewer frames: the first rows. More frames: ``zeros`` appends zero rows (retrieval's default in the public code),
    ``nearest`` (in the public code ``interp``) takes the nearest row,
    ``bilinear`` goes linearly between rows with half-pixel centres.
    """
    have = rows_1FD.shape[1]
    if frames <= have:
        return rows_1FD[:, :frames]
    if mode == "zeros":
        return torch.cat((rows_1FD, rows_1FD.new_zeros(1, frames - have, rows_1FD.shape[2])), dim=1)
    if mode in ("nearest", "interp"):
        return rows_1FD[:, torch.arange(frames, device=rows_1FD.device) * have // frames]
    along_frames = functional.interpolate(rows_1FD.transpose(1, 2), size=frames, mode="linear", align_corners=False)
    return along_frames.transpose(1, 2)


def fit_regions(rows_1ND: Tensor, regions: int) -> Tensor:
    """Position rows [1, 1 + R, D] for another number of regions: the rows of regions, which nothing reads, become 0."""
    fitted = rows_1ND.new_zeros(1, 1 + regions, rows_1ND.shape[2])
    kept = min(rows_1ND.shape[1], fitted.shape[1])
    fitted[:, :kept] = rows_1ND[:, :kept]
    return fitted


def resize_positions(rows_1ND: Tensor, grid: tuple[int, int]) -> Tensor:
    """Position rows [1, 1 + N, D] of a square grid of patches for another grid: bicubic, row 0 (CLS) as it is.

    Raises:
        WeightsError: the rows are no square grid's, and not those of ``grid`` either.
    """
    count, side = rows_1ND.shape[1] - 1, math.isqrt(rows_1ND.shape[1] - 1)
    if count == grid[0] * grid[1] and (side * side != count or side == grid[0]):
        return rows_1ND
    if side * side != count:
        message = f"{count} positions of patches are no square grid, nor one of {grid[0]} x {grid[1]}"
        raise WeightsError(message, "set model.video.image_size to what the weights were trained with")
    square_1DSS = torch.unflatten(rows_1ND[:, 1:].transpose(1, 2), 2, (side, side))
    resized_1DN = functional.interpolate(square_1DSS, size=grid, mode="bicubic", align_corners=False).flatten(2)
    return torch.cat([rows_1ND[:, :1], resized_1DN.transpose(1, 2)], dim=1)
