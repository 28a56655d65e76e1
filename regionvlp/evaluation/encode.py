"""Encodes a data set: every video once, every text once. Whatever is measured or searched starts here.

In: a system, videos, texts. Out: :class:`Encodings`, batch by batch as they were computed, on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from regionvlp.data.captions import Caption
from regionvlp.data.dataset import Collate, RegionTextDataset
from regionvlp.data.loading import read_batches
from regionvlp.devices import autocast_dtype
from regionvlp.models.encoded import Encoded
from regionvlp.systems.base import System


@dataclass(frozen=True)
class Encodings:
    """What a system made of a data set.

    Attributes:
        videos, texts: batches in the order of ``video_ids`` and ``captions``.
        video_ids: V of them, each once.
        captions: Q of them, with the ids of the videos they describe.
    """

    videos: list[Encoded]
    texts: list[Encoded]
    video_ids: list[str]
    captions: list[Caption]

    def whole(self) -> tuple[Encoded, Encoded]:
        """All videos and all texts, in float32 on the CPU."""
        video, text = (Encoded.cat(parts).to("cpu").to(torch.float32) for parts in (self.videos, self.texts))
        return video, text


def encode(
    system: System,
    dataset: RegionTextDataset,
    collate: Collate,
    *,
    device: torch.device | str = "cpu",
    precision: str = "float32",
    batch_size: int = 64,
    workers: int = 0,
    advance: Callable[[int], None] | None = None,
) -> Encodings:
    """Encodes the dataset's videos, with the middle frames of their segments, and its captions.

    Args:
        system: in evaluation mode while this runs, and then back as it was.
        dataset: the videos and captions; it holds no video that its shards lack.
        collate: for the tokens of the captions.
        device: where the system is.
        precision: as ``train.precision``: ``auto`` and ``bf16`` autocast as training does.
        batch_size: videos, and texts, at a time.
        workers: processes that read videos.
        advance: told how many videos or texts were just encoded; there are V + Q in all.

    Raises:
        ShardError: a video cannot be read.
    """
    device = torch.device(device)
    dtype = autocast_dtype(precision, device)
    videos: list[Encoded] = []
    texts: list[Encoded] = []
    with torch.inference_mode(), _evaluating(system), torch.autocast(device.type, dtype, enabled=dtype is not None):
        loader = DataLoader(dataset.videos, batch_size, collate_fn=collate.videos, num_workers=workers)
        for batch in read_batches(loader):
            videos.append(system.encode_video(_tensors(batch, device)))
            if advance:
                advance(len(videos[-1]))
        queries = [caption.caption for caption in dataset.captions]
        for start in range(0, len(queries), batch_size):
            texts.append(system.encode_text(_tensors(collate.texts(queries[start : start + batch_size]), device)))
            if advance:
                advance(len(texts[-1]))
    return Encodings(videos, texts, dataset.video_ids, dataset.captions)


def _tensors(batch: Mapping[str, Any], device: torch.device) -> dict[str, Tensor]:
    return {key: value.to(device, non_blocking=True) for key, value in batch.items() if isinstance(value, Tensor)}


@contextmanager
def _evaluating(system: System) -> Iterator[None]:
    was_training = system.training
    system.eval()
    try:
        yield
    finally:
        system.train(was_training)
