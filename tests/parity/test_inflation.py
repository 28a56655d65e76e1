"""Temporal embeddings for another number of frames, against golden numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from regionvlp.models.inflation import inflate_frames

from .demovlp_case import close
from .discovery import Case, cases


@pytest.mark.parametrize("case", cases("demovlp", "temporal_inflation"))
def test_inflation(case: Case) -> None:
    with np.load(case.path(".npz"), allow_pickle=False) as arrays:
        names = [name.removeprefix("in_") for name in arrays if name.startswith("in_")]
        assert names
        for name in names:
            _, frames, mode = name.split("_")
            found = inflate_frames(torch.from_numpy(arrays[f"in_{name}"]), int(frames), mode)  # type: ignore[arg-type]
            close(found, torch.from_numpy(arrays[f"out_{name}"]), 1e-6)
