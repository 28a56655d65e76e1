"""``regionvlp profile``: what a configuration costs; :mod:`regionvlp.pipelines.profile.counting` counts it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from regionvlp.config import parse_assignments, read_yaml
from regionvlp.configs import find_config
from regionvlp.pipelines.output import console_for, json_option, write_json


@click.command("profile")
@click.option("--config", "config_path", required=True, type=click.Path(path_type=Path), help="Training YAML file.")
@click.option("--set", "assignments", multiple=True, metavar="K=V", help="Set one key, e.g. data.clips.frames=8.")
@click.option("--detector", metavar="NAME|PATH", help="Which one the regions come from.  [by their width]")
@click.option("--frame-size", default="360x640", show_default=True, metavar="HxW", help="Of the videos' frames.")
@click.option("--stored-frames", type=click.IntRange(1), default=8, show_default=True, help="Extracted per video.")
@click.option("--runs", type=click.IntRange(1), default=1, show_default=True, help="Trainings on the same features.")
@click.option("--epochs", type=click.IntRange(1), help="Times that a training visits a video.  [train.epochs]")
@json_option
def command(config_path: Path, assignments: tuple[str, ...], json_path: str | None, **options: Any) -> None:
    """Count the parameters and FLOPs of a configuration, detector included."""
    from regionvlp.pipelines.profile.counting import profile
    from regionvlp.training.config import run_config

    values = read_yaml(find_config(config_path))
    config = run_config(values, parse_assignments(assignments), source=str(config_path))
    write_json(profile(config, str(config_path), console_for(json_path), **options), json_path)
