"""Measures a trained checkpoint on a benchmark: what ``regionvlp eval`` does, and :func:`regionvlp.evaluate`.

In: a checkpoint, annotations, shards. Out: :class:`Evaluation`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regionvlp.checkpoints.folder import Checkpoint, load_checkpoint
from regionvlp.config import validate
from regionvlp.data.captions import Captions, Queries, kind_of, load_captions, overlap
from regionvlp.data.settings import RegionClipSettings, SourceSettings
from regionvlp.data.sources import check_script, open_source, text_reader
from regionvlp.devices import pick_device
from regionvlp.errors import InputError, RegionVLPError
from regionvlp.evaluation.encode import encode
from regionvlp.evaluation.metrics import retrieval_metrics
from regionvlp.evaluation.retrieval import Retrieval, public_metrics, rank
from regionvlp.evaluation.suite.base import Benchmark, Items
from regionvlp.evaluation.suite.registry import benchmark_named
from regionvlp.shards import read_manifest
from regionvlp.training.config import DemoVLPConfig, RunConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """A benchmark's figures of one checkpoint.

    Attributes:
        benchmark: which.
        checkpoint: of what.
        items: what was read.
        metrics: ``t2v`` and ``v2t`` of :func:`regionvlp.evaluation.metrics.retrieval_metrics`, where they come from,
            and under ``public`` what the public code would print, where it would print anything.
        retrieval: every similarity.
    """

    benchmark: Benchmark
    checkpoint: Checkpoint
    items: Items
    metrics: dict[str, Any]
    retrieval: Retrieval

    @property
    def setting(self) -> str:
        """``fine-tuned`` where the model has seen captions of the data set, else ``zero-shot``."""
        sources = self.checkpoint.config.data.sources
        seen = any(kind_of(source.captions, source.format) == self.items.format for source in sources)
        return "fine-tuned" if seen else "zero-shot"


def evaluate(
    checkpoint: str | Path | Checkpoint,
    benchmark: str = "csv",
    *,
    annotations: str | Path | None = None,
    shards: str | Path | None = None,
    videos: str | Path | None = None,
    split: str | None = None,
    queries: Queries | None = None,
    frames: int | None = None,
    regions: int | None = None,
    allow_missing: bool = False,
    device: str = "auto",
    begin: Callable[[int], None] = lambda total: None,
    advance: Callable[[int], None] = lambda count: None,
) -> Evaluation:
    """Measures a checkpoint.

    Args:
        checkpoint: a checkpoint's or a run's folder, or an opened one (on the device that it is on).
        benchmark: ``csv`` for one's own captions, or a data set's name.
        annotations: what to evaluate on; by default what the run was evaluated on while it trained.
        shards, videos: where the clips lie, as shards of regions for a model of regions, as videos or cached frames for
            one of pixels; by default where the run's do.
        split, queries: the part of the annotations, and which of a clip's captions; by default the benchmark's.
        frames, regions: of a clip, in place of training's.
        allow_missing: go on where annotated videos are not in the shards.
        device: as ``train.device``; of an opened checkpoint its own.
        begin, advance: told how many videos and texts there are to encode, and then of each batch.

    Raises:
        InputError, ShardError: something cannot be read, is missing, or does not fit the checkpoint.
    """
    measured = benchmark_named(benchmark)
    opened = checkpoint if isinstance(checkpoint, Checkpoint) else load_checkpoint(checkpoint, pick_device(device))
    known = opened.config.evaluated
    captions = Path(annotations) if annotations else known.captions if known else None
    given = {"shards": shards, "videos": videos}
    place = {key: str(value) for key, value in given.items() if value}
    if not place and known:
        place = {"shards": known.shards} if known.shards else {"videos": str(known.videos)}
    if captions is None or not place:
        kind = "shards" if isinstance(opened.config.data.clips, RegionClipSettings) else "videos"
        name = "annotations" if captions is None else kind
        raise InputError(f"the run names no {name} to evaluate on", f"give them with --{name}")
    items = measured.read(captions, split, queries)
    own = known.model_dump(exclude_none=True, exclude={"shards", "videos"}) if known and annotations is None else {}
    source = _source(items, own, place, allow_missing, frames)
    if source.shards and isinstance(opened.config.data.clips, RegionClipSettings):
        opened.check_shards(read_manifest(source.shards), source.shards)
    settings, config = with_regions(opened.config, regions), opened.config
    dataset = open_source(source, settings, frames=config.eval.frames)
    check_script(dataset.captions, opened.tokenizer)
    _say_what_was_trained_on(opened, dataset.captions)
    begin(len(dataset.clips.ids) + len(dataset.captions))
    encodings = encode(
        opened.system,
        dataset,
        text_reader(settings, opened.tokenizer),
        device=next(opened.system.parameters()).device,
        precision=config.train.precision,
        batch_size=config.eval.batch_size,
        workers=config.train.workers,
        advance=advance,
    )
    result = rank(opened.system, encodings, keep_parts=_has_public_number(config))
    metrics: dict[str, Any] = {
        "annotations": str(source.captions),
        **place,
        "frames": dataset.choice.frames,
        **({"regions": settings.clips.regions} if source.shards else {}),
        "allow_missing": source.allow_missing,
        "annotated_videos": dataset.annotated,
        **retrieval_metrics(result.similarity, result.target),
    }
    if result.parts and len(result.captions) == len(result.video_ids):
        metrics["public"] = public_metrics(result)
    return Evaluation(measured, opened, items, metrics, result)


def _say_what_was_trained_on(checkpoint: Checkpoint, captions: Captions) -> None:
    """Warns of videos and captions that the model learnt from, as far as the files of its training are still there."""
    for source in checkpoint.config.data.sources:
        if not source.captions.exists():
            continue
        try:
            learnt = load_captions(
                source.captions, format=source.format, split=source.split, queries=source.queries,
                columns=source.columns,
            )  # fmt: skip
        except RegionVLPError:
            continue  # changed since; a run that goes on would say so
        if shared := overlap(learnt, captions).warning:
            logger.warning("%s was trained on: %s", source.captions, shared)


def _source(
    items: Items, own: dict[str, Any], place: dict[str, str], allow_missing: bool, frames: int | None
) -> SourceSettings:
    """What to read: the benchmark's choice, and of what it leaves open the run's own."""
    chosen = {"captions": items.captions, **place, "allow_missing": allow_missing}
    fixed = {"format": items.format if items.format != "auto" else own.get("format", "auto")}
    asked = {"split": items.split, "queries": items.queries, "frames": frames}
    values = own | chosen | fixed | {key: value for key, value in asked.items() if value is not None}
    return validate(SourceSettings, values, "the options")


def with_regions(config: RunConfig, regions: int | None) -> Any:
    """The run's data settings with R regions a frame, or as they are.

    Raises:
        InputError: the model reads pixels.
    """
    if regions is None:
        return config.data
    if not isinstance(config.data.clips, RegionClipSettings):
        raise InputError("this model reads pixels, and no regions", "leave --regions out")
    return config.data.model_copy(update={"clips": config.data.clips.model_copy(update={"regions": regions})})


def _has_public_number(config: RunConfig) -> bool:
    """Whether the public code would rank by a sum of its own: with models of its form (spec section 7.2)."""
    if not isinstance(config, DemoVLPConfig):
        return False
    loss = config.loss
    return loss.use_global and loss.use_local and loss.local == "region_word" and loss.region_word.form == "public"
