"""Opening what a training run left: system, tokenizer and configuration in one.

In: a checkpoint folder (``model.safetensors``, ``config.yaml``, ``tokenizer.json``, ``detector.json``) or a run folder,
of which the best checkpoint is taken. Out: :class:`Checkpoint`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from regionvlp.data.clips.base import Clips
from regionvlp.data.clips.frame_choice import FrameChoice
from regionvlp.data.clips.opening import open_pixels
from regionvlp.data.clips.regions import RegionClips
from regionvlp.data.settings import PixelClipSettings, RegionClipSettings
from regionvlp.data.sources import text_reader
from regionvlp.data.text.tokenizer import TextTokenizer
from regionvlp.errors import ConfigError, InputError, ShardError, nearest
from regionvlp.evaluation.encode import encode_clips, encode_texts
from regionvlp.models.encoded import Encoded
from regionvlp.regions import VideoRegions
from regionvlp.shards import Manifest, open_shards, read_manifest
from regionvlp.systems.base import System
from regionvlp.systems.registry import build_system
from regionvlp.training.config import RunConfig, read_run_config
from regionvlp.training.identity import check_detector, read_detector
from regionvlp.training.saving import find_checkpoint
from regionvlp.weights.hub_models import HubName, hub_name
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
        shared: its name on the hub, where it was taken from there: ``path`` then belongs to the hub's client.
    """

    path: Path
    system: System
    config: RunConfig
    tokenizer: TextTokenizer
    detector: Mapping[str, Any]
    shared: HubName | None = None

    def encode_text(self, texts: Sequence[str], batch_size: int = 64) -> Encoded:
        """Sentences in the joint space.

        Args:
            texts: B of them. batch_size: at a time.

        Returns:
            pooled [B, D], tokens [B, W, D] (words) and mask [B, W], float32 on the CPU. Nothing is normalised:
            similarities are cosines, so divide by the length before a product.

        Raises:
            InputError: there is no text.
        """
        if not texts:
            raise InputError("there is no text to encode", "give at least one")
        reader = text_reader(self.config.data, self.tokenizer)
        parts = encode_texts(self.system, texts, reader, device=self._device, batch_size=batch_size)
        return Encoded.cat(list(parts)).to("cpu").to(torch.float32)

    def encode_videos(
        self, ids: Sequence[str], shards: str | Path | Mapping[str, VideoRegions], batch_size: int = 64
    ) -> Encoded:
        """Videos of a folder in the joint space.

        Args:
            ids: B of them.
            shards: the shard folder, or what holds their regions by id, such as ``open_shards(folder)``; for a model of
                pixels the folder of the videos, or of cached frames.
            batch_size: at a time.

        Returns:
            pooled [B, D], tokens [B, F * R, D] (regions or patches, frame by frame) and mask [B, F * R], as of
            :meth:`encode_text`.

        Raises:
            InputError: there is no id, or the shards do not hold one. ShardError: they are another detector's.
        """
        if not ids:
            raise InputError("there is no video to encode", "give at least one id")
        # Where a video is asked for twice, it is read once.
        source = self._clips(list(dict.fromkeys(ids)), shards)
        choice = FrameChoice(self.config.eval.frames or self.config.data.clips.frames)
        parts = encode_clips(self.system, source, choice, device=self._device, batch_size=batch_size)
        encoded = Encoded.cat(list(parts)).to("cpu").to(torch.float32)
        row = {video_id: at for at, video_id in enumerate(source.ids)}
        rows = torch.tensor([row[video_id] for video_id in ids])
        return Encoded(encoded.pooled[rows], encoded.tokens[rows], encoded.mask[rows])

    def _clips(self, ids: list[str], place: str | Path | Mapping[str, VideoRegions]) -> Clips:
        clips = self.config.data.clips
        if isinstance(clips, RegionClipSettings):
            if isinstance(place, str | Path):
                self.check_shards(read_manifest(place), place)
                place = open_shards(place)
            return RegionClips(place, ids, clips)
        assert isinstance(clips, PixelClipSettings), "clips are of regions or of pixels"
        if not isinstance(place, str | Path):
            raise InputError("this model reads pixels, and was given regions", "give the folder of the videos")
        material = open_pixels(Path(place), clips)
        missing = sorted(set(ids) - set(material.ids.to_pylist()))
        if missing:
            hint = nearest(missing[0], material.ids.to_pylist()[:1000]) or "ids are paths below the folder"
            raise InputError(f"{place} holds no {missing[0]} ({len(missing)} of {len(ids)} are missing)", hint)
        return material.clips(ids, trim=False)

    @property
    def _device(self) -> torch.device:
        return next(self.system.parameters()).device

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
    """Opens a checkpoint folder, the best (else newest) checkpoint of a run folder, or one that somebody shares.

    Args:
        path: the folder, or ``hub:owner/name@revision``: four files of that repository of the Hugging Face hub, none
            of which can hold code.
        device: where the weights go.

    Raises:
        InputError: nothing is there, or it is no checkpoint. WeightsError: its weights do not fit its configuration,
            or the hub does not give them.
    """
    folder = find_checkpoint(path)
    config = read_run_config(folder / "config.yaml")
    tokenizer = TextTokenizer.load(folder)
    system = build_system(config.task, config.model, config.loss, vocab_size=tokenizer.vocab_size, pretrained=False)
    load_weights(system, folder)
    return Checkpoint(folder, system.to(device).eval(), config, tokenizer, read_detector(folder), hub_name(path))
