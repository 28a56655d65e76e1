"""Opens and checks everything that a training run needs, before anything is written.

In: a run's configuration. Out: :class:`Prepared`, or one line that says what does not fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from regionvlp.data.pairs import Pairs
from regionvlp.data.settings import DataSettings
from regionvlp.data.sources import check_script, open_source, text_reader
from regionvlp.data.text.content_words import nltk_tagger
from regionvlp.data.text.tokenizer import TextTokenizer
from regionvlp.devices import pick_device
from regionvlp.errors import InputError, WeightsError
from regionvlp.losses.token_match import WORD_WEIGHT
from regionvlp.shards import read_manifest
from regionvlp.systems.base import System
from regionvlp.systems.registry import build_system
from regionvlp.training.config import EvalSettings, RunConfig
from regionvlp.training.distributed import World
from regionvlp.training.identity import check_detector, read_detector
from regionvlp.training.loaders import RoundRobin
from regionvlp.training.saving import find_checkpoint
from regionvlp.training.sense import check_captions, check_settings
from regionvlp.training.settings import check_warmup, planned_steps
from regionvlp.training.turns import loaders_of, seed_of
from regionvlp.weights.modules import fill, read_module_weights


@dataclass(frozen=True)
class Prepared:
    """Everything a stage of a run needs, opened and checked against each other.

    Attributes:
        run: the configuration of the whole run. stage: which of its stages, from 0; config: that of the stage.
    """

    run: RunConfig
    stage: int
    config: RunConfig
    datasets: list[Pairs]
    held_out: Pairs | None
    tokenizer: TextTokenizer
    detector: Mapping[str, Any]
    system: System


def prepare(run: RunConfig, stage: int = 0, init: Path | None = None) -> Prepared:
    """Opens data, tokenizer and model, and makes sure that they belong together. Writes nothing.

    Args:
        run: the configuration. stage: which of its stages.
        init: a checkpoint to start from, instead of ``run.init``; later stages have none of their own.

    Raises:
        InputError, ShardError, ConfigError, WeightsError: whatever does not fit, in one line.
    """
    config = run.staged()[stage]
    if init is not None:
        config = config.model_copy(update={"init": str(init)})
    check_settings(config)
    init = find_checkpoint(config.init) if config.init else None
    detector = _detector(config, init)
    torch.manual_seed(config.train.seed)  # the weights that are drawn
    datasets, held_out = _open_data(config, stage)
    tokenizer = _tokenizer(config, init, datasets)
    for dataset in (*datasets, *([held_out] if held_out else [])):
        check_script(dataset.captions, tokenizer)
    check_captions(datasets, held_out, tokenizer, config)
    system = build_system(config.task, config.model, config.loss, vocab_size=tokenizer.vocab_size, pretrained=not init)
    for source in config.all_sources:
        if source.shards:
            system.check(read_manifest(source.shards), source.shards)
    if init:
        _start_from(system, init, config)
    weigh_by = [c for dataset in datasets for c in dataset.captions] if WORD_WEIGHT in system.inputs else []
    texts = text_reader(config.data, tokenizer, weigh_by)
    datasets = [dataset.with_texts(texts) for dataset in datasets]
    return Prepared(run, stage, config, datasets, held_out, tokenizer, detector, system)


def check_inputs(configs: Iterable[RunConfig]) -> list[int]:
    """What :func:`prepare` and the first step would find wrong, of many runs before the first: no model is built.

    Returns:
        The optimizer steps of each.

    Raises:
        InputError, ShardError, ConfigError, WeightsError: in one line, the first that there is.
    """

    @cache  # most of the runs read the same
    def opened(data: DataSettings, evaluation: EvalSettings) -> list[Pairs]:
        return _open_pairs(data, evaluation)[0]

    steps = []
    for config in configs:
        check_settings(config)
        pick_device(config.train.device)
        _detector(config, find_checkpoint(config.init) if config.init else None)
        if config.loss.weighs_words or config.data.words == "nouns_and_verbs":
            nltk_tagger()
        loaders = loaders_of(opened(_on_disk(config.data), config.eval), config, World())
        stream = RoundRobin(loaders, config.train.samples_per_epoch, config.train.epoch)
        steps.append(planned_steps(config.train, stream.steps_per_epoch))
        check_warmup(config.optim, steps[-1])
    return steps


def _open_data(config: RunConfig, stage: int) -> tuple[list[Pairs], Pairs | None]:
    trim = not config.counts_padding and config.train.turns != "mix"  # a mixed batch joins tensors of one width
    return _open_pairs(config.data, config.eval, trim=trim, seed=seed_of(config, stage))


def _open_pairs(
    data: DataSettings, evaluation: EvalSettings, *, trim: bool = False, seed: int = 0
) -> tuple[list[Pairs], Pairs | None]:
    """What is trained on, and what is held out."""
    evaluated = evaluation.source or next((source for source in data.sources if source.held_out), None)
    held_out = open_source(evaluated, data, frames=evaluation.frames) if evaluated else None
    without = set(held_out.clips.ids) if held_out and not evaluation.source else ()
    return [
        open_source(source, data, training=True, trim=trim, seed=seed, without=without) for source in data.sources
    ], held_out


def _on_disk(data: DataSettings) -> DataSettings:
    """The same without reading everything at once, where that was asked for."""
    fields = type(data.clips).model_fields
    clips = data.clips.model_copy(update={"in_memory": False} if "in_memory" in fields else {})
    return data.model_copy(update={"clips": clips})


def _start_from(system: System, init: Path, config: RunConfig) -> None:
    """Copies the weights of a checkpoint, which may have been built for other numbers of frames and regions."""
    state = system.adapt(read_module_weights(init), config.inflation)
    try:
        fill(system, state, init)
    except WeightsError as error:
        hint = f"start with its own configuration: --config {init / 'config.yaml'}"
        raise WeightsError(error.message, hint) from None


def _detector(config: RunConfig, init: Path | None) -> Mapping[str, Any]:
    """The one detector that all shards of the run come from, and that the model is built for; empty without shards."""
    identity: Mapping[str, Any] | None = (read_detector(init) or None) if init else None
    for source in config.all_sources:
        if source.shards is None:
            continue
        manifest = read_manifest(source.shards)
        if identity is not None:
            check_detector(identity, manifest.detector, f"{source.shards} holds regions of another detector")
        identity = manifest.detector
    config.check_sizes()
    return identity or {}


def _tokenizer(config: RunConfig, init: Path | None, datasets: list[Pairs]) -> TextTokenizer:
    """The tokenizer of the weights to start from, the one named, or one trained on the captions."""
    if init:
        return TextTokenizer.load(init)
    if config.tokenizer.name is not None:
        return TextTokenizer.load(config.tokenizer.name)
    if config.model.text.pretrained is not None:
        raise InputError(
            "a pre-trained text encoder needs the tokenizer it was trained with", "set tokenizer.name to its name"
        )
    texts = [caption.caption for dataset in datasets for caption in dataset.captions]
    return TextTokenizer.train(texts, config.tokenizer.vocab_size)
