"""The region detector: Visual Genome Faster R-CNN, every public convention as data.

Importing this package does not import torch; the detector itself does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from regionvlp.extract.detector.config import FAMILIES, DetectorConfig
from regionvlp.extract.detector.registry import NAMES, default_weights_dir, find_detector, weights_status

if TYPE_CHECKING:
    from regionvlp.extract.detector.detector import RegionDetector as RegionDetector

__all__ = [
    "FAMILIES",
    "NAMES",
    "DetectorConfig",
    "RegionDetector",
    "default_weights_dir",
    "find_detector",
    "weights_status",
]


def __getattr__(name: str) -> Any:
    if name == "RegionDetector":
        return importlib.import_module("regionvlp.extract.detector.detector").RegionDetector
    raise AttributeError(f"module 'regionvlp.extract.detector' has no attribute '{name}'")
