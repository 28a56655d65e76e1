"""``regionvlp toyworld``: writes the clips of a toy world, to train and to measure on.

Two worlds: ``plain`` is the demo's; ``hard`` is the one to compare losses in, see :mod:`regionvlp.pipelines.toy.world`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from regionvlp.errors import InputError
from regionvlp.pipelines.output import console_for, json_option, write_json
from regionvlp.pipelines.toy import world as toyworld
from regionvlp.progress import ProgressBar
from regionvlp.store.files import replacing

NOTE = "world.json"


@dataclass(frozen=True)
class _Order:
    """What a folder was rendered as."""

    preset: str
    train: int
    test: int
    seed: int


@click.command("toyworld")
@click.option("--preset", type=click.Choice(list(toyworld.WORLDS)), default="plain", show_default=True,
              help="plain: the demo's. hard: near-alike captions, and objects that nobody names.")  # fmt: skip
@click.option("--train", default=2000, show_default=True, type=click.IntRange(1), help="Clips to learn from.")
@click.option("--test", default=500, show_default=True, type=click.IntRange(1), help="Clips held out.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Another seed, other clips.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder.")
@json_option
def command(preset: str, train: int, test: int, seed: int, out: Path, json_path: str | None) -> None:
    """Render captioned clips of moving shapes: OUT/videos with train.jsonl and test.jsonl.

    The captions' files also hold what each caption names and where it is, frame by frame.
    """
    order = _Order(preset, train, test, seed)
    note_order(out / NOTE, asdict(order), "clips of another world")
    render(out / "videos", {"train": train, "test": test}, seed=seed, world=toyworld.WORLDS[preset])
    console = console_for(json_path)
    console.print(f"{train} clips to learn from and {test} held out in {out / 'videos'}", markup=False)
    console.print(
        f"next: regionvlp extract --videos {out / 'videos'} --out {out / 'shards'} --detector toy --frames 4",
        markup=False,
    )
    write_json({**asdict(order), "videos": str(out / "videos")}, json_path)


def render(
    folder: Path,
    counts: Mapping[toyworld.Split, int],
    *,
    seed: int = 0,
    world: toyworld.World = toyworld.WORLDS["plain"],
) -> None:
    """Writes the splits that are not there yet."""
    for split, count in counts.items():
        index = folder / f"{split}.jsonl"
        if not index.exists() or index.read_text(encoding="utf-8").count("\n") != count:
            with ProgressBar("render", "clips", "clips") as bar:
                bar.begin(count)
                toyworld.write_clips(
                    folder, count, split=split, seed=seed, world=world, advance=lambda: bar.advance(1, 1)
                )


def note_order(note: Path, order: Mapping[str, object], other: str) -> None:
    """Notes in a folder what it is for; one that is for something else is refused before anything in it changes.

    Raises:
        InputError: the folder holds ``other``, or something else altogether.
    """
    out = note.parent
    if note.exists():
        if json.loads(note.read_text(encoding="utf-8")) != order:
            raise InputError(f"{out} holds {other}", "choose another --out, or remove that folder")
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} holds something else", "choose a new or empty folder for --out")
    out.mkdir(parents=True, exist_ok=True)
    with replacing(note) as temporary:
        temporary.write_text(json.dumps(order) + "\n", encoding="utf-8")
