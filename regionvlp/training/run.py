"""A training run from its configuration: what ``pretrain``, ``finetune`` and ``demo`` share.

In: :class:`RunConfig`. Out: a run folder with checkpoints, or a description of what would happen.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import nn

from regionvlp.config import dump_yaml, resumable_keys
from regionvlp.data.sources import text_reader
from regionvlp.data.text.tokenizer import TextTokenizer
from regionvlp.errors import InputError, RegionVLPError
from regionvlp.evaluation.encode import encode
from regionvlp.evaluation.metrics import LOGGED, retrieval_metrics
from regionvlp.evaluation.retrieval import rank
from regionvlp.systems.base import System
from regionvlp.training.best import Best
from regionvlp.training.config import RunConfig, read_run_config, run_config
from regionvlp.training.distributed import World, close_world, one_complaint, open_world
from regionvlp.training.identity import (
    check_data,
    check_detector,
    data_of,
    read_detector,
    save_beside_weights,
    stage_of,
)
from regionvlp.training.interrupts import nothing_to_save
from regionvlp.training.logbook import Logbook
from regionvlp.training.preparing import Prepared, check_inputs, prepare
from regionvlp.training.run_folder import RunLock, check_run, find_candidates, open_run
from regionvlp.training.saving import check_whole, lacks, path_of
from regionvlp.training.sense import best_sense
from regionvlp.training.trainer import Outcome, Trainer
from regionvlp.training.turns import loaders_of, visits
from regionvlp.weights.modules import DamagedCheckpointError

# Where data lies may change while a run goes on: what it holds is compared instead, see identity.
PLACES = tuple(
    f"{source}.{key}" for source in ("data.sources.*", "eval.source") for key in ("captions", "shards", "videos")
)

logger = logging.getLogger(__name__)


def train(
    config: RunConfig | Mapping[str, Any] | str | Path,
    run_dir: str | Path,
    *,
    resume: Literal["auto", "never"] | Path = "auto",
    prepared: Prepared | None = None,
) -> Outcome:
    """Trains to the end, going on where an earlier call for the same folder stopped.

    Args:
        config: a configuration, the mapping that a YAML file of one holds, or such a file's path.
        run_dir: the run folder; made where it is missing.
        resume: ``auto`` goes on from the newest checkpoint, ``never`` wants a new folder, a path names a checkpoint.
        prepared: of the same configuration, where it is there already.

    Returns:
        After how many steps the run ended, whether early, and its best evaluation.

    Raises:
        InputError: the folder holds another run, or one with another tokenizer. KeyboardInterrupt: interrupted, with a
            checkpoint written.
    """
    with nothing_to_save():
        prepared = prepared or prepare(_as_config(config))
        check_inputs(prepared.run.staged()[1:])  # what later stages lack is found before the first begins
        return _train(prepared, Path(run_dir), resume)


def _train(prepared: Prepared, run_dir: Path, resume: Literal["auto", "never"] | Path) -> Outcome:
    world = open_world(prepared.config.train.device)
    try:
        # Built first: what does not fit is found before the run folder is touched.
        trainer = _trainer(prepared, world, run_dir)
        with RunLock(run_dir) as lock, one_complaint(world):
            candidates = _opened(prepared, world, run_dir, resume, lock)
            reached, candidates = _reached(prepared.run, candidates)
            if reached is not None:
                trainer = _trainer(reached, world, run_dir)
            trainer.resume(candidates)
            return _fit(trainer, reached or prepared, world, run_dir)
    finally:
        close_world(world)


def _fit(trainer: Trainer, prepared: Prepared, world: World, run_dir: Path) -> Outcome:
    """Trains this stage and all after it."""
    run, last = prepared.run, len(prepared.run.stages) - 1
    while True:
        if world.is_main:
            for line in _plan_of(prepared, trainer):
                logger.info(line)
        outcome = trainer.fit()
        if prepared.stage >= last:
            return outcome
        ended = path_of(run_dir, trainer.step)
        prepared = prepare(run, prepared.stage + 1, ended)
        trainer = _trainer(prepared, world, run_dir, start=trainer.step, best=trainer.best)


def _reached(run: RunConfig, candidates: Sequence[Path]) -> tuple[Prepared | None, tuple[Path, ...]]:
    """The stage of the newest checkpoint that can be read, where it is not the first, and the checkpoints from it on.

    Raises:
        InputError: the data of the stage changed.
    """
    for place, path in enumerate(candidates):
        stage, rest = stage_of(path), tuple(candidates[place:])
        if not stage:
            return None, rest
        if stage >= len(run.stages):
            raise InputError(f"{path} is of stage {stage + 1}, which the run has no more", "restore its stages")
        try:
            check_whole(path)
            prepared = prepare(run, stage, path)
        except DamagedCheckpointError as error:
            logger.warning("%s is damaged, trying the one before: %s", path, error.message)
            continue
        _check_same_inputs(prepared, path)
        return prepared, rest
    return None, tuple(candidates)


def _plan_of(prepared: Prepared, trainer: Trainer) -> Iterator[str]:
    """What is about to be trained, a line each: the stage, and what an epoch sees of each source."""
    if prepared.run.stages:
        yield _stage_line(prepared.run, prepared.stage, trainer.start, trainer.planned)
    seen = [
        f"{one.pairs:,} pairs of {one.name} ({one.passes:.2f} of its {one.size:,})"
        for one in visits(prepared.datasets, prepared.config, trainer.loaders)
    ]
    yield f"an epoch is {_many(trainer.loaders.steps_per_epoch, 'step')} and sees {', '.join(seen)}"


def _stage_line(run: RunConfig, stage: int, start: int, steps: int) -> str:
    name, frames = run.stages[stage].name, run.staged()[stage].data.clips.frames
    return (
        f"stage {stage + 1} of {len(run.stages)}{f' ({name})' if name else ''}: {_many(frames, 'frame')}, "
        f"steps {start + 1:,} to {start + steps:,}"
    )


def _stages_of(prepared: Prepared, trainer: Trainer) -> dict[str, Any]:
    """Of a run in stages, a line for each."""
    if not prepared.run.stages:
        return {}
    steps = [trainer.planned, *check_inputs(prepared.run.staged()[1:])]
    starts = [sum(steps[:number]) for number in range(len(steps))]
    numbered = enumerate(zip(starts, steps, strict=True))
    return {"stages": [_stage_line(prepared.run, number, *stretch) for number, stretch in numbered]}


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


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
        means = world.mean([float(value.detach()) for value in scalars.values()])  # of the batch, as the log has them
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
            "plan": list(_plan_of(prepared, trainer)),
            **_stages_of(prepared, trainer),
            "first_batch": {name: round(value, 4) for name, value in zip(scalars, means, strict=True)},
        }
    finally:
        close_world(world)


def _trainer(prepared: Prepared, world: World, run_dir: Path, *, start: int = 0, best: Best | None = None) -> Trainer:
    config, data = prepared.config, data_of(prepared.datasets, prepared.held_out, prepared.stage)

    def save_extra(folder: Path) -> None:
        save_beside_weights(folder, prepared.tokenizer, prepared.detector, data)
        if prepared.run.stages:  # a checkpoint is opened by what its weights are of
            (folder / "config.yaml").write_text(dump_yaml(config), encoding="utf-8")

    return Trainer(
        prepared.system,
        loaders_of(prepared.datasets, config, world, prepared.stage),
        config.train.model_copy(update={"best_is": best_sense(config.train)}),
        config.optim,
        run_dir,
        world=world,
        logbook=Logbook(run_dir) if world.is_main else None,
        evaluate=_evaluator(prepared, world) if prepared.held_out else None,
        save_extra=save_extra,
        stage=prepared.stage,
        start=start,
        best=best,
    )


def _opened(
    prepared: Prepared, world: World, run_dir: Path, resume: Literal["auto", "never"] | Path, lock: RunLock
) -> tuple[Path, ...]:
    """Opens the run folder on the main process; every process gets its candidates, or ends."""
    candidates: tuple[Path, ...] = ()
    complaint: RegionVLPError | None = None
    if world.is_main:
        try:
            check_out(prepared, run_dir, resume)
            lock.take()
            candidates = open_run(
                run_dir, dump_yaml(prepared.run), resume, seed=prepared.config.train.seed, **_comparison(prepared)
            ).candidates
        except RegionVLPError as error:
            complaint = error
        except OSError as error:
            reason = f"cannot write to {run_dir}: {error.strerror or error}"
            complaint = InputError(reason, "check its permissions and the free space, or choose another folder")
    world.agree(complaint)
    return world.from_main(candidates)


def check_out(prepared: Prepared, run_dir: Path, resume: Literal["auto", "never"] | Path = "auto") -> None:
    """Makes sure that a run may write to a folder: to a new one, or to go on with what it holds. Writes nothing.

    Raises:
        InputError: the folder holds another run, or something else; or the data changed since.
    """
    found = find_candidates(run_dir, resume)
    # One that was copied in half is passed over, with a word, when the run goes on.
    newest = next((path for path in found if lacks(path) is None), found[0] if found else None)
    if newest is not None and stage_of(newest) == prepared.stage:  # what later ones read is compared once they are open
        _check_same_inputs(prepared, newest)
    check_run(run_dir, dump_yaml(prepared.run), resume, **_comparison(prepared))


def _comparison(prepared: Prepared) -> dict[str, Any]:
    """How the run's configuration is compared with a stored one: by today's form, and by content where data lies."""

    def read(path: Path) -> Mapping[str, Any]:
        return read_run_config(path).model_dump(mode="json")

    return {"may_differ": {*resumable_keys(type(prepared.config)), *PLACES}, "read": read}


def _check_same_inputs(prepared: Prepared, checkpoint: Path) -> None:
    """Refuses to go on with another vocabulary or detector than the checkpoint's: its weights would mean nothing."""
    check_data(checkpoint, prepared.datasets, prepared.held_out)
    complaint = "the shards now come from another detector than the run's"
    check_detector(read_detector(checkpoint), prepared.detector, complaint)
    if TextTokenizer.load(checkpoint).hash != prepared.tokenizer.hash:
        raise InputError(
            f"the tokenizer is not the one of {checkpoint}: the captions or the tokenizer changed",
            "restore them, or start a new run from these weights with --set init=...",
        )


def flat_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """``{"t2v": {"R1": ..}}`` as ``{"t2v/R1": ..}``, text-to-video recall at 1 first: what "best" is judged by."""
    places = ((key, *key.split("/")) for key in LOGGED)
    return {key: float(metrics[direction][name]) for key, direction, name in places}


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
