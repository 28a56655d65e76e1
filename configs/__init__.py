"""The shipped configurations, by stage, and how to find one by its name."""

from __future__ import annotations

from pathlib import Path


def find_config(path: Path) -> Path:
    """``path`` itself, or, where nothing lies there, the shipped configuration of that name (``demo.yaml``)."""
    if path.exists() or len(path.parts) != 1:
        return path
    return next(iter(sorted(Path(__file__).parent.rglob(path.name))), path)
