"""Finds out what kind of source an argument of ``--videos`` is."""

from __future__ import annotations

import os
from pathlib import Path

from regionvlp.extract.sources.source import Source


def open_source(videos: str | Path) -> Source:
    """The source that ``videos`` names. Nothing is listed yet.

    Args:
        videos: a folder of videos and images, or one file.
    """
    path = os.path.abspath(videos)
    return Source("folder", path, os.path.dirname(path) if os.path.isfile(path) else path)
