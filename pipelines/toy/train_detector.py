"""``regionvlp train-toy-detector``: the tiny detector made anew, by :mod:`regionvlp.pipelines.toy.detector`."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from regionvlp.pipelines.output import console_for, json_option, write_json


@click.command("train-toy-detector")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the detector.")
@click.option("--steps", type=click.IntRange(1), default=3000, show_default=True)
@click.option("--batch", type=click.IntRange(4, 64), default=8, show_default=True, help="Frames a step.")
@click.option("--seed", type=int, default=0, show_default=True)
@json_option
def command(out: Path, steps: int, batch: int, seed: int, json_path: str | None) -> None:
    """Train the bundled tiny detector on the toy world and say how good it is."""
    from regionvlp.extract.detector import RegionDetector
    from regionvlp.pipelines.toy.detector import save_detector, score, toy_config, train

    out.mkdir(parents=True, exist_ok=True)
    logging.getLogger("regionvlp").setLevel(logging.INFO)
    network = train(toy_config(), steps=steps, batch=batch, seed=seed)
    note = f"Made by `regionvlp train-toy-detector --out DIR --steps {steps} --batch {batch} --seed {seed}`.\n"
    save_detector(out, network, note)
    result = score(RegionDetector.load(str(out), device="cpu"))
    text = (
        f"On {result.objects} visible objects of held-out toy clips: proposal recall at IoU 0.5 "
        f"{result.proposal_recall:.1f} %, class accuracy {result.class_accuracy:.1f} %, colour and texture "
        f"{result.attribute_accuracy:.1f} %.\n"
    )
    (out / "README.md").write_text(note + text, encoding="utf-8")
    console_for(json_path).print(text.strip())
    write_json(vars(result), json_path)
