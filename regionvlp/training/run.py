"""A training run from its configuration: what ``pretrain``, ``finetune`` and ``demo`` share.

In: :class:`RunConfig`. Out: a run folder with checkpoints, or a description of what would happen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from regionvlp.config import dump_yaml, resumable_keys
from regionvlp.data.pairs import Pairs
from regionvlp.data.settings import DataSettings
from regionvlp.data.sources import check_script, open_source, text_reader
from regionvlp.data.text.content_words import nltk_tagger
from regionvlp.data.text.tokenizer import TextTokenizer
from regionvlp.devices import pick_device
from regionvlp.errors import InputError, RegionVLPError, WeightsError
from regionvlp.evaluation.encode import encode
from regionvlp.evaluation.metrics import retrieval_metrics
from regionvlp.evaluation.retrieval import rank
from regionvlp.losses.token_match import WORD_WEIGHT
from regionvlp.shards import Manifest
from regionvlp.systems.base import System
from regionvlp.systems.registry import build_system
from regionvlp.training.config import EvalSettings, RunConfig, read_run_config, run_config
from regionvlp.training.distributed import World, close_world, open_world
from regionvlp.training.identity import check_detector, read_detector, save_beside_weights
from regionvlp.training.loaders import Loader
from regionvlp.training.logbook import Logbook
from regionvlp.training.run_folder import find_candidates, open_run
from regionvlp.training.sampler import EpochSampler
from regionvlp.training.saving import find_checkpoint
from regionvlp.training.trainer import Trainer
from regionvlp.weights.modules import fill, read_module_weights


@dataclass(frozen=True)
class Prepared:
    """Everything a run needs, opened and checked against each other."""

    config: RunConfig
    datasets: list[Pairs]
    held_out: Pairs | None
    tokenizer: TextTokenizer
    detector: Mapping[str, Any]
    system: System


def prepare(config: RunConfig) -> Prepared:
    """Opens data, tokenizer and model, and makes sure that they belong together. Writes nothing.

    Raises:
        InputError, ShardError, ConfigError, WeightsError: whatever does not fit, in one line.
    """
    init = find_checkpoint(config.init) if config.init else None
    detector = _detector(config, init)
    torch.manual_seed(config.train.seed)  # the weights that are drawn
    datasets, held_out = _open_data(config)
    tokenizer = _tokenizer(config, init, datasets)
    for dataset in (*datasets, *([held_out] if held_out else [])):
        check_script(dataset.captions, tokenizer)
    system = build_system(config.task, config.model, config.loss, vocab_size=tokenizer.vocab_size, pretrained=not init)
    for source in config.all_sources:
        system.check(Manifest.read(source.shards), source.shards)
    if init:
        _start_from(system, init, config)
    weigh_by = [c for dataset in datasets for c in dataset.captions] if WORD_WEIGHT in system.inputs else []
    texts = text_reader(config.data, tokenizer, weigh_by)
    datasets = [dataset.with_texts(texts) for dataset in datasets]
    return Prepared(config, datasets, held_out, tokenizer, detector, system)


def check_inputs(configs: Iterable[RunConfig]) -> None:
    """What :func:`prepare` and the first step would find wrong, of many runs before the first: no model is built.

    Raises:
        InputError, ShardError, ConfigError, WeightsError: in one line, the first that there is.
    """

    @cache  # most of the runs read the same
    def sizes(data: DataSettings, evaluation: EvalSettings) -> list[int]:
        return [len(dataset) for dataset in _open_pairs(data, evaluation)[0]]

    for config in configs:
        pick_device(config.train.device)
        _detector(config, find_checkpoint(config.init) if config.init else None)
        if config.loss.weighs_words or config.data.words == "nouns_and_verbs":
            nltk_tagger()
        for size in sizes(_on_disk(config.data), config.eval):
            EpochSampler(size, config.train.batch_size, config.train.seed, parts=config.train.accumulate)


def train(
    config: RunConfig | Mapping[str, Any] | str | Path,
    run_dir: str | Path,
    *,
    resume: Literal["auto", "never"] | Path = "auto",
    prepared: Prepared | None = None,
) -> None:
    """Trains to the end, going on where an earlier call for the same folder stopped.

    Args:
        config: a configuration, the mapping that a YAML file of one holds, or such a file's path.
        run_dir: the run folder; made where it is missing.
        resume: ``auto`` goes on from the newest checkpoint, ``never`` wants a new folder, a path names a checkpoint.
        prepared: of the same configuration, where it is there already.

    Raises:
        InputError: the folder holds another run, or one with another tokenizer. KeyboardInterrupt: interrupted, with a
            checkpoint written.
    """
    run_dir, prepared = Path(run_dir), prepared or prepare(_as_config(config))
    world = open_world(prepared.config.train.device)
    try:
        # Built first: what does not fit is found before the run folder is touched.
        trainer = _trainer(prepared, world, run_dir)
        trainer.resume(_opened(prepared, world, run_dir, resume))
        trainer.fit()
    finally:
        close_world(world)


def _as_config(config: RunConfig | Mapping[str, Any] | str | Path) -> RunConfig:
    if isinstance(config, RunConfig):
        return config
    return read_run_config(Path(config)) if isinstance(config, str | Path) else run_config(config)


def describe(prepared: Prepared) -> dict[str, Any]:
    """What a run would be, after one step was taken as training takes it. Writes nothing."""
    world = open_world(prepared.config.train.device)
    try:
        trainer = _trainer(prepared, world, Path())
        _, parts = trainer.loaders.next()
        trainer.loaders.close()
        scalars = trainer.train_step(*parts)
        return {
            "task": prepared.config.task,
            "device": str(world.device),
            "processes": world.size,
            "parameters": sum(p.numel() for p in trainer.system.parameters()),
            "vocabulary": prepared.tokenizer.vocab_size,
            "pairs": {loader.name: loader.sampler.size for loader in trainer.loaders.loaders},
            "held_out": len(prepared.held_out.captions) if prepared.held_out else 0,
            "batch_size": prepared.config.train.batch_size,
            "steps_per_epoch": trainer.loaders.steps_per_epoch,
            "steps": trainer.total_steps,
            "first_batch": {name: round(float(value.detach()), 4) for name, value in scalars.items()},
        }
    finally:
        close_world(world)


def _open_data(config: RunConfig) -> tuple[list[Pairs], Pairs | None]:
    return _open_pairs(config.data, config.eval, trim=not config.counts_padding, seed=config.train.seed)


def _open_pairs(
    data: DataSettings, evaluation: EvalSettings, *, trim: bool = False, seed: int = 0
) -> tuple[list[Pairs], Pairs | None]:
    """What is trained on, and what is held out."""
    datasets = [open_source(source, data, training=True, trim=trim, seed=seed) for source in data.sources]
    if evaluation.source is None:
        return datasets, None
    return datasets, open_source(evaluation.source, data, frames=evaluation.frames)


def _on_disk(data: DataSettings) -> DataSettings:
    """The same without reading everything at once, where that was asked for."""
    fields = type(data.clips).model_fields
    clips = data.clips.model_copy(update={"in_memory": False} if "in_memory" in fields else {})
    return data.model_copy(update={"clips": clips})


def _trainer(prepared: Prepared, world: World, run_dir: Path) -> Trainer:
    config = prepared.config
    return Trainer(
        prepared.system,
        _loaders(prepared, world),
        config.train,
        config.optim,
        run_dir,
        world=world,
        logbook=Logbook(run_dir) if world.is_main else None,
        evaluate=_evaluator(prepared, world) if prepared.held_out else None,
        save_extra=lambda folder: save_beside_weights(folder, prepared.tokenizer, prepared.detector),
    )


def _opened(
    prepared: Prepared, world: World, run_dir: Path, resume: Literal["auto", "never"] | Path
) -> tuple[Path, ...]:
    """Opens the run folder on the main process; every process gets its candidates, or its complaint."""
    candidates: tuple[Path, ...] = ()
    complaint: tuple[str, str] | None = None
    if world.is_main:
        try:
            found = find_candidates(run_dir, resume)
            if found:
                _check_same_inputs(prepared, found[0])
            config = prepared.config
            candidates = open_run(
                run_dir, dump_yaml(config), resume, seed=config.train.seed, may_differ=resumable_keys(type(config)),
                read=lambda path: read_run_config(path).model_dump(mode="json"),
            ).candidates  # fmt: skip
        except RegionVLPError as error:
            complaint = error.message, error.hint
    candidates, complaint = world.from_main((candidates, complaint))
    if complaint:
        raise InputError(*complaint)
    return candidates


def _check_same_inputs(prepared: Prepared, checkpoint: Path) -> None:
    """Refuses to go on with another vocabulary or detector than the checkpoint's: its weights would mean nothing."""
    complaint = "the shards now come from another detector than the run's"
    check_detector(read_detector(checkpoint), prepared.detector, complaint)
    if TextTokenizer.load(checkpoint).hash != prepared.tokenizer.hash:
        raise InputError(
            f"the tokenizer is not the one of {checkpoint}: the captions or the tokenizer changed",
            "restore them, or start a new run from these weights with --set init=...",
        )


def flat_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """``{"t2v": {"R1": ..}}`` as ``{"t2v/R1": ..}``, text-to-video recall at 1 first: what "best" is judged by."""
    return {
        f"{direction}/{name}": float(value)
        for direction in ("t2v", "v2t")
        for name, value in metrics[direction].items()
        if name in ("R1", "R5", "R10", "MedR", "MeanR")
    }


def _start_from(system: System, init: Path, config: RunConfig) -> None:
    """Copies the weights of a checkpoint, which may have been built for other numbers of frames and regions."""
    state = system.adapt(read_module_weights(init), config.inflation)
    try:
        fill(system, state, init)
    except WeightsError as error:
        hint = f"start with its own configuration: --config {init / 'config.yaml'}"
        raise WeightsError(error.message, hint) from None


def _evaluator(prepared: Prepared, world: World) -> Any:
    held_out, config = prepared.held_out, prepared.config
    assert held_out is not None
    texts = text_reader(config.data, prepared.tokenizer)

    def evaluate(system: nn.Module) -> dict[str, float]:
        assert isinstance(system, System)
        encoded = encode(
            system, held_out, texts, device=world.device, precision=config.train.precision,
            batch_size=config.eval.batch_size, workers=config.train.workers,
        )  # fmt: skip
        found = rank(system, encoded)
        return flat_metrics(retrieval_metrics(found.similarity, found.target))

    return evaluate


def _loaders(prepared: Prepared, world: World) -> list[Loader]:
    config = prepared.config
    names = _names([source.captions for source in config.data.sources])
    return [
        Loader(dataset, config.train, world, name, number, unreadable=config.data.unreadable)
        for number, (dataset, name) in enumerate(zip(prepared.datasets, names, strict=True))
    ]


def _names(paths: list[Path]) -> list[str]:
    """A name per source for the log: its file's stem, numbered where two agree."""
    stems = [path.stem for path in paths]
    return [stem if stems.count(stem) == 1 else f"{stem}-{number}" for number, stem in enumerate(stems)]


def _detector(config: RunConfig, init: Path | None) -> Mapping[str, Any]:
    """The one detector that all shards of the run come from, and that the model is built for."""
    identity: Mapping[str, Any] | None = (read_detector(init) or None) if init else None
    for source in config.all_sources:
        manifest = Manifest.read(source.shards)
        if identity is not None:
            check_detector(identity, manifest.detector, f"{source.shards} holds regions of another detector")
        identity = manifest.detector
    assert identity is not None, "a run has at least one source"
    config.check_sizes()
    return identity


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
