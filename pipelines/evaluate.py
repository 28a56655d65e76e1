"""``regionvlp eval``: exact retrieval metrics, beside the rows that the papers print."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from regionvlp.data.captions import Queries
from regionvlp.errors import InputError
from regionvlp.evaluation.tables import comparison_table
from regionvlp.pipelines.evaluate_index import command as index_command
from regionvlp.pipelines.output import CommandT, console_for, json_option, write_json
from regionvlp.progress import ProgressBar

if TYPE_CHECKING:
    from regionvlp.checkpoints.evaluate import Evaluation

RUNS = Path("runs")


def _options(command: CommandT) -> CommandT:
    for option in (
        json_option,
        click.option("--device", default="auto", show_default=True),
        click.option("--allow-missing", is_flag=True, help="Evaluate on the part of the gallery that is there."),
        click.option("--regions", type=click.IntRange(1, 1000), help="Regions per frame.  [as in training]"),
        click.option("--frames", type=click.IntRange(1, 256), help="Frames per video.  [as in training]"),
        click.option("--annotations", type=click.Path(path_type=Path), help="Captions.  [the run's]"),
        click.option(
            "--videos", type=click.Path(path_type=Path), help="Videos or cached frames, for models of pixels."
        ),
        click.option("--shards", metavar="FOLDER|ADDRESS", help="Region shards.  [the run's]"),
        click.option("--checkpoint", type=click.Path(path_type=Path), help="Or run, or hub:NAME.  [newest in runs/]"),
    ):
        command = option(command)
    return command


@click.group("eval")
def command() -> None:
    """Measure retrieval with a trained checkpoint."""


command.add_command(index_command)


@command.command("msrvtt")
@click.option("--split", type=click.Choice(["1ka", "1kb", "full"]), default="1ka", show_default=True)
@click.option("--queries", type=click.Choice(["all", "first", "index_file"]), help="Captions per clip.  [the split's]")
@_options
def msrvtt(split: str, queries: Queries | None, json_path: str | None, **options: Any) -> None:
    """Text-video retrieval on MSR-VTT, beside the papers' rows."""
    found = _evaluate("msrvtt", split=split, queries=queries, **options)
    console = console_for(json_path)
    for direction in ("t2v", "v2t"):
        table = comparison_table(
            found.metrics[direction],
            found.benchmark.dataset,
            split=split,
            direction=direction,  # type: ignore[arg-type]
            setting=found.setting,
            name=_our_name(found.metrics),
            width=console.width,
        )
        console.print(table)
    _say_part(found.metrics, console)
    _say_public(found.metrics, console)
    _finish(found, json_path, {"dataset": found.benchmark.dataset, "split": split})


@command.command("csv")
@click.option("--split", help="Which rows of the split column.  [all, or the run's]")
@_options
def csv(split: str | None, json_path: str | None, **options: Any) -> None:
    """Text-video retrieval on your own captions: a CSV, TSV, JSON or JSON-lines file of video_id and caption."""
    found = _evaluate("csv", split=split, **options)
    console = console_for(json_path)
    console.print(metrics_table(found.metrics))
    _say_part(found.metrics, console)
    _say_public(found.metrics, console)
    _finish(found, json_path, {"dataset": Path(found.metrics["annotations"]).stem, "split": split})


def metrics_table(metrics: Mapping[str, Any]) -> Table:
    """Both directions, each beside a random order."""
    table = Table(title=f"{metrics['queries']:,} queries, {metrics['gallery']:,} videos", title_justify="left")
    names = ("R1", "R5", "R10", "R50", "MedR", "MeanR")
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right")
    rows = [("text to video", "t2v"), ("video to text", "v2t"), ("chance", "chance")]
    if metrics["chance"] != metrics["chance_v2t"]:  # where a video has several captions
        rows[2:] = [("chance, text to video", "chance"), ("chance, video to text", "chance_v2t")]
    for title, key in rows:
        values = metrics[key]
        table.add_row(title, *(f"{values[name]:.1f}" if name in values else "" for name in names))
    return table


def _say_part(metrics: Mapping[str, Any], console: Console) -> None:
    """Says where the gallery is only a part of what the annotations name: recall on less is easier."""
    gallery, annotated = metrics["gallery"], metrics["annotated_videos"]
    if gallery < annotated:
        message = f"{gallery:,} of {annotated:,} videos: not comparable with figures on all of them"
        console.print(message, style="bold", markup=False)


def _say_public(metrics: Mapping[str, Any], console: Console) -> None:
    """What the public evaluation makes of the same model, beside the exact numbers."""
    if "public" not in metrics:
        return
    table = Table(title="exact, and as the public code counts", title_justify="left")
    for heading in ("", "R1", "R5", "R10", "MedR", "MeanR"):
        table.add_column(heading, justify="right" if heading else "left")
    for title, key in (("text to video", "t2v"), ("video to text", "v2t")):
        for how, found in (("exact", metrics), ("public", metrics["public"])):
            values = (f"{found[key][name]:.1f}" for name in ("R1", "R5", "R10", "MedR", "MeanR"))
            table.add_row(f"{title}, {how}", *values)
    console.print(table)
    console.print(
        "public: what the public code reports. It adds the local scores transposed (to caption i with video j that of "
        "caption j with video i) and gives ties to the right answer. For comparison with published numbers only.",
        soft_wrap=False,
    )


def newest_run() -> Path:
    """The run below ``runs/`` whose newest checkpoint is the newest of all.

    Raises:
        InputError: there is none.
    """
    from regionvlp.training.saving import latest
    from regionvlp.weights.modules import WEIGHTS

    found = [path for run in RUNS.glob("*") if (path := latest(run, to_resume=False))]
    if not found:
        raise InputError(f"no trained run in {RUNS}/", "name one with --checkpoint, or run 'regionvlp pretrain'")
    return max(found, key=lambda path: (path / WEIGHTS).stat().st_mtime).parents[1]


def _evaluate(benchmark: str, *, checkpoint: Path | None, **options: Any) -> Evaluation:
    from regionvlp.checkpoints.evaluate import evaluate

    with ProgressBar("evaluate", "items", "items") as bar:
        return evaluate(
            checkpoint or newest_run(),
            benchmark,
            begin=bar.begin,
            advance=lambda count: bar.advance(count, count),
            **options,
        )


def _our_name(metrics: Mapping[str, Any]) -> str:
    gallery, annotated = metrics["gallery"], metrics["annotated_videos"]
    return "ours" if gallery == annotated else f"ours ({gallery:,} of {annotated:,}: not comparable)"


def _finish(found: Evaluation, json_path: str | None, about: dict[str, str | None]) -> None:
    """Says which model it was, and leaves ``metrics.json`` where ``--json`` says, else with the checkpoint.

    With the checkpoint lies what became of each query, too.
    """
    from regionvlp.evaluation.ranks import RANKS_NAME, write_ranks

    console = console_for(json_path)
    folder, metrics = found.checkpoint.path, found.metrics
    directions = (("t2v", "text-to-video"), ("v2t", "video-to-text"))
    ties = " and ".join(f"{metrics[key]['ties']:g} {name}" for key, name in directions)
    console.print(f"checkpoint {folder}; ties count by their average ({ties} queries have one)", markup=False)
    record = {**about, "checkpoint": str(found.checkpoint.shared or folder), **metrics}
    if json_path is not None:
        write_json(record, json_path)
        return
    if found.checkpoint.shared:
        console.print("the figures are kept where --json says; a shared checkpoint has no place for them", markup=False)
        return
    target = _own_file(folder / "eval", found.items.label, record)
    write_json(record, str(target))
    write_ranks(target.with_name(RANKS_NAME), found.retrieval)
    console.print(f"wrote {target}, and {RANKS_NAME} beside it: what became of each query", markup=False)
    console.print(f"next: regionvlp report {target.parent}", markup=False, soft_wrap=True)


SAME = (
    "annotations",
    "shards",
    "videos",
    "frames",
    "regions",
    "allow_missing",
    "split",
)  # what makes two evaluations one


def _own_file(folder: Path, label: str, record: Mapping[str, Any]) -> Path:
    """Where an evaluation's figures go: a folder for each benchmark and settings, so that none replaces another."""
    for number in count(1):
        place = folder / (label if number == 1 else f"{label}-{number}")
        file = place / "metrics.json"
        try:
            known = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = None
        if known is None or all(known.get(key) == record.get(key) for key in SAME):
            place.mkdir(parents=True, exist_ok=True)
            return file
    raise AssertionError("numbers do not end")
