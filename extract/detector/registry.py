"""Which files a detector's name or path stands for. Free of torch; what the names mean is in ``catalogue``.

A detector on disk is a folder with

* ``detector.yaml``: ``family`` (``caffe``, ``maxnms``, ``d2``), any key of
  :class:`~regionvlp.extract.detector.config.DetectorConfig` that differs from the family's value; ``sha256`` of the
  weights, which are then checked; ``origin``, notes on where they come from; and, for a detector without weights,
  ``random_seed``;
* a weights file: ``model.safetensors``, or the only ``*.safetensors``, ``*.pth``, ``*.pt``, ``*.bin``, ``*.pkl``
  (or ``*.tar``, ``*.ckpt``, as trainers call theirs);
* optionally ``objects.txt`` and ``attributes.txt``, one class a line.

A weights file by itself also is a detector: its family and sizes are read from its keys and shapes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from regionvlp.config import merge, read_yaml
from regionvlp.errors import ConfigError, RegionVLPError, WeightsError, nearest
from regionvlp.extract.detector.catalogue import ENTRIES, TOY, VG_CAFFE, VG_HUB, Entry
from regionvlp.extract.detector.vocabulary import FILE_NAMES
from regionvlp.weights.kinds import check_weights_file

WEIGHTS_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".pkl", ".tar", ".ckpt")
SETTINGS_NAME = "detector.yaml"
AUTO = "auto"
COMMON = (TOY, VG_CAFFE, VG_HUB)

NAMES = {
    AUTO: f"{VG_CAFFE} where its file lies, else {VG_HUB}",
    **{name: entry.what for name, entry in ENTRIES.items() if not entry.refused},
}


@dataclass(frozen=True)
class DetectorFiles:
    """What a name or a path stands for.

    Attributes:
        source: how errors call the detector's settings. weights: None where they are drawn from ``random_seed``.
        family: None where the weights must show it. settings: overrides of the family's configuration.
        objects, attributes: the vocabularies, where the folder has them.
        sha256: what the hash of the weights must be (``weights.state_hash``), where that was written down.
        origin: notes on where the weights come from.
    """

    source: str
    weights: Path | None
    family: str | None = None
    random_seed: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    objects: Path | None = None
    attributes: Path | None = None
    sha256: str | None = None
    origin: Mapping[str, str] = field(default_factory=dict)


def default_weights_dir() -> Path:
    """``$REGIONVLP_WEIGHTS``, else ``~/.cache/regionvlp/weights``."""
    named = os.environ.get("REGIONVLP_WEIGHTS")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "regionvlp" / "weights"


def find_detector(name_or_path: str, weights_dir: Path | None = None) -> DetectorFiles:
    """Finds a detector's files on this machine; nothing large is read, and nothing is fetched.

    Args:
        name_or_path: one of :data:`NAMES`, a folder, or a weights file.
        weights_dir: where named weights are looked for; :func:`default_weights_dir` if None.

    Raises:
        WeightsError: there is no such name or path, or the weights are not there.
        ConfigError: ``detector.yaml`` cannot be read.
    """
    folder = weights_dir or default_weights_dir()
    if name_or_path == AUTO:
        fallback = where_is(VG_CAFFE, folder) is None and where_is(VG_HUB, folder) is not None
        return find_detector(VG_HUB if fallback else VG_CAFFE, folder)
    if name_or_path in ENTRIES:
        return _open_named(ENTRIES[name_or_path], folder)
    path = Path(name_or_path).expanduser()
    if path.exists():
        return open_detector(path)
    if path.suffix in WEIGHTS_SUFFIXES or len(path.parts) > 1:
        raise WeightsError(f"there is no detector at {path}", "check the path")
    hint = nearest(name_or_path, NAMES) or f"known names: {', '.join(NAMES)}; or give the path of a weights file"
    raise WeightsError(f"unknown detector '{name_or_path}'", hint)


def weights_status(weights_dir: Path | None = None, names: Iterable[str] = COMMON) -> list[dict[str, Any]]:
    """Which detectors can be used now: one ``{"name", "usable", "what", "where", "hint"}`` for each of ``names``.

    ``where`` is the file or folder (None where there is none); ``hint`` says how to get a detector that is missing.
    """
    folder = weights_dir or default_weights_dir()
    rows = []
    for name in names:
        entry, where = ENTRIES[name], where_is(name, folder)
        hint = entry.refused or (_fault(where) if where else how_to_get(entry, folder=folder))
        place = str(where) if where else None
        rows.append({"name": name, "usable": not hint, "what": entry.what, "where": place, "hint": hint})
    return rows


def where_is(name: str, folder: Path) -> Path | None:
    """The file or folder of a named detector in the weights ``folder``, if it is there."""
    if name == TOY:
        return bundled_dir(TOY)
    names = (name, *(name + suffix for suffix in WEIGHTS_SUFFIXES), *ENTRIES[name].file_names)
    return next((folder / candidate for candidate in names if (folder / candidate).exists()), None)


def how_to_get(*entries: Entry, folder: Path) -> str:
    """What to do to have one of several named detectors, as an instruction."""
    ways = []
    for entry in entries:
        if entry.hub:
            ways.append(f"run 'regionvlp weights fetch {entry.name}' where there is a network")
        if entry.file_names:
            ways.append(f"put {entry.file_names[0]} ({entry.where}) into {folder}")
    ways += ["give a local file with --detector PATH", "try everything with --detector toy"]
    return ", or ".join(ways)


def bundled_dir(name: str) -> Path:
    """The folder of a detector that comes with the package."""
    return Path(str(resources.files("regionvlp.configs") / "extract" / "detectors" / name))


def _open_named(entry: Entry, folder: Path) -> DetectorFiles:
    if entry.refused:
        raise WeightsError(
            f"detector '{entry.name}' is not supported: {entry.refused}", "use a ResNet-101 or ResNet-50"
        )
    where = where_is(entry.name, folder)
    if where is None:
        raise WeightsError(f"no weights for detector '{entry.name}' in {folder}", how_to_get(entry, folder=folder))
    files = open_detector(where)
    if entry.name == TOY:
        return files
    # A bare file says nothing of the thresholds it was published with, nor what it is called.
    settings = merge({"name": entry.name, **entry.settings}, files.settings)
    return replace(files, family=files.family or entry.family, settings=settings)


def _fault(path: Path) -> str:
    """What keeps the detector at ``path`` from being opened, or nothing."""
    try:
        open_detector(path)
    except RegionVLPError as error:
        return str(error)
    return ""


def open_detector(path: Path) -> DetectorFiles:
    """The files of the detector at ``path``, a weights file or a folder.

    Raises:
        WeightsError: there are no weights, or several. ConfigError: ``detector.yaml`` cannot be read.
    """
    if path.is_file():
        check_weights_file(path)
        return DetectorFiles(source=str(path), weights=path)
    settings_path = path / SETTINGS_NAME
    settings = read_yaml(settings_path) if settings_path.exists() else {}
    family, seed = settings.pop("family", None), settings.pop("random_seed", None)
    sha256, origin = settings.pop("sha256", None), settings.pop("origin", None) or {}
    if family is not None and not isinstance(family, str):
        raise ConfigError(f"family = {family!r} in {settings_path}: not a name", "correct 'family'")
    if sha256 is not None and not isinstance(sha256, str):
        raise ConfigError(f"sha256 = {sha256!r} in {settings_path}: not a text", "quote it, or take it out")
    if not isinstance(origin, dict):
        raise ConfigError(f"origin = {origin!r} in {settings_path}: not a mapping", "write 'key: value' lines below it")
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
        objects=_existing(path / FILE_NAMES["objects"][0]),
        attributes=_existing(path / FILE_NAMES["attributes"][0]),
        sha256=sha256,
        origin={str(key): str(value) for key, value in origin.items()},
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
