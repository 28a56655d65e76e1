"""Which detectors there are, by name, and which files a name or a path stands for. Free of torch.

A detector on disk is a folder with

* ``detector.yaml``: ``family`` (``caffe``, ``maxnms``, ``d2``), any key of
  :class:`~regionvlp.extract.detector.config.DetectorConfig` that differs from the family's value, and, for a detector
  without weights, ``random_seed``;
* a weights file: ``model.safetensors``, or the only ``*.safetensors``, ``*.pth``, ``*.pt`` or ``*.bin`` there;
* optionally ``objects.txt`` and ``attributes.txt``, one class a line.

A weights file by itself also is a detector: its family and sizes are read from its keys and shapes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from regionvlp.config import read_yaml
from regionvlp.errors import ConfigError, RegionVLPError, WeightsError, nearest

WEIGHTS_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
SETTINGS_NAME = "detector.yaml"

VG_CAFFE = "vg-caffe"
# The names under which MILVLG handed its Caffe ResNet-101 out.
_ORIGINAL_NAMES = ("bua-caffe-frcn-r101-k10-100.pth", "bua-caffe-frcn-r101_with_attributes.pth")
_HOW_TO_GET = (
    "put MILVLG's bua-caffe-frcn-r101-k10-100.pth (linked from the README of MILVLG/bottom-up-attention.pytorch) "
    "into {folder}, or give a local file with --detector PATH, or try everything with --detector toy"
)
NAMES = {
    "auto": "vg-caffe where its file lies",
    "toy": "a tiny detector that comes with the package",
    VG_CAFFE: "the Visual Genome Faster R-CNN ResNet-101 (MILVLG, Caffe), from a local file",
}


@dataclass(frozen=True)
class DetectorFiles:
    """What a name or a path stands for.

    Attributes:
        source: how errors call the detector's settings. weights: None where they are drawn from ``random_seed``.
        family: None where the weights must show it. settings: overrides of the family's configuration.
        objects, attributes: the vocabularies, where the folder has them.
    """

    source: str
    weights: Path | None
    family: str | None = None
    random_seed: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    objects: Path | None = None
    attributes: Path | None = None


def default_weights_dir() -> Path:
    """``$REGIONVLP_WEIGHTS``, else ``~/.cache/regionvlp/weights``."""
    named = os.environ.get("REGIONVLP_WEIGHTS")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "regionvlp" / "weights"


def find_detector(name_or_path: str, weights_dir: Path | None = None) -> DetectorFiles:
    """Finds a detector's files; nothing large is read.

    Args:
        name_or_path: one of :data:`NAMES`, a folder, or a weights file.
        weights_dir: where ``vg-caffe`` is looked for; :func:`default_weights_dir` if None.

    Raises:
        WeightsError: there is no such name or path, or the weights are not there.
        ConfigError: ``detector.yaml`` cannot be read.
    """
    folder = weights_dir or default_weights_dir()
    if name_or_path in ("auto", VG_CAFFE):
        found = _find_vg_caffe(folder)
        if found is None:
            raise WeightsError(f"no weights for detector '{VG_CAFFE}' in {folder}", _HOW_TO_GET.format(folder=folder))
        return _open(found)
    if name_or_path == "toy":
        return _open(bundled_dir("toy"))
    path = Path(name_or_path).expanduser()
    if path.exists():
        return _open(path)
    if path.suffix in WEIGHTS_SUFFIXES or len(path.parts) > 1:
        raise WeightsError(f"there is no detector at {path}", "check the path")
    hint = nearest(name_or_path, NAMES) or f"known names: {', '.join(NAMES)}; or give the path of a weights file"
    raise WeightsError(f"unknown detector '{name_or_path}'", hint)


def weights_status(weights_dir: Path | None = None) -> list[dict[str, Any]]:
    """Which detectors can be used now: one ``{"name", "usable", "what", "where", "hint"}`` per name but ``auto``.

    ``where`` is the file or folder (None where there is none); ``hint`` says how to get a detector that is missing.
    """
    folder = weights_dir or default_weights_dir()
    missing = _HOW_TO_GET.format(folder=folder)
    rows = []
    for name, where in {"toy": bundled_dir("toy"), VG_CAFFE: _find_vg_caffe(folder)}.items():
        hint = missing if where is None else _fault(where)
        place = str(where) if where else None
        rows.append({"name": name, "usable": not hint, "what": NAMES[name], "where": place, "hint": hint})
    return rows


def bundled_dir(name: str) -> Path:
    """The folder of a detector that comes with the package."""
    return Path(str(resources.files("regionvlp.configs") / "extract" / "detectors" / name))


def _find_vg_caffe(folder: Path) -> Path | None:
    names = (VG_CAFFE, *(VG_CAFFE + suffix for suffix in WEIGHTS_SUFFIXES), *_ORIGINAL_NAMES)
    return next((folder / name for name in names if (folder / name).exists()), None)


def _fault(path: Path) -> str:
    """What keeps the detector at ``path`` from being opened, or nothing."""
    try:
        _open(path)
    except RegionVLPError as error:
        return str(error)
    return ""


def _open(path: Path) -> DetectorFiles:
    if path.is_file():
        if path.suffix not in WEIGHTS_SUFFIXES:
            raise WeightsError(f"{path} is not a weights file", f"expected one of {', '.join(WEIGHTS_SUFFIXES)}")
        return DetectorFiles(source=str(path), weights=path)
    settings_path = path / SETTINGS_NAME
    settings = read_yaml(settings_path) if settings_path.exists() else {}
    family, seed = settings.pop("family", None), settings.pop("random_seed", None)
    if family is not None and not isinstance(family, str):
        raise ConfigError(f"family = {family!r} in {settings_path}: not a name", "correct 'family'")
    if seed is not None and (not isinstance(seed, int) or seed < 0):
        raise ConfigError(
            f"random_seed = {seed!r} in {settings_path}: not a whole number from 0", "correct 'random_seed'"
        )
    weights = _only_weights_file(path)
    if weights is None and seed is None:
        raise WeightsError(f"the detector folder {path} holds no weights", "put model.safetensors or a .pth file there")
    return DetectorFiles(
        source=str(settings_path if settings_path.exists() else path),
        weights=weights,
        family=family,
        random_seed=seed,
        settings=settings,
        objects=_existing(path / "objects.txt"),
        attributes=_existing(path / "attributes.txt"),
    )


def _only_weights_file(folder: Path) -> Path | None:
    preferred = folder / "model.safetensors"
    if preferred.exists():
        return preferred
    found = sorted(path for path in folder.iterdir() if path.suffix in WEIGHTS_SUFFIXES)
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise WeightsError(f"{folder} holds several weights files: {names}", "keep one, or call one model.safetensors")
    return found[0] if found else None


def _existing(path: Path) -> Path | None:
    return path if path.exists() else None
