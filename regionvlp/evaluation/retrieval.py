"""Compares every query with every video: the similarity matrix that retrieval is measured on.

Shape letters: Q queries (texts), V videos. In: encodings. Out: the matrix with its ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from regionvlp.data.captions import Caption
from regionvlp.errors import InputError
from regionvlp.evaluation.encode import Encodings
from regionvlp.evaluation.metrics import RetrievalMetrics, retrieval_metrics
from regionvlp.systems.base import System


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
    captions: Sequence[Caption]
    video_ids: Sequence[str]


def rank(system: System, encodings: Encodings, *, keep_parts: bool = False) -> Retrieval:
    """Compares all texts with all videos, a batch of either at a time.

    Args:
        system: says how similar two encodings are.
        encodings: of its own.
        keep_parts: also return what the similarity is the sum of.
    """
    shape = len(encodings.captions), len(encodings.video_ids)
    matrices: dict[str, NDArray[np.float32]] = {}
    start = 0
    with torch.inference_mode():
        for text in encodings.texts:
            blocks = [system.similarities(video, text) for video in encodings.videos]
            for name in blocks[0]:
                values = np.concatenate([block[name].float().cpu().numpy() for block in blocks], axis=1)
                matrix = matrices.setdefault(name if keep_parts else "sum", np.zeros(shape, np.float32))
                matrix[start : start + len(text)] += values
            start += len(text)
    target = np.array(encodings.video_of, np.int64)
    similarity = sum(matrices.values(), start=np.zeros(shape, np.float32)) if keep_parts else matrices["sum"]
    return Retrieval(similarity, matrices if keep_parts else {}, target, encodings.captions, encodings.video_ids)


def fuse_similarities(
    global_texts: NDArray[np.floating],
    local_videos: NDArray[np.floating],
    fusion: Literal["aligned", "public_unaligned"] = "aligned",
) -> NDArray[np.floating]:
    """Adds the global and the local similarity with weight 1 each (DemoVLP, appendix A.3).

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
