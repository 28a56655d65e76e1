"""A folder that is gone on with: what the user does not state is what the folder was made with.

In: the configuration as it was stated, and a folder. Out: the same with the unstated settings of the folder's manifest,
so that ``--out`` alone resumes. What *is* stated stays, and is refused later where it does not agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regionvlp.errors import ShardError
from regionvlp.extract.settings import DEFAULT_SHARD_SIZE, ExtractConfig
from regionvlp.shards import Manifest
from regionvlp.video.readers import READERS, check_reader


def resumed(config: ExtractConfig, out: Path) -> ExtractConfig:
    """``config`` with what it leaves unstated taken from the manifest of ``out``, where there is one."""
    try:
        manifest = Manifest.read(out)
    except ShardError:  # not there yet, or damaged: whoever opens the folder says so
        return config
    sections = {
        "detector": _detector(manifest, config),
        "video": _video(manifest, config),
        "shards": {"format": manifest.format, "dtype": manifest.dtype, "size": _size(manifest)},
    }
    update = {}
    for name, values in sections.items():
        section = getattr(config, name)
        unstated = {key: value for key, value in values.items() if key not in section.model_fields_set}
        update[name] = section.model_copy(update=unstated)
    return config.model_copy(update=update)


def _size(manifest: Manifest) -> int | None:
    """None for the usual size, which is a most: new shards are cut to fit the workers of this run."""
    return None if manifest.shard_size == DEFAULT_SHARD_SIZE else manifest.shard_size


def _video(manifest: Manifest, config: ExtractConfig) -> dict[str, Any]:
    values: dict[str, Any] = {"frames": manifest.frames, "max_seconds": manifest.video.get("max_seconds")}
    reader = manifest.video.get("reader")
    if reader in READERS and reader != check_reader(config.video.decoder):
        values["decoder"] = reader
    return values


def _detector(manifest: Manifest, config: ExtractConfig) -> dict[str, Any]:
    values: dict[str, Any] = {"regions": manifest.regions}
    identity = manifest.detector
    # What is imported, or made by a factory, has no family, and no setting of ours.
    if config.detector.factory is not None or identity.get("family") is None:
        return values
    from regionvlp.extract.detector.catalogue import ENTRIES, TOY

    # Of a detector that was given by its file the manifest knows no path.
    if identity.get("name") in {TOY, *ENTRIES}:
        values["name"] = identity["name"]
    if isinstance(identity.get("proposals"), int):
        values["proposals"] = identity["proposals"]
    selection = identity.get("selection")
    if isinstance(selection, Mapping) and isinstance(selection.get("rule"), str):
        values["selection"] = selection["rule"]
    return values
