"""The three ways to more frames, on rows that count."""

from __future__ import annotations

import torch

from regionvlp.models.inflation import inflate_frames

ROWS = torch.tensor([[[0.0], [10.0]]])


def test_every_way() -> None:
    assert inflate_frames(ROWS, 1).flatten().tolist() == [0]
    assert inflate_frames(ROWS, 4, "zeros").flatten().tolist() == [0, 10, 0, 0]
    assert inflate_frames(ROWS, 4, "interp").flatten().tolist() == [0, 0, 10, 10]
    assert inflate_frames(ROWS, 4, "bilinear").flatten().tolist() == [0, 2.5, 7.5, 10]
    assert inflate_frames(ROWS[:, 1:], 3, "bilinear").flatten().tolist() == [10, 10, 10]
