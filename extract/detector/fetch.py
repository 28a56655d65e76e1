"""Named weights brought to this machine: from the Hugging Face hub, a URL or a local file, into the weights folder.

In: a name. Out: the detector's folder ``NAME/`` in the weights folder. ``obtain_detector`` is what loading a detector
goes through: it finds what is here and fetches the one detector that can still be fetched by name.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from regionvlp.errors import InputError, WeightsError, nearest
from regionvlp.extract.detector.catalogue import ENTRIES, TOY, VG_CAFFE, VG_HUB, VISUAL_GENOME, Entry, HubRepository
from regionvlp.extract.detector.download import OnBytes, download
from regionvlp.extract.detector.registry import (
    AUTO,
    WEIGHTS_SUFFIXES,
    DetectorFiles,
    default_weights_dir,
    find_detector,
    how_to_get,
    where_is,
)
from regionvlp.extract.detector.vocabulary import FILE_NAMES, read_names
from regionvlp.store.files import replacing, sha256_of
from regionvlp.store.folders import check_new
from regionvlp.weights.hub import Unreachable, hub_files, offline

log = logging.getLogger(__name__)


def obtain_detector(name_or_path: str, weights_dir: Path | None = None) -> DetectorFiles:
    """Like :func:`~regionvlp.extract.detector.registry.find_detector`, but fetches ``vg-hub`` where that is asked for.

    ``auto`` is ``vg-caffe`` where its file lies, else ``vg-hub``, which is fetched if need be; one line of the log then
    says so, with its licence and what it means for released checkpoints.

    Raises:
        WeightsError: there is no such detector, or neither file nor network; the hint names every way to one.
    """
    folder = weights_dir or default_weights_dir()
    entry = ENTRIES[VG_HUB]
    notice, wanted = "", [entry]
    if name_or_path == AUTO and where_is(VG_CAFFE, folder) is None:
        wanted.insert(0, ENTRIES[VG_CAFFE])
        notice = (
            f"detector: {VG_HUB} ({entry.where}; licence: {entry.licence}), since {VG_CAFFE} is not in {folder}; "
            f"released DemoVLP checkpoints were trained on {VG_CAFFE} features and do not fit these"
        )
    elif name_or_path != VG_HUB:
        return find_detector(name_or_path, folder)
    if where_is(VG_HUB, folder):
        if notice:
            log.warning("%s", notice)
    else:
        try:
            _fetch_from_hub(entry, folder, notice)
        except Unreachable as error:
            raise WeightsError(
                f"no weights for detector '{wanted[0].name}' in {folder}, "
                f"and {VG_HUB} cannot be fetched: {error.message}",
                how_to_get(*wanted, folder=folder),
            ) from None
        except InputError:
            if where_is(VG_HUB, folder) is None:  # otherwise another process was quicker
                raise
    return find_detector(VG_HUB, folder)


def fetch(
    name: str,
    weights_dir: Path | None = None,
    *,
    source: str | None = None,
    objects: Path | None = None,
    attributes: Path | None = None,
    on_bytes: OnBytes = lambda done, total: None,
) -> dict[str, Any]:
    """Brings a named detector into the weights folder, as a folder of its own.

    Where that is there already, only class names are added; a bare file that lies there is converted.

    Args:
        name: of a catalogue entry. weights_dir: :func:`default_weights_dir` if None.
        source: a URL or a local file; the Hugging Face hub if None.
        objects, attributes: vocabularies; by default those beside the file, else the public ones where they fit.
        on_bytes: told about the progress of a download from a URL.

    Returns:
        What ``convert.describe`` says of the new folder.

    Raises:
        WeightsError: no such name, not to be had this way, unreachable, damaged, or not what the name says.
        InputError: the folder exists already and a source is given, or the source does not exist.
    """
    from regionvlp.extract.detector.convert import convert, describe

    folder = weights_dir or default_weights_dir()
    entry = _entry(name)
    target = folder / name
    if source is None and (here := where_is(name, folder)):
        if here.is_dir():
            description = describe(find_detector(name, folder))
            return _with_vocabularies(description, here, {"objects": objects, "attributes": attributes})
        source = str(here)
    check_new(target)
    if source is None:
        if entry.hub is None:
            file = entry.file_names[0]
            raise WeightsError(
                f"{name} cannot be fetched by name: {file} is {entry.where}",
                f"get it there, then run 'regionvlp weights fetch {name} --from {file}'",
            )
        return _fetch_from_hub(entry, folder, objects=objects, attributes=attributes)
    if not source.startswith(("http://", "https://")):
        path = Path(source).expanduser()
        description = convert(path, target, entry=entry, objects=objects, attributes=attributes)
        return _with_vocabularies(description, target)
    if not source.partition("?")[0].endswith(WEIGHTS_SUFFIXES):
        raise InputError(
            f"{source} does not name a weights file ({', '.join(WEIGHTS_SUFFIXES)})",
            "download it in a browser, then give the local file with --from",
        )
    file_path = download(source, folder / "downloads", sha256=entry.sha256, on_bytes=on_bytes)
    try:
        origin = {"url": source, "licence": entry.licence}
        description = convert(file_path, target, entry=entry, objects=objects, attributes=attributes, origin=origin)
    finally:
        file_path.unlink(missing_ok=True)
    return _with_vocabularies(description, target)


def _entry(name: str) -> Entry:
    entry = ENTRIES.get(name)
    if entry is None:
        hint = nearest(name, ENTRIES) or "see 'regionvlp weights list'"
        raise WeightsError(f"there is no detector named '{name}'", hint)
    if entry.refused:
        raise WeightsError(f"detector '{name}' is not supported: {entry.refused}", "see 'regionvlp weights list'")
    if name == TOY:
        raise InputError("detector 'toy' comes with the package: there is nothing to fetch", "use --detector toy")
    return entry


def _fetch_from_hub(
    entry: Entry,
    folder: Path,
    notice: str = "",
    *,
    objects: Path | None = None,
    attributes: Path | None = None,
) -> dict[str, Any]:
    """Downloads through the hub's own cache (which resumes) and converts; ``notice`` is logged once it can be asked."""
    from regionvlp.extract.detector.convert import convert

    assert entry.hub is not None, f"{entry.name} is not on the hub"
    weights, commit = _hub_file(entry.hub, notice)
    origin = {"hub": entry.hub.repo_id, "revision": commit, "licence": entry.licence}
    target = folder / entry.name
    description = convert(weights, target, entry=entry, objects=objects, attributes=attributes, origin=origin)
    return _with_vocabularies(description, target)


def _hub_file(hub: HubRepository, notice: str) -> tuple[Path, str]:
    """The weights in the hub's cache, with the config beside them, and the commit that they are of."""

    def say() -> None:
        if notice:
            log.warning("%s", notice)

    try:
        path = hub_files(hub.repo_id, (hub.config, hub.weights), revision=hub.revision, before=say)[-1]
    except Unreachable as error:
        raise Unreachable(error.message, f"{error.hint} with --from") from error
    # The cache names large files by their SHA-256.
    blob = path.resolve()
    if re.fullmatch(r"[0-9a-f]{64}", blob.name) and blob.name != sha256_of(path):
        raise WeightsError(f"{blob} does not have the checksum that is its name: it is damaged", "delete it, try again")
    return path, path.parent.name


def _with_vocabularies(
    description: dict[str, Any], target: Path, given: Mapping[str, Path | None] = MappingProxyType({})
) -> dict[str, Any]:
    """Adds class names to a detector's folder: those given, and the public ones where there are none and they fit.

    The detector is whole without them: its regions are then shown by number.
    """
    counts = {"objects": description["classes"], "attributes": description["attributes"]}
    for kind, path in given.items():
        if names := read_names(path, counts[kind]):
            _add_vocabulary(description, target, kind, "\n".join(names) + "\n")
    lacking = {
        kind: listed
        for kind, listed in VISUAL_GENOME.items()
        if kind not in description["vocabularies"] and listed.count == counts[kind]
    }
    for kind, listed in lacking.items():
        try:
            if offline():
                raise Unreachable("HF_HUB_OFFLINE is set")
            found = download(listed.url, target.parent / "downloads", sha256=listed.sha256)
        except WeightsError as error:
            what = " and ".join(lacking)
            log.warning("%s is without %s, and regions are shown by number: %s", target.name, what, error.message)
            break
        _add_vocabulary(description, target, kind, found.read_text(encoding="utf-8"))
        found.unlink()
    return description


def _add_vocabulary(description: dict[str, Any], target: Path, kind: str, text: str) -> None:
    path = target / FILE_NAMES[kind][0]
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    description["vocabularies"][kind] = str(path)
