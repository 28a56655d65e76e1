"""``regionvlp pretrain`` and ``regionvlp finetune``: training from a configuration file."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from regionvlp.config import parse_assignments, read_yaml
from regionvlp.configs import find_config
from regionvlp.errors import ConfigError
from regionvlp.pipelines.output import CommandT, console_for, json_option, options_layer, write_json

if TYPE_CHECKING:
    from regionvlp.training.config import RunConfig


def _options(command: CommandT) -> CommandT:
    for option in (
        json_option,
        click.option("--dry-run", is_flag=True, help="Check everything, run one batch, say what would happen."),
        click.option("--resume", default="auto", metavar="auto|never|PATH", show_default=True,
                     help="Go on where the run stopped, refuse to, or go on from this checkpoint."),
        click.option("--set", "assignments", multiple=True, metavar="K=V", help="Set one key, e.g. train.epochs=2."),
        click.option("--out", type=click.Path(path_type=Path), help="Run folder.  [runs/<name of the config>]"),
        click.option("--config", "config_path", required=True, type=click.Path(path_type=Path), help="YAML file."),
    ):  # fmt: skip
        command = option(command)
    return command


@click.command("pretrain")
@_options
def command(**options: Any) -> int:
    """Train a video-language model on region shards and captions."""
    return _train(**options)


@click.command("finetune")
@click.option("--init", type=click.Path(path_type=Path), help="Checkpoint, run, or hub:NAME to start from.")
@_options
def finetune(**options: Any) -> int:
    """Train on from the weights of a checkpoint (--init, or 'init' in the configuration)."""
    return _train(needs_init=True, **options)


def _train(
    config_path: Path,
    out: Path | None,
    assignments: tuple[str, ...],
    resume: str,
    dry_run: bool,
    json_path: str | None,
    init: Path | None = None,
    needs_init: bool = False,
) -> int:
    from regionvlp.training.config import run_config

    layers = (
        read_yaml(find_config(config_path)),
        options_layer({"init": "init"}, {"init": str(init) if init else None}),
        parse_assignments(assignments),
    )
    config = run_config(*layers, source=str(config_path))
    if not config.data.sources:
        raise ConfigError(
            f"{config_path} names no captions and shards to train on",
            "--set data.sources='[{captions: FILE, shards: FOLDER}]'",
        )
    if needs_init and config.init is None:
        raise ConfigError("fine-tuning starts from a checkpoint, and none is given", "pass --init CHECKPOINT")
    # What follows imports torch.
    from regionvlp.training.interrupts import nothing_to_save
    from regionvlp.training.preparing import prepare
    from regionvlp.training.run import check_out, describe, train

    console = console_for(json_path)
    is_main = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun started, one speaks
    logger = logging.getLogger("regionvlp")
    if not is_main:
        logger.setLevel(logging.ERROR)
    with nothing_to_save():
        prepared = prepare(config)
    run_dir = out or Path("runs") / config_path.stem
    chosen: Literal["auto", "never"] | Path = (
        "auto" if resume == "auto" else "never" if resume == "never" else Path(resume)
    )
    if dry_run:
        check_out(prepared, run_dir, chosen)
        plan = describe(prepared)
        if not is_main:
            return 0
        for name, value in plan.items():
            console.print(f"{name.replace('_', ' '):>16}  {value}", markup=False)
        write_json(plan, json_path)
        return 0
    # What one process alone could not read, each has to say for itself.
    logger.setLevel(logging.INFO if is_main else logging.WARNING)
    try:
        outcome = train(config, run_dir, resume=chosen, prepared=prepared)
    except KeyboardInterrupt:
        if is_main:
            raise
        return 130  # the main process has said so
    if not is_main:
        return 0
    console.print(f"done: {run_dir}", markup=False)
    for number, line in enumerate(_next_steps(config, run_dir)):
        console.print(f"{'     ' if number else 'next:'} {line}", markup=False)
    best = {"step": outcome.best.step, outcome.best.metric: outcome.best.value} if outcome.best else None
    result = {"run": str(run_dir), "step": outcome.step, "stopped_early": outcome.stopped_early, "best": best}
    write_json(result, json_path)
    return 0


def _next_steps(config: RunConfig, run_dir: Path) -> list[str]:
    """Commands that go on from a trained run, whole where the configuration says on what."""
    held_out = config.evaluated
    source = held_out or config.data.sources[0]
    kind = "shards" if source.shards else "videos"
    measured = "" if held_out else f" --annotations FILE --{kind} FOLDER"
    return [
        f"regionvlp eval csv --checkpoint {run_dir}{measured}",
        f"regionvlp index --{kind} {source.place} --encoder {run_dir} --out {run_dir}-index",
        f'regionvlp search {run_dir}-index "what to look for"',
    ]
