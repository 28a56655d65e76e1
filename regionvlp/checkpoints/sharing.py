"""A checkpoint made ready to be shared: the files that open it, a model card, and nothing of this machine.

In: a run or a checkpoint. Out: a folder of ``model.safetensors``, ``config.yaml``, ``tokenizer.json``,
``detector.json`` and ``README.md``, which :func:`regionvlp.load_checkpoint` opens, from a disk or from the hub.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from regionvlp.checkpoints.card import CARD, card_text
from regionvlp.checkpoints.folder import Checkpoint, load_checkpoint
from regionvlp.config import dump_yaml
from regionvlp.data.captions import kind_of
from regionvlp.errors import InputError
from regionvlp.training.config import RunConfig, run_config
from regionvlp.training.identity import DATA, DETECTOR
from regionvlp.training.logbook import LOG, read_log
from regionvlp.training.saving import BEST, SHARED, find_checkpoint, step_of
from regionvlp.weights.hub_models import HubName, hub_name, upload_folder
from regionvlp.weights.modules import WEIGHTS


@dataclass(frozen=True)
class Shareable:
    """What is known of a checkpoint that is to be shared.

    Attributes:
        checkpoint: opened, so that what is shared can be opened.
        config: the run's, without this machine: see :func:`portable_config`.
        step: optimizer steps done; None for one that no run made.
        why: why this one was taken, of the checkpoints that there are.
        metrics: of the run's own evaluation after that step, by name (``t2v/R1``, in percent).
        data: what the run knew of its data, as ``data.json`` has it; empty where that is not known.
    """

    checkpoint: Checkpoint
    config: RunConfig
    step: int | None
    why: str
    metrics: Mapping[str, float]
    data: Mapping[str, Any]


def shareable(path: str | Path) -> Shareable:
    """Finds what to share at ``path``, a run (its best checkpoint, else its newest) or a checkpoint, and opens it.

    Raises:
        InputError: there is none, or a file of it is missing. WeightsError: its weights cannot be read, or are another
            model's. ConfigError: its configuration cannot be read.
    """
    if name := hub_name(path):
        raise InputError(f"{name} is on the hub already", "push a run or a checkpoint of this machine")
    folder = find_checkpoint(path)
    missing = [file for file in SHARED if not (folder / file).is_file()]
    if missing:
        raise InputError(f"{folder} is no whole checkpoint: {', '.join(missing)} missing", "push another one")
    checkpoint = load_checkpoint(folder)
    run = folder.parent.parent if folder.parent.name == "checkpoints" else None
    step = step_of(folder) if run else None
    return Shareable(
        checkpoint,
        portable_config(checkpoint.config),
        step,
        _why(Path(path), folder),
        _metrics(run, step),
        _data(folder),
    )


def write_shared(found: Shareable, folder: Path, name: HubName, *, licence: str) -> None:
    """Writes the files to be shared into a folder.

    Args:
        found: what they are of. folder: made where it is missing; what is there of these names is replaced.
        name: what the card says the model is opened by.
        licence: an identifier of the hub's, such as ``mit``, or ``unknown``.

    Raises:
        InputError: the detector's identity names a folder of this machine.
    """
    detector = dict(found.checkpoint.detector)
    _check_portable(detector)
    folder.mkdir(parents=True, exist_ok=True)
    source = found.checkpoint.path
    for file in (WEIGHTS, "tokenizer.json"):
        shutil.copyfile(source / file, folder / file)
    (folder / "config.yaml").write_text(dump_yaml(found.config), encoding="utf-8")
    (folder / DETECTOR).write_text(json.dumps(detector, indent=2) + "\n", encoding="utf-8")
    text = card_text(
        name, found.config, detector, step=found.step, why=found.why, metrics=found.metrics, data=found.data,
        parameters=sum(p.numel() for p in found.checkpoint.system.parameters()), licence=licence,
    )  # fmt: skip
    (folder / CARD).write_text(text, encoding="utf-8")


def push(found: Shareable, folder: Path, name: HubName, *, private: bool) -> str:
    """Uploads what :func:`write_shared` wrote, as one commit; see :func:`upload_folder`. Returns its address."""
    step = "" if found.step is None else f", step {found.step:,}"
    return upload_folder(name, folder, private=private, message=f"{found.config.task}{step}")


def portable_config(config: RunConfig) -> RunConfig:
    """A run's configuration without the machine that it ran on: files and folders are names, devices are free.

    What is evaluated on, where copies are staged and what the weights started from lie on that machine alone, unless
    the last is on the hub; they are left out.
    """
    values = config.model_dump(mode="json")
    for source, known in zip(values["data"]["sources"], config.data.sources, strict=True):
        source["format"] = kind_of(known.captions, known.format)
        source |= {key: PurePath(source[key].rstrip("/")).name for key in ("captions", "shards")}
    values["eval"]["source"] = None
    if values["init"] and not hub_name(values["init"]):
        values["init"] = None
    values["data"]["clips"] |= {"staging": None} if "staging" in values["data"]["clips"] else {}
    values["train"]["device"] = "auto"
    portable = run_config(_without_folders(values))
    # Read as a run's, names of files are made absolute; shared ones stay names.
    sources = tuple(
        known.model_copy(update={"captions": Path(source["captions"]), "shards": source["shards"]})
        for known, source in zip(portable.data.sources, values["data"]["sources"], strict=True)
    )
    return portable.model_copy(update={"data": portable.data.model_copy(update={"sources": sources})})


def _without_folders(values: Any) -> Any:
    """Nulls in place of absolute paths, such as a tokenizer's or pretrained weights': a checkpoint brings its own."""
    if isinstance(values, dict):
        return {key: _without_folders(value) for key, value in values.items()}
    if isinstance(values, list):
        return [_without_folders(value) for value in values]
    return None if isinstance(values, str) and is_local(values) else values


def is_local(text: str) -> bool:
    """Whether a value names a place of one machine rather than something that others know by that name."""
    return PurePath(text).is_absolute() or text.startswith(("~", "./", "../"))


def _check_portable(detector: Mapping[str, Any]) -> None:
    for key, value in detector.items():
        if isinstance(value, str) and PurePath(value).is_absolute():
            raise InputError(
                f"{DETECTOR} has a folder of this machine as its {key}: {value}",
                "extract with a detector whose identity is free of paths",
            )


def _why(asked: Path, folder: Path) -> str:
    if asked.resolve() == folder.resolve():
        return "the one that was named"
    try:
        best = json.loads((folder.parent / BEST).read_text(encoding="utf-8"))
        if best["checkpoint"] == folder.name:
            return f"the best of the run by {best['metric']}, {best['value']:.4g}"
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return "the newest of the run, which knows no best one"


def _metrics(run: Path | None, step: int | None) -> dict[str, float]:
    if run is None or not (run / LOG).is_file():
        return {}
    found: dict[str, float] = {}
    for line in read_log(run):
        if line["step"] == step:
            values = {key.removeprefix("eval/"): line[key] for key in line if key.startswith("eval/")}
            found |= {key: float(value) for key, value in values.items() if isinstance(value, int | float)}
    return found


def _data(folder: Path) -> dict[str, Any]:
    try:
        data = json.loads((folder / DATA).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
