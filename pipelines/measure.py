"""Measures a trained model: retrieval, and grounding where the captions' file knows the true boxes.

In: a checkpoint and captioned videos. Out: :class:`Results`. Boxes are known where the captions are JSON lines as the
toy world writes them (see :func:`regionvlp.pipelines.toy.world.write_clips`).

Shape letters: V videos, F frames, R regions, W words, D joint width.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from regionvlp.checkpoints.folder import Checkpoint
from regionvlp.data.clips.regions import RegionClips
from regionvlp.data.pairs import Pairs
from regionvlp.data.settings import SourceSettings
from regionvlp.data.sources import open_source, text_reader
from regionvlp.evaluation.encode import encode
from regionvlp.evaluation.grounding import GroundedObject, pointing_accuracy
from regionvlp.evaluation.metrics import retrieval_metrics
from regionvlp.evaluation.retrieval import Retrieval, rank
from regionvlp.models import Encoded
from regionvlp.regions import VideoRegions
from regionvlp.shards import read_manifest
from regionvlp.shards.detectors import box_edges, counts_last_pixel


@dataclass(frozen=True)
class Results:
    """What one trained model does on held-out clips.

    Attributes:
        metrics: of :func:`retrieval_metrics`.
        grounding: of :func:`pointing_accuracy`; empty where no boxes are known.
        retrieval: the similarities.
        video, text: the encodings of the V videos and of the captions, where boxes are known.
        dataset: what was evaluated.
        annotations: the rows of the captions' file where boxes are known, row i being the one caption of video i.
        last_pixel: whether the regions' boxes count their last pixel.
    """

    checkpoint: Checkpoint
    dataset: Pairs
    metrics: Mapping[str, Any]
    retrieval: Retrieval
    grounding: Mapping[str, Any]
    annotations: list[dict[str, Any]]
    video: Encoded | None = None
    text: Encoded | None = None
    last_pixel: bool = False


def measure(checkpoint: Checkpoint, source: SourceSettings, device: torch.device | str = "cpu") -> Results:
    """Evaluates a checkpoint, whose system is on ``device``, on captioned videos.

    Raises:
        InputError, ShardError: captions and shards cannot be read, or do not fit each other.
    """
    config = checkpoint.config
    dataset = open_source(source, config.data, frames=config.eval.frames)
    encodings = encode(
        checkpoint.system, dataset, text_reader(config.data, checkpoint.tokenizer),
        device=device, precision=config.train.precision, batch_size=config.eval.batch_size,
    )  # fmt: skip
    retrieval = rank(checkpoint.system, encodings)
    metrics = retrieval_metrics(retrieval.similarity, retrieval.target)
    rows = _rows_with_boxes(source.captions, [*dataset.clips.ids])
    if not rows or source.shards is None:
        return Results(checkpoint, dataset, metrics, retrieval, {}, [])
    video, text = encodings.whole()
    last_pixel = counts_last_pixel(read_manifest(source.shards).detector)
    grounding = pointing_accuracy(
        thing for i, row in enumerate(rows) for thing in _objects(checkpoint, row, i, video, text, dataset, last_pixel)
    )
    return Results(checkpoint, dataset, metrics, retrieval, {**grounding}, rows, video, text, last_pixel)


def region_clips(dataset: Pairs) -> RegionClips:
    """The clips of a data set of regions."""
    assert isinstance(dataset.clips, RegionClips)
    return dataset.clips


def region_edges(regions: VideoRegions, slots: int, last_pixel: bool) -> NDArray[np.floating]:
    """Boxes [F, R, 4] as edges, R being ``slots``; some detectors count pixels, from the first to the last.

    Where the shards hold fewer regions the rest is empty, as the mask says.
    """
    boxes = regions.boxes[:, :slots]
    boxes = np.pad(boxes, ((0, 0), (0, slots - boxes.shape[1]), (0, 0)))
    return box_edges(boxes, last_pixel)


def region_tokens(
    video: Encoded, i: int, dataset: Pairs, frames: int
) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    """Tokens [F, R, D] and mask [F, R] of video i, in the ``frames`` that are stored of it.

    A video with fewer frames than the model reads is encoded with its last one repeated: no frame of its own.
    """
    shape = (dataset.choice.frames, region_clips(dataset).settings.regions)
    tokens, mask = video.tokens[i].reshape(*shape, -1), video.mask[i].reshape(shape)
    return tokens[:frames].numpy(), mask[:frames].numpy()


def _rows_with_boxes(captions: Path, video_ids: list[str]) -> list[dict[str, Any]]:
    """The rows of a file that names true boxes, one per video and in their order; none of any other file."""
    if captions.suffix != ".jsonl":
        return []
    rows = [json.loads(line) for line in captions.read_text(encoding="utf-8").splitlines() if line.strip()]
    known = all(_names_boxes(row) for row in rows) and [row["video_id"] for row in rows] == video_ids
    return rows if known else []


def _names_boxes(row: dict[str, Any]) -> bool:
    objects = row.get("objects")
    return isinstance(objects, list) and all(
        isinstance(thing, dict) and {"noun_span", "boxes"} <= thing.keys() for thing in objects
    )


def _objects(
    checkpoint: Checkpoint,
    row: dict[str, Any],
    i: int,
    video: Encoded,
    text: Encoded,
    dataset: Pairs,
    last_pixel: bool,
) -> list[GroundedObject]:
    """The objects that caption i names, with what the model made of them."""
    clips = region_clips(dataset)
    regions = clips.stored(i, dataset.choice)
    length = checkpoint.config.data.text_length
    tokens, mask = region_tokens(video, i, dataset, regions.num_frames)
    found = []
    for thing in row["objects"]:
        true = [thing["boxes"][index] or [np.nan] * 4 for index in regions.frame_index]
        # Positions count [CLS], which is not among the tokens.
        words = [
            position - 1 for position in checkpoint.tokenizer.tokens_of(row["caption"], thing["noun_span"], length)
        ]
        found.append(
            GroundedObject(
                words=text.tokens[i, words].numpy(),
                regions=tokens,
                region_mask=mask,
                boxes=region_edges(regions, clips.settings.regions, last_pixel),
                true_boxes=np.array(true, np.float64),
            )
        )
    return found
