"""Where a model's files come from: a folder, or a name of the Hub at a revision, from its cache or fetched once.

Two layouts are read: open_clip's (``open_clip_config.json``) and transformers' (``config.json``). A name may be pinned:
``owner/name@REVISION``, a branch, tag or commit. A bundle is a folder with all files of a model and ``source.json``,
which says where they come from; it is read like any folder, on a machine without a network too.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regionvlp.errors import InputError, WeightsError, first_line
from regionvlp.store.files import document_text, replacing, sha256_of
from regionvlp.weights.hub import Unreachable, hub_files
from regionvlp.weights.hub_models import PREFIX, hub_name

DEFAULT = "timm/PE-Core-S-16-384"
OPEN_CLIP_CONFIG, CONFIG, SOURCE = "open_clip_config.json", "config.json", "source.json"
_PREPROCESSOR, _TOKENIZER = "preprocessor_config.json", "tokenizer.json"
# Weights by layout, the safe format first. Pickles are read by a reader that runs nothing.
_WEIGHTS = {
    "open_clip": (
        "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "model.safetensors",
        "open_clip_pytorch_model.bin",
    ),
    "transformers": ("model.safetensors", "pytorch_model.bin"),
}  # fmt: skip
_TOKENIZER_EXTRA = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class ModelFiles:
    """The files of one model.

    Attributes:
        layout: ``open_clip`` or ``transformers``.
        folder: with its configuration. weights: the file. tokenizer: the folder of its tokenizer's files.
        name: of the Hub; empty for a folder that does not say. revision: the commit, where it is known.
    """

    layout: str
    folder: Path
    weights: Path
    tokenizer: Path
    name: str = ""
    revision: str = ""

    @property
    def parts(self) -> dict[str, Path]:
        """All files that count, by the name that they have in a bundle."""
        config = OPEN_CLIP_CONFIG if self.layout == "open_clip" else CONFIG
        found = {config: self.folder / config, self.weights.name: self.weights}
        for name in (_PREPROCESSOR,) if self.layout == "transformers" else ():
            found[name] = self.folder / name
        for name in (_TOKENIZER, *_TOKENIZER_EXTRA):
            if (self.tokenizer / name).is_file():
                found[name] = self.tokenizer / name
        return found

    def identity(self) -> dict[str, Any]:
        """The content of all files that decide about a vector, as hashes; free of places and names."""
        hashes = {name: sha256_of(path) for name, path in self.parts.items() if name not in _TOKENIZER_EXTRA}
        return {"kind": "hub", "layout": self.layout, "files": hashes}


def find_model(name_or_folder: str) -> ModelFiles:
    """The files of a model.

    Args:
        name_or_folder: a folder, or ``owner/name`` of the Hub, pinned by ``@REVISION`` if you like.

    Raises:
        InputError: there is no such folder or name, or it lacks a part. WeightsError: the Hub cannot be asked.
    """
    folder = Path(name_or_folder).expanduser()
    if name_or_folder and folder.is_dir():
        return _of_folder(folder.absolute())
    name = hub_name(f"{PREFIX}{name_or_folder}")
    assert name is not None, "it has the prefix"
    return _of_hub(name.repo_id, name.revision)


def bundle(files: ModelFiles, to: Path) -> list[Path]:
    """Copies all files of a model into a folder that can be carried to another machine; what is there stays.

    Args:
        files: the model's. to: the folder; made if need be.

    Returns:
        The files of the bundle.

    Raises:
        InputError: the folder holds another model, or cannot be written.
    """
    about = {"name": files.name, "revision": files.revision, "files": files.identity()["files"]}
    try:
        to.mkdir(parents=True, exist_ok=True)
        source = to / SOURCE
        others = read_json(source).get("files") != about["files"] if source.is_file() else any(to.iterdir())
        if others:
            raise InputError(f"{to} is not empty, and holds something else", "name a new folder with --to")
        with replacing(source) as temporary:
            temporary.write_text(document_text(about), encoding="utf-8")
        for name, path in files.parts.items():
            if not (to / name).is_file() or (to / name).stat().st_size != path.stat().st_size:
                with replacing(to / name) as temporary:
                    shutil.copyfile(path, temporary)
    except OSError as error:
        raise InputError(f"cannot write to {to}: {error.strerror or error}", "use another --to") from None
    return [to / name for name in (*files.parts, SOURCE)]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a file.

    Raises:
        WeightsError: it is none.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read: {first_line(error)}", "get the model anew") from None
    if not isinstance(values, dict):
        raise WeightsError(f"{path} is no JSON object", "get the model anew")
    return values


def _of_folder(folder: Path) -> ModelFiles:
    layout = next((kind for kind, name in _CONFIGS.items() if (folder / name).is_file()), None)
    if layout is None:
        raise InputError(
            f"{folder} holds no model: it has neither {OPEN_CLIP_CONFIG} nor {CONFIG}",
            "name a folder in open_clip's or transformers' layout",
        )
    weights = next((folder / name for name in _WEIGHTS[layout] if (folder / name).is_file()), None)
    missing = [] if weights is not None else [_WEIGHTS[layout][0]]
    missing += [name for name in _needed(layout, folder / _CONFIGS[layout]) if not (folder / name).is_file()]
    if missing or weights is None:
        raise InputError(
            f"the model in {folder} lacks {', '.join(missing)}", "put the file there, or fetch the model anew"
        )
    about = read_json(folder / SOURCE) if (folder / SOURCE).is_file() else {}
    return ModelFiles(layout, folder, weights, folder, str(about.get("name", "")), str(about.get("revision", "")))


def _of_hub(name: str, revision: str) -> ModelFiles:
    try:
        layout, config = _first(name, revision, list(_CONFIGS.items()))
        commit = config.parent.name if _COMMIT.fullmatch(config.parent.name) else revision
        # From here on the commit: a branch may move between two files.
        _, weights = _first(name, commit, [(layout, file) for file in _WEIGHTS[layout]])
        tokenizer = config.parent
        for part in _needed(layout, config):
            path = _part(name, commit, part, config, layout)
            tokenizer = path.parent if part == _TOKENIZER else tokenizer
    except Unreachable as error:
        raise WeightsError(
            f"{name} is not in the Hub's cache, and cannot be fetched: {error.message.partition(', and')[0]}",
            f"where there is a network: regionvlp weights fetch hub:{name} --to DIR; here, name hub:DIR",
        ) from None
    except WeightsError as error:
        raise InputError(
            f"the Hub gives no model {name}: {error.message}", "check the name, or name a folder"
        ) from None
    return ModelFiles(layout, config.parent, weights, tokenizer, name, commit)


def _part(name: str, commit: str, part: str, config: Path, layout: str) -> Path:
    """A file of the repository; of a tokenizer that is another repository's, from there."""
    try:
        path = hub_files(name, [part], revision=commit)[0]
        source, at = name, commit
    except Unreachable:
        raise
    except WeightsError:
        other = _text(config).get("hf_tokenizer_name") if layout == "open_clip" and part == _TOKENIZER else None
        if not other or other == name:
            raise
        path, source, at = hub_files(str(other), [part])[0], str(other), "main"
    for extra in _TOKENIZER_EXTRA if part == _TOKENIZER else ():
        try:
            hub_files(source, [extra], revision=at)
        except WeightsError:
            continue  # what is not there is not needed
    return path


def _first(name: str, revision: str, choices: Sequence[tuple[str, str]]) -> tuple[str, Path]:
    """The first file that there is.

    Raises:
        Unreachable: there is none in the cache, and the Hub cannot be asked. WeightsError: there is none at all.
    """
    refused: WeightsError | None = None
    for kind, file in choices:
        try:
            return kind, hub_files(name, [file], revision=revision)[0]
        except WeightsError as error:
            refused = refused or error
    assert refused is not None
    raise refused


_CONFIGS = {"open_clip": OPEN_CLIP_CONFIG, "transformers": CONFIG}


def _needed(layout: str, config: Path) -> list[str]:
    """What there must be besides configuration and weights."""
    if layout == "transformers":
        return [_PREPROCESSOR, _TOKENIZER]
    # Without a name, open_clip's own vocabulary counts.
    return [_TOKENIZER] if _text(config).get("hf_tokenizer_name") else []


def _text(config: Path) -> dict[str, Any]:
    """What an open_clip configuration says of its text tower."""
    model = read_json(config).get("model_cfg")
    text = model.get("text_cfg") if isinstance(model, dict) else None
    return text if isinstance(text, dict) else {}
