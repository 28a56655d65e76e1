"""Opening what a training run left: task, tokenizer and configuration in one.

In: a checkpoint folder (``model.safetensors``, ``config.yaml``, ``tokenizer.json``, ``detector.json``) or a run folder,
of which the best checkpoint is taken. Out: :class:`Checkpoint`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from regionvlp.config import read_yaml, validate
from regionvlp.data.text.tokenizer import TextTokenizer
from regionvlp.errors import InputError, ShardError
from regionvlp.shards import Manifest
from regionvlp.systems.demovlp import Task, build_task
from regionvlp.training import saving as files
from regionvlp.training.config import RunConfig
from regionvlp.weights.modules import WEIGHTS, load_weights

DETECTOR = "detector.json"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A trained task, ready to encode.

    Attributes:
        path: the checkpoint's folder.
        task: in evaluation mode, on the device asked for.
        config: of the run that made it.
        tokenizer: its own.
        detector: identity of the detector whose regions it was trained on; empty where that is not known.
    """

    path: Path
    task: Task
    config: RunConfig
    tokenizer: TextTokenizer
    detector: Mapping[str, Any]

    def check_shards(self, manifest: Manifest, folder: Path) -> None:
        """Refuses shards of another detector than the one that the model learnt from, as far as that is known.

        Raises:
            ShardError: naming the first difference.
        """
        reads = self.config.model.video.feature_width
        if manifest.feature_width != reads:
            message = f"the regions in {folder} have {manifest.feature_width} features, the model reads {reads}"
            raise ShardError(message, "extract with the detector that the model was trained on")
        if not self.detector:
            message = "%s does not say which detector it learnt from: whether these shards fit it cannot be checked"
            logger.warning(message, self.path)
            return
        check_detector(self.detector, manifest.detector, f"{folder} holds regions of another detector than the model's")


def load_checkpoint(path: str | Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Opens a checkpoint folder, or the best (else newest) checkpoint of a run folder.

    Raises:
        InputError: nothing is there, or it is no checkpoint. WeightsError: its weights do not fit its configuration.
    """
    folder = find_checkpoint(Path(path))
    config = validate(RunConfig, read_yaml(folder / "config.yaml"), str(folder / "config.yaml"))
    tokenizer = TextTokenizer.load(folder)
    task = build_task(config.task, config.model, config.loss, vocab_size=tokenizer.vocab_size, pretrained=False)
    load_weights(task, folder)
    return Checkpoint(folder, task.to(device).eval(), config, tokenizer, read_detector(folder))


def find_checkpoint(path: Path) -> Path:
    """The checkpoint folder that ``path`` is, or the best (else newest) one of the run that it is."""
    if not path.is_dir():
        raise InputError(f"there is no checkpoint at {path}", "give the folder of a run or of a checkpoint")
    if (path / WEIGHTS).is_file():
        return path
    found = files.best(path) or files.latest(path)
    if found is None:
        raise InputError(f"{path} holds no checkpoint", "give the folder of a run or of a checkpoint")
    return found


def save_beside_weights(folder: Path, tokenizer: TextTokenizer, detector: Mapping[str, Any]) -> None:
    """Writes into a checkpoint's folder what its weights mean nothing without."""
    tokenizer.save(folder)
    (folder / DETECTOR).write_text(json.dumps(detector, indent=2) + "\n", encoding="utf-8")


def read_detector(folder: Path) -> Mapping[str, Any]:
    """The detector identity that a checkpoint carries; empty where that is not known.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        identity: Mapping[str, Any] = json.loads((folder / DETECTOR).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(f"{folder} holds no readable {DETECTOR}", "use a checkpoint as training wrote it") from None
    return identity


def check_detector(known: Mapping[str, Any], found: Mapping[str, Any], complaint: str) -> None:
    """Compares two detector identities.

    Raises:
        ShardError: ``complaint``, with the first field that differs.
    """
    for key in sorted({*known, *found}):
        if known.get(key) != found.get(key):
            here, there = json.dumps(found.get(key)), json.dumps(known.get(key))
            raise ShardError(f"{complaint}: {key} is {here} there, not {there}", "extract with the same one")
