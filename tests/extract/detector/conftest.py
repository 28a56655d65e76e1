"""A detector small enough for hundreds of runs, its state in the public names, and pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from regionvlp.config import load_config
from regionvlp.extract.detector import FAMILIES, RegionDetector
from regionvlp.extract.detector.config import DetectorConfig
from regionvlp.extract.detector.random_weights import random_state

TINY: dict[str, Any] = {
    "input": {"short_side": 96, "long_side": 160},
    "backbone": {"blocks": [1, 2, 1, 1], "stem": 8, "bottleneck": 4, "channels": 16},
    "rpn": {"width": 24, "min_side": 4, "candidates": 500, "proposals": 40},
    "head": {"pool_size": 6, "classes": 20, "attributes": 7, "embedding": 12, "hidden": 16},
}
# Our names of the attribute head's parts, as each family's public code calls them.
_NATIVE = {
    "caffe": ("box_predictor.cls_embed", "box_predictor.attr_linear1", "box_predictor.attr_linear2"),
    "maxnms": ("box_predictor.cls_embedding", "box_predictor.fc_attr", "box_predictor.attr_score"),
    "d2": ("attribute_predictor.obj_embed", "attribute_predictor.fc.0", "attribute_predictor.attr_score"),
}
State = dict[str, torch.Tensor]


@pytest.fixture(autouse=True, scope="session")
def two_threads() -> None:
    torch.set_num_threads(2)


@pytest.fixture
def tiny_config() -> Callable[..., DetectorConfig]:
    """Any family at a tiny size, with overrides on top."""

    def make(family: str = "caffe", **overrides: Any) -> DetectorConfig:
        return load_config(DetectorConfig, FAMILIES[family].model_dump(), TINY, overrides)

    return make


@pytest.fixture
def native_state(tiny_config: Callable[..., DetectorConfig]) -> Callable[..., State]:
    """Random weights of a tiny detector under the names of its family's public code."""

    def make(family: str = "caffe") -> State:
        parts = zip(("embedding", "hidden", "score"), _NATIVE[family], strict=True)
        renamed = {f"roi_heads.attribute_head.{ours}.": f"roi_heads.{native}." for ours, native in parts}
        state: State = {}
        for name, value in random_state(tiny_config(family), seed=3).items():
            native = next((new + name.removeprefix(old) for old, new in renamed.items() if name.startswith(old)), name)
            state[native] = torch.from_numpy(value)
        return state

    return make


@pytest.fixture
def tiny_file(native_state: Callable[..., State], tmp_path: Path) -> Path:
    """A bare weights file of a tiny ``caffe`` detector."""
    path = tmp_path / "tiny.safetensors"
    save_file(native_state(), path)
    return path


@pytest.fixture
def tiny(tiny_file: Path) -> RegionDetector:
    """A tiny ``caffe`` detector on the CPU."""
    return RegionDetector.load(str(tiny_file), device="cpu", precision="float32", overrides=TINY)


@pytest.fixture
def picture() -> Callable[..., NDArray[np.uint8]]:
    """A smooth colourful picture [H, W, 3]; the seed decides which."""

    def make(seed: int = 0, height: int = 90, width: int = 120) -> NDArray[np.uint8]:
        rng = np.random.default_rng(seed)
        coarse = rng.integers(0, 256, (-(-height // 10), -(-width // 10), 3), dtype=np.uint8)
        return np.ascontiguousarray(coarse.repeat(10, axis=0).repeat(10, axis=1)[:height, :width])

    return make
