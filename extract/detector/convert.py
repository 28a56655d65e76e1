"""A weights file becomes a detector's folder, and what such a file or folder holds.

In: a weights file of a public extractor, of any kind and name. Out: a folder with
``model.safetensors`` (canonical names), ``detector.yaml`` and the vocabularies (see ``registry``), whole or not at all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save_file

from regionvlp.config import load_config, merge
from regionvlp.errors import WeightsError
from regionvlp.extract.detector import layout
from regionvlp.extract.detector.catalogue import Entry
from regionvlp.extract.detector.config import FAMILIES, DetectorConfig
from regionvlp.extract.detector.hub_config import read_hub_config
from regionvlp.extract.detector.registry import SETTINGS_NAME, DetectorFiles, open_detector
from regionvlp.extract.detector.vocabulary import FILE_NAMES, beside, read_names
from regionvlp.extract.detector.weights import Weights, load_weights
from regionvlp.store.files import sha256_of
from regionvlp.store.folders import check_new, new_folder
from regionvlp.weights.kinds import check_weights_file
from regionvlp.weights.modules import shapes_of

CONFIG_NAME = "config.yaml"


def convert(
    source: Path,
    out: Path,
    *,
    entry: Entry | None = None,
    name: str | None = None,
    objects: Path | None = None,
    attributes: Path | None = None,
    origin: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Writes the detector folder ``out`` from a weights file.

    Args:
        source: the weights file. What lies beside it under its usual name is taken along: ``config.yaml`` of the Hub's
            checkpoint, ``objects.txt`` or ``objects_vocab.txt``, ``attributes.txt`` or ``attributes_vocab.txt``.
        out: the folder to make; it may exist if it is empty.
        entry: what the weights must be; its settings are written down.
        name: what the detector calls itself; the entry's name, else that of ``out``.
        objects, attributes: the vocabularies, where they do not lie beside the weights.
        origin: notes to write down with the folder.

    Returns:
        What :func:`describe` says of the new folder.

    Raises:
        InputError: there is no such file, or ``out`` is in use. WeightsError: the weights or vocabularies do not fit.
    """
    check_new(out)
    files = _source_files(source, entry, objects, attributes)
    files = replace(files, settings=merge(files.settings, {"name": name or (entry.name if entry else out.name)}))
    weights = load_weights(files, {})
    head = weights.config.head
    names = {
        "objects": read_names(files.objects, head.classes),
        "attributes": read_names(files.attributes, head.attributes),
    }
    notes = {"file": source.name, "file_sha256": sha256_of(source)} | dict(origin or {})
    with new_folder(out) as folder:
        save_file(weights.state, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / SETTINGS_NAME).write_text(_settings_text(weights, notes), encoding="utf-8")
        for kind, lines in names.items():
            if lines is not None:
                (folder / FILE_NAMES[kind][0]).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return _description(open_detector(out), weights)


def describe(files: DetectorFiles) -> dict[str, Any]:
    """What a detector is, read from its own files: sizes, hashes, vocabularies; JSON-able.

    Raises:
        WeightsError, ConfigError: the detector could not be loaded either.
    """
    return _description(files, load_weights(files, {}))


def _description(files: DetectorFiles, weights: Weights) -> dict[str, Any]:
    config, head = weights.config, weights.config.head
    names = {"objects": files.objects, "attributes": files.attributes}
    counts = {"objects": head.classes, "attributes": head.attributes}
    return {
        "name": config.name,
        "family": config.family,
        "depth": 3 * sum(config.backbone.blocks) + 2,
        "blocks": list(config.backbone.blocks),
        "feature_width": config.feature_width,
        "classes": head.classes,
        "attributes": head.attributes,
        "parameters": sum(value.numel() for value in weights.state.values()),
        "input": {"short_side": config.input.short_side, "long_side": config.input.long_side},
        "proposals": config.rpn.proposals,
        "selection": config.selection.rule,
        "weights_sha256": weights.sha256,
        "file": str(files.weights) if files.weights else None,
        "file_sha256": sha256_of(files.weights) if files.weights else None,
        "file_bytes": files.weights.stat().st_size if files.weights else None,
        "vocabularies": {kind: str(path) for kind, path in names.items() if read_names(path, counts[kind])},
        "origin": dict(files.origin),
    }


def _source_files(source: Path, entry: Entry | None, objects: Path | None, attributes: Path | None) -> DetectorFiles:
    check_weights_file(source)
    files = open_detector(source)
    settings: Mapping[str, Any] = entry.settings if entry else {}
    if (config := source.parent / CONFIG_NAME).is_file() and (found := read_hub_config(config)):
        settings = merge(settings, found)
    if entry and entry.sha256 not in (None, actual := sha256_of(source)):
        raise WeightsError(
            f"{source} has the checksum {actual}, but {entry.name} is {entry.sha256}", "get the file again"
        )
    return replace(
        files,
        source=entry.name if entry else files.source,
        family=entry.family if entry else None,
        settings=settings,
        objects=objects or beside(source.parent, "objects"),
        attributes=attributes or beside(source.parent, "attributes"),
    )


def _settings_text(weights: Weights, notes: Mapping[str, str]) -> str:
    """``detector.yaml``: the family, and each setting that neither it nor the shapes of the weights show."""
    config = weights.config
    family = FAMILIES[config.family]
    shown = layout.architecture_of(shapes_of(weights.state), family)
    known = load_config(DetectorConfig, family.model_dump(), shown)
    differences = _differences(known.model_dump(mode="json"), config.model_dump(mode="json"))
    values = {"family": config.family, **differences, "sha256": weights.sha256, "origin": dict(notes)}
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=math.inf)


def _differences(base: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in other.items():
        if isinstance(value, dict):
            if inner := _differences(base[key], value):
                found[key] = inner
        elif value != base[key]:
            found[key] = value
    return found
