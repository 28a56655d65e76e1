"""One golden case of the detector: its weights, its settings, and a record of how far off we are.

Source of everything here: the README beside the cases.
"""

from __future__ import annotations

import json
import logging
import math
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from regionvlp.extract.detector.detector import RegionDetector
from regionvlp.extract.detector.preprocess import Resize, plan_resize
from regionvlp.extract.detector.registry import DetectorFiles
from regionvlp.extract.detector.weights import load_weights

from .discovery import Case

Array = NDArray[Any]
log = logging.getLogger(__name__)

POOLERS = {"ROIPool": "roi_pool", "ROIAlignV2": "roi_align"}


@dataclass
class Differences:
    """Largest absolute difference by stage, and the complaints that they give rise to."""

    largest: dict[str, float] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)

    def within(self, stage: str, ours: Any, expected: Array, allowed: float) -> None:
        """Notes the largest difference of two arrays and complains above ``allowed`` (or on other shapes)."""
        found = np.asarray(ours)
        if found.shape != expected.shape:
            self.complaints.append(f"{stage}: shape {found.shape}, expected {expected.shape}")
            return
        worst = float(np.abs(found.astype(np.float64) - expected).max(initial=0))
        self.largest[stage] = max(worst, self.largest.get(stage, 0))
        if not worst <= allowed:
            self.complaints.append(f"{stage}: off by {worst:.3g}, allowed {allowed:g}")

    def equal(self, stage: str, ours: Any, expected: Array) -> None:
        """Complains unless two integer arrays are the same."""
        found = np.asarray(ours)
        if not np.array_equal(found, expected):
            self.complaints.append(f"{stage}: {found.tolist()}, expected {expected.tolist()}")

    def conclude(self, title: str) -> None:
        """Logs the differences (shown by ``pytest -rP --log-level=INFO``) and fails with all complaints at once."""
        table = "\n".join(f"{title} {stage:26} {worst:.1e}" for stage, worst in self.largest.items())
        log.info("largest differences\n%s", table)
        assert not self.complaints, "\n".join(["", *self.complaints, table])


class DetectorCase:
    """The arrays of a case and the detector that its weights make."""

    def __init__(self, case: Case, folder: Any, **settings: Any) -> None:
        """``folder`` is a temporary directory; ``settings`` are what the case's README says beside its config."""
        self.arrays = dict(np.load(case.path(".npz"), allow_pickle=False))
        self.config = json.loads(str(self.arrays.pop("config")))
        path = case.path(".weights.safetensors")
        if not path.exists():
            path = folder / "recipe.safetensors"
            save_file(recipe_state(self.config, load_file(case.path(".overrides.safetensors"))), path)
        self.weights = load_weights(DetectorFiles(source=case.stem, weights=path), self._overrides(settings))
        self.detector = RegionDetector(self.weights, device="cpu", precision="float32")
        self.images = range(self.config["images"])

    def _overrides(self, settings: dict[str, Any]) -> dict[str, Any]:
        config = self.config
        return {
            "input": {
                "mean_bgr": config["pixel_mean"],
                "short_side": config["short_side"],
                "long_side": config["long_side"],
                **settings.get("input", {}),
            },
            "rpn": {
                "candidates": config["pre_nms_topk"],
                "proposals": config["post_nms_topk"],
                "nms": config["rpn_nms"],
                "min_side": config["min_size"],
            },
            "head": {
                "pooler": POOLERS[config["pooler"]],
                "pool_size": config["pooler_resolution"],
                "sampling_ratio": config["sampling_ratio"],
                "box_weights": config["box_weights"],
            },
            "selection": settings.get("selection", {}),
        }

    def __getitem__(self, name: str) -> Array:
        return self.arrays[name]

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def tensor(self, name: str) -> torch.Tensor:
        """An expected array as a tensor, to be fed to the next stage."""
        return torch.from_numpy(self.arrays[name])

    def frame(self, image: int) -> NDArray[np.uint8]:
        """The picture as a decoder gives it: [H, W, 3], red-green-blue."""
        return np.ascontiguousarray(self[f"img{image}/image_bgr"][:, :, ::-1])

    def resize(self, image: int) -> Resize:
        """The resize of that picture."""
        height, width, _ = self[f"img{image}/image_bgr"].shape
        return plan_resize(height, width, self.detector.config.input)


def is_full_size(case: Case) -> bool:
    """True where the weights come from the recipe: such a case takes about a minute."""
    return not case.path(".weights.safetensors").exists()


def recipe_state(config: dict[str, Any], overrides: dict[str, Array]) -> dict[str, Array]:
    """The full-size weights: overrides, zeros for counters, and seeded uniform numbers for everything else."""
    state = {name: _recipe_value(name, shape, config, overrides) for name, shape in config["parameter_shapes"].items()}
    for name, (total, absolute) in config["weight_check"].items():
        value = state[name].astype(np.float64)
        assert math.isclose(value.sum(), total, rel_tol=1e-6, abs_tol=1e-6), name
        assert math.isclose(np.abs(value).sum(), absolute, rel_tol=1e-9), name
    return state


def _recipe_value(name: str, shape: list[int], config: dict[str, Any], overrides: dict[str, Array]) -> Array:
    if name in overrides:
        return overrides[name]
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    seeds = np.random.SeedSequence([config["weight_seed"], zlib.crc32(name.encode())])
    raw = np.random.PCG64(seeds).random_raw(math.prod(shape)) >> np.uint64(11)
    value = (2 * (raw.astype(np.float64) * 2.0**-53) - 1).reshape(shape)
    if name.endswith("norm.weight"):
        value = (1 + 0.2 * value) * (0.5 if ".conv3." in name else 1)
    elif name.endswith(".bias"):
        value = 0.1 * value
    elif not name.endswith("cls_embed.weight"):
        output = "objectness_logits" in name or "anchor_deltas" in name
        gain = math.sqrt(2) if len(shape) == 4 and not output else 1
        value = math.sqrt(3) * gain * value / math.sqrt(math.prod(shape[1:]))
    scale = config["weight_scale"].get(name)
    cast = value.astype(np.float32)
    return cast if scale is None else cast * np.float32(scale)
