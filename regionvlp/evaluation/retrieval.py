"""Runs a model over a data set: every video once, every query once, and all of them against each other.

Shape letters: Q queries (texts), V videos. In: a model, a dataset. Out: the similarity matrix with its ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from regionvlp.data.captions import Caption
from regionvlp.data.dataset import Collate, RegionTextDataset
from regionvlp.data.loading import read_batches
from regionvlp.errors import InputError
from regionvlp.evaluation.metrics import RetrievalMetrics, retrieval_metrics
from regionvlp.models.encoded import Encoded


class RetrievalModel(Protocol):
    """What retrieval needs of a model: the two encoders, and how similar their outputs are."""

    def encode_video(self, batch: Mapping[str, Tensor]) -> Encoded: ...

    def encode_text(self, batch: Mapping[str, Tensor]) -> Encoded: ...

    def similarities(self, video: Encoded, text: Encoded) -> Mapping[str, Tensor]:
        """The parts of the similarity, [texts, videos] each."""
        ...


@dataclass(frozen=True)
class Retrieval:
    """A finished run.

    Attributes:
        similarity: [Q, V] float32.
        parts: what it is the sum of, by name, [Q, V] each; empty unless asked for.
        target: [Q] int64, the column of each query's video.
        captions: the Q queries.
        video_ids: the V videos.
    """

    similarity: NDArray[np.float32]
    parts: Mapping[str, NDArray[np.float32]]
    target: NDArray[np.int64]
    captions: list[Caption]
    video_ids: list[str]


def run_retrieval(
    model: RetrievalModel,
    dataset: RegionTextDataset,
    collate: Collate,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 64,
    workers: int = 0,
    keep_parts: bool = False,
    advance: Callable[[int], None] | None = None,
) -> Retrieval:
    """Encodes the dataset's videos and captions and compares them all.

    Frames are the middle ones of their segments, whatever the dataset does in training. The encodings stay on the
    device; similarities are computed for ``batch_size`` texts and as many videos at a time.

    Args:
        model: in evaluation mode while this runs, and then back as it was.
        dataset: the videos and captions; it holds no video that its shards lack.
        collate: for the tokens of the captions.
        device: where the model is.
        batch_size: videos, and texts, at a time.
        workers: processes that read regions.
        keep_parts: also return what the similarity is the sum of.
        advance: told how many videos or texts were just encoded; there are V + Q in all.

    Raises:
        ShardError: a video cannot be read.
    """
    shape = len(dataset.captions), len(dataset.videos)
    matrices: dict[str, NDArray[np.float32]] = {}
    with torch.inference_mode(), _evaluating(model):
        videos = []
        for video in encode_videos(model, dataset, collate, device=device, batch_size=batch_size, workers=workers):
            videos.append(video)
            if advance:
                advance(len(video))
        start = 0
        for text in encode_texts(model, dataset, collate, device=device, batch_size=batch_size):
            blocks = [model.similarities(video, text) for video in videos]
            for name in blocks[0]:
                values = np.concatenate([block[name].float().cpu().numpy() for block in blocks], axis=1)
                matrix = matrices.setdefault(name if keep_parts else "sum", np.zeros(shape, np.float32))
                matrix[start : start + len(text)] += values
            start += len(text)
            if advance:
                advance(len(text))
    column = {video_id: i for i, video_id in enumerate(dataset.video_ids)}
    target = np.array([column[caption.video_id] for caption in dataset.captions], np.int64)
    similarity = sum(matrices.values(), start=np.zeros(shape, np.float32)) if keep_parts else matrices["sum"]
    parts = matrices if keep_parts else {}
    return Retrieval(similarity, parts, target, dataset.captions, dataset.video_ids)


def encode_videos(
    model: RetrievalModel,
    dataset: RegionTextDataset,
    collate: Collate,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 64,
    workers: int = 0,
) -> Iterator[Encoded]:
    """The dataset's videos in their order, each once, ``batch_size`` at a time; arguments as above.

    The caller sets evaluation mode and keeps gradients off.
    """
    loader = DataLoader(dataset.videos, batch_size, collate_fn=collate.videos, num_workers=workers)
    for batch in read_batches(loader):
        yield model.encode_video(_tensors(batch, device))


def encode_texts(
    model: RetrievalModel,
    dataset: RegionTextDataset,
    collate: Collate,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 64,
) -> Iterator[Encoded]:
    """The dataset's captions in their order, ``batch_size`` at a time; as :func:`encode_videos`."""
    queries = [caption.caption for caption in dataset.captions]
    for start in range(0, len(queries), batch_size):
        yield model.encode_text(_tensors(collate.texts(queries[start : start + batch_size]), device))


def fuse_similarities(
    global_texts: NDArray[np.floating],
    local_videos: NDArray[np.floating],
    fusion: Literal["aligned", "public_unaligned"] = "aligned",
) -> NDArray[np.floating]:
    """Adds the global and the local similarity with weight 1 each (DemoVLP section 3.3).

    Args:
        global_texts: [Q, V], rows are texts.
        local_videos: [V, Q], rows are videos.
        fusion: ``aligned`` turns the second around. ``public_unaligned`` does not, as the public evaluation: entry
            (i, j) then mixes text i with video j and video i with text j. That is no score of a retrieval, and only
            there to be compared with published numbers.

    Returns:
        [Q, V].

    Raises:
        InputError: an unaligned sum of unequally many texts and videos.
    """
    if fusion == "aligned":
        return global_texts + local_videos.T
    if global_texts.shape != local_videos.shape:
        raise InputError("the public, unaligned sum needs as many texts as videos", "use fusion: aligned")
    return global_texts + local_videos


def public_metrics(run: Retrieval) -> RetrievalMetrics:
    """What the public DemoVLP evaluation would print of a run: the unaligned sum, ties in the right video's favour.

    Args:
        run: with its parts ``global`` and ``local``, one caption a video.

    Raises:
        InputError: some video has more than one caption, so that there is no such sum.
    """
    if not np.array_equal(run.target, np.arange(run.similarity.shape[1])):
        raise InputError("the public, unaligned sum needs one caption per video", "evaluate one caption per video")
    fused = fuse_similarities(run.parts["global"], run.parts["local"].T, "public_unaligned")
    return retrieval_metrics(fused, run.target, ties="public")


def _tensors(batch: Mapping[str, Any], device: torch.device | str) -> dict[str, Tensor]:
    return {key: value.to(device, non_blocking=True) for key, value in batch.items() if isinstance(value, Tensor)}


@contextmanager
def _evaluating(model: RetrievalModel) -> Iterator[None]:
    was_training = isinstance(model, nn.Module) and model.training
    if isinstance(model, nn.Module):
        model.eval()
    try:
        yield
    finally:
        if isinstance(model, nn.Module):
            model.train(was_training)
