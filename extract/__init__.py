"""The factory: from video files to region shards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from regionvlp.extract.detector import RegionDetector as RegionDetector


def __getattr__(name: str) -> Any:
    if name == "RegionDetector":  # brings torch along, so only when asked for
        from regionvlp.extract.detector import RegionDetector

        return RegionDetector
    raise AttributeError(f"module 'regionvlp.extract' has no attribute '{name}'")
