"""Opening what a training run left: system, tokenizer and configuration in one.

In: a checkpoint folder (``model.safetensors``, ``config.yaml``, ``tokenizer.json``, ``detector.json``) or a run folder,
of which the best checkpoint is taken. Out: :class:`Checkpoint`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from regionvlp.data.text.tokenizer import TextTokenizer
from regionvlp.errors import ConfigError, ShardError
from regionvlp.shards import Manifest
from regionvlp.systems.base import System
from regionvlp.systems.registry import build_system
from regionvlp.training.config import RunConfig, read_run_config
from regionvlp.training.identity import check_detector, read_detector
from regionvlp.training.saving import find_checkpoint
from regionvlp.weights.modules import load_weights

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A trained system, ready to encode.

    Attributes:
        path: the checkpoint's folder.
        system: in evaluation mode, on the device asked for.
        config: of the run that made it.
        tokenizer: its own.
        detector: identity of the detector whose regions it was trained on; empty where that is not known.
    """

    path: Path
    system: System
    config: RunConfig
    tokenizer: TextTokenizer
    detector: Mapping[str, Any]

    def check_shards(self, manifest: Manifest, folder: str | Path) -> None:
        """Refuses shards of another detector than the one that the model learnt from, as far as that is known.

        Raises:
            ShardError: naming the first difference.
        """
        try:
            self.system.check(manifest, folder)
        except ConfigError as error:
            raise ShardError(error.message, "extract with the detector that the model was trained on") from None
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
    config = read_run_config(folder / "config.yaml")
    tokenizer = TextTokenizer.load(folder)
    system = build_system(config.task, config.model, config.loss, vocab_size=tokenizer.vocab_size, pretrained=False)
    load_weights(system, folder)
    return Checkpoint(folder, system.to(device).eval(), config, tokenizer, read_detector(folder))
