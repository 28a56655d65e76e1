"""Encodes a data set: every video once, every text once. Whatever is measured or searched starts here.

In: a system, clips, texts. Out: :class:`Encodings`, batch by batch as they were computed, on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from regionvlp.data.captions import Caption
from regionvlp.data.clips.base import Clips
from regionvlp.data.clips.frame_choice import FrameChoice
from regionvlp.data.pairs import Pairs
from regionvlp.data.text.reading import TextReader
from regionvlp.devices import autocast_dtype
from regionvlp.errors import RegionVLPError, ShardError
from regionvlp.models.encoded import Encoded
from regionvlp.systems.base import System


@dataclass(frozen=True)
class Encodings:
    """What a system made of a data set.

    Attributes:
        videos, texts: batches in the order of ``video_ids`` and ``captions``.
        video_ids: V of them, each once.
        captions: Q of them, with the ids of the videos they describe.
        video_of: [Q], the number of each caption's video.
    """

    videos: list[Encoded]
    texts: list[Encoded]
    video_ids: Sequence[str]
    captions: Sequence[Caption]
    video_of: Sequence[int]

    def whole(self) -> tuple[Encoded, Encoded]:
        """All videos and all texts, in float32 on the CPU."""
        video, text = (Encoded.cat(parts).to("cpu").to(torch.float32) for parts in (self.videos, self.texts))
        return video, text


def encode(
    system: System,
    pairs: Pairs,
    texts: TextReader,
    *,
    device: torch.device | str = "cpu",
    precision: str = "float32",
    batch_size: int = 64,
    workers: int = 0,
    advance: Callable[[int], None] = lambda count: None,
) -> Encodings:
    """Encodes the pairs' videos, with the middle frames of their segments, and their captions.

    Args:
        system: in evaluation mode while this runs, and then back as it was.
        pairs: the videos and captions.
        texts: reads the captions.
        device: where the system is.
        precision: as ``train.precision``: ``auto`` and ``bf16`` autocast as training does.
        batch_size: videos, and texts, at a time.
        workers: processes that read videos.
        advance: told how many videos or texts were just encoded; there are V + Q in all.

    Raises:
        ShardError: a video cannot be read.
    """
    found: tuple[list[Encoded], list[Encoded]] = [], []
    batches = (
        encode_clips(
            system, pairs.clips, pairs.choice,
            device=device, precision=precision, batch_size=batch_size, workers=workers,
        ),
        encode_texts(
            system, [caption.caption for caption in pairs.captions], texts,
            device=device, precision=precision, batch_size=batch_size,
        ),
    )  # fmt: skip
    for side, parts in zip(found, batches, strict=True):
        for part in parts:
            side.append(part)
            advance(len(part))
    return Encodings(*found, pairs.clips.ids, pairs.captions, pairs.video_of.tolist())


def encode_clips(
    system: System,
    clips: Clips,
    choice: FrameChoice,
    *,
    device: torch.device | str = "cpu",
    precision: str = "float32",
    batch_size: int = 64,
    workers: int = 0,
) -> Iterator[Encoded]:
    """The clips in their order, ``batch_size`` at a time; arguments as :func:`encode`.

    Raises:
        ShardError: a clip cannot be read.
    """
    numbers = [range(start, min(start + batch_size, len(clips.ids))) for start in range(0, len(clips.ids), batch_size)]
    loader = DataLoader(_ClipBatches(clips, choice, numbers), batch_size=None, num_workers=workers)
    for batch in loader:
        if "failure" in batch:
            raise ShardError(*batch["failure"])
        with _evaluating(system, torch.device(device), precision):
            encoded = system.encode_video(_tensors(batch, device))
        yield encoded


def encode_texts(
    system: System,
    texts: Sequence[str],
    reader: TextReader,
    *,
    device: torch.device | str = "cpu",
    precision: str = "float32",
    batch_size: int = 64,
) -> Iterator[Encoded]:
    """The texts in their order, ``batch_size`` at a time; arguments as :func:`encode`."""
    for start in range(0, len(texts), batch_size):
        batch = reader(texts[start : start + batch_size])
        with _evaluating(system, torch.device(device), precision):
            encoded = system.encode_text(_tensors(batch, device))
        yield encoded


class _ClipBatches(Dataset[Any]):
    """Batches of clips by number; what went wrong comes as a value, since torch wraps a worker's errors."""

    def __init__(self, clips: Clips, choice: FrameChoice, numbers: Sequence[range]) -> None:
        self._clips, self._choice, self._numbers = clips, choice, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, at: int) -> dict[str, Any]:
        try:
            return {**self._clips.read_batch(list(self._numbers[at]), self._choice)}
        except RegionVLPError as error:
            return {"failure": (error.message, error.hint)}


def _tensors(batch: Mapping[str, Any], device: torch.device | str) -> dict[str, Tensor]:
    return {key: value.to(device, non_blocking=True) for key, value in batch.items()}


@contextmanager
def _evaluating(system: System, device: torch.device, precision: str) -> Iterator[None]:
    """Evaluation mode, without gradients and under autocast, for the time of the block."""
    dtype, was_training = autocast_dtype(precision, device), system.training
    system.eval()
    try:
        with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype is not None):
            yield
    finally:
        system.train(was_training)
