"""What ``regionvlp report EVAL`` draws of single queries: frames of the right video, and the regions that answer words.

In: rows of an evaluation's table of ranks. Out: examples of its page. The model is opened again for these alone.
Shape letters: F frames, R regions, W words, D joint width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regionvlp.checkpoints.evaluate import with_regions
from regionvlp.checkpoints.folder import Checkpoint, load_checkpoint
from regionvlp.data.clips.frame_choice import FrameChoice
from regionvlp.data.clips.regions import RegionClips
from regionvlp.data.settings import RegionClipSettings
from regionvlp.errors import InputError, RegionVLPError
from regionvlp.evaluation.ranks import Ranked
from regionvlp.extract.sources import open_source
from regionvlp.pipelines.measure import region_edges
from regionvlp.pipelines.shards_draw import pictures
from regionvlp.regions import VideoRegions
from regionvlp.report.evaluation import (
    SHOWN_HITS,
    chosen,
    hits_of,
    plain_example,
    read_evaluation,
    write_evaluation_page,
)
from regionvlp.report.heat import heat_boxes, strengths, words_and_rows
from regionvlp.report.page import inline_jpeg
from regionvlp.report.retrieval import Example, GroundedFrame
from regionvlp.shards import open_shards
from regionvlp.shards.detectors import counts_last_pixel
from regionvlp.shards.vocabulary import read_vocabulary
from regionvlp.weights.modules import WEIGHTS

FRAMES = 4  # of a query's video
FRAME_SIDE, THUMBNAIL_SIDE = 400, 160  # pixels at most
Pictures = Mapping[int, NDArray[np.uint8]]


@dataclass
class _Seen:
    """Frames of videos by number, as far as they could be read."""

    frames: dict[str, Pictures] = field(default_factory=dict)

    def thumbnail(self, video_id: str) -> str:
        found = list(self.frames.get(video_id, {}).values())
        return inline_jpeg(found[len(found) // 2], 75, THUMBNAIL_SIDE) if found else ""

    def picture(self, video_id: str, number: int) -> str:
        found = self.frames.get(video_id, {}).get(number)
        return "" if found is None else inline_jpeg(found, 80, FRAME_SIDE)


def draw_evaluation(folder: Path, out: Path, videos: str | None, count: int) -> None:
    """Writes the page of an evaluation.

    What cannot be had any more, the checkpoint or its shards, is said on the page.

    Raises:
        InputError: ``folder`` is no evaluation, or ``videos`` are not those that were extracted.
    """
    metrics, rows = read_evaluation(folder)
    best, worst = chosen(rows, count)
    wanted = [*best, *worst]
    seen, notes = _Seen(), []
    if videos is not None:
        seen = _read(metrics, wanted, videos)
    examples: dict[Ranked, Example] = {}
    try:
        examples = _grounded(_opened(folder, metrics), metrics, wanted, seen) if wanted else {}
    except RegionVLPError as error:
        notes.append(f"Which regions answer which words is not shown: {error.message}.")
    write_evaluation_page(
        out, folder, metrics, rows, count=count, notes=notes,
        example=lambda row: examples.get(row) or replace(plain_example(row), hits=hits_of(row, seen.thumbnail)),
    )  # fmt: skip


def _read(metrics: Mapping[str, Any], rows: Sequence[Ranked], videos: str) -> _Seen:
    """The stored frames of the right videos and of those that were found first."""
    if not metrics.get("shards"):
        raise InputError("--videos is for evaluations on shards, and this one read pixels", "leave it out")
    ids = list(dict.fromkeys(name for row in rows for name in (row.video_id, *row.top_ids[:SHOWN_HITS])))
    place = Path(metrics["shards"])
    drawn = pictures(place, open_shards(place), open_source(videos), ids)
    return _Seen(
        {regions.video_id: dict(zip(regions.frame_index.tolist(), frames, strict=True)) for frames, regions, _ in drawn}
    )


def _opened(folder: Path, metrics: Mapping[str, Any]) -> Checkpoint:
    """The checkpoint that was measured, with the frames and regions that it was measured with."""
    if not metrics.get("shards"):
        raise InputError("the model reads pixels")
    beside = folder.resolve().parents[1]  # CHECKPOINT/eval/NAME, wherever it was moved to
    found = load_checkpoint(beside if (beside / WEIGHTS).is_file() else metrics["checkpoint"])
    evaluation = found.config.eval.model_copy(update={"frames": metrics["frames"]})
    data = with_regions(found.config, metrics.get("regions"))
    return replace(found, config=found.config.model_copy(update={"data": data, "eval": evaluation}))


def _grounded(
    checkpoint: Checkpoint, metrics: Mapping[str, Any], rows: Sequence[Ranked], seen: _Seen
) -> dict[Ranked, Example]:
    """An example for each row."""
    place, config = Path(metrics["shards"]), checkpoint.config
    settings = config.data.clips
    assert isinstance(settings, RegionClipSettings)
    reader, vocabulary = open_shards(place), read_vocabulary(place)
    checkpoint.check_shards(reader.manifest, place)
    ids = list(dict.fromkeys(row.video_id for row in rows))
    clips, choice = RegionClips(reader, ids, settings), FrameChoice(metrics["frames"])
    video, text = checkpoint.encode_videos(ids, reader), checkpoint.encode_text([row.query for row in rows])
    last_pixel = counts_last_pixel(reader.manifest.detector)
    examples = {}
    for i, row in enumerate(rows):
        v = ids.index(row.video_id)
        regions = clips.stored(v, choice)
        shape = (metrics["frames"], settings.regions)
        tokens = video.tokens[v].reshape(*shape, -1)[: regions.num_frames].numpy()
        mask = video.mask[v].reshape(shape)[: regions.num_frames].numpy()
        words, pieces = words_and_rows(checkpoint.tokenizer, row.query, config.data.text_length)
        answers, shown = strengths([text.tokens[i, at].numpy() for at in pieces], tokens, mask)
        names = vocabulary.objects if vocabulary else None
        frames = _frames(regions, answers, region_edges(regions, settings.regions, last_pixel), names, seen)
        examples[row] = Example(row.query, words, shown, row.video_id, row.rank, frames, hits_of(row, seen.thumbnail))
    return examples


def _frames(
    regions: VideoRegions,
    answers: NDArray[np.floating],
    edges: NDArray[np.floating],
    names: Sequence[str] | None,
    seen: _Seen,
) -> list[GroundedFrame]:
    """Some of the F frames of a video. ``answers`` are [W, F, R], ``edges`` [F, R, 4]."""
    found = []
    step = max(1, regions.num_frames // FRAMES)
    for f in [*range(step // 2, regions.num_frames, step)][:FRAMES]:
        real = min(edges.shape[1], int(regions.num_regions[f]))
        kinds = regions.class_ids[f, :real].tolist()
        labels = [
            f"{names[kind].split(',')[0] if names else f'class {kind}'} {score:.2f}"
            for kind, score in zip(kinds, regions.scores[f, :real].tolist(), strict=True)
        ]
        height, width = (int(side) for side in regions.image_size[f])
        picture = seen.picture(regions.video_id, int(regions.frame_index[f]))
        boxes = heat_boxes(answers[:, f], edges[f], labels)
        found.append(GroundedFrame(picture, width, height, f"{regions.frame_time[f]:.1f} s", boxes))
    return found
