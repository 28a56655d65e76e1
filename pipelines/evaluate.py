"""``regionvlp eval``: exact retrieval metrics, beside the rows that the papers print."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from regionvlp.checkpoints.folder import Checkpoint, load_checkpoint
from regionvlp.config import validate
from regionvlp.data.captions import CaptionFormat, Queries, kind_of
from regionvlp.data.settings import SourceSettings
from regionvlp.data.sources import check_script, collate_for, open_source
from regionvlp.devices import pick_device
from regionvlp.errors import InputError
from regionvlp.evaluation.metrics import retrieval_metrics
from regionvlp.evaluation.retrieval import public_metrics, run_retrieval
from regionvlp.evaluation.tables import comparison_table
from regionvlp.pipelines.output import CommandT, console_for, json_option, write_json
from regionvlp.progress import ProgressBar
from regionvlp.shards import Manifest
from regionvlp.training import saving as files
from regionvlp.training.config import RunConfig
from regionvlp.weights.modules import WEIGHTS

RUNS = Path("runs")


def _options(command: CommandT) -> CommandT:
    for option in (
        json_option,
        click.option("--device", default="auto", show_default=True),
        click.option("--allow-missing", is_flag=True, help="Evaluate on the part of the gallery that is there."),
        click.option("--regions", type=click.IntRange(1, 1000), help="Regions per frame.  [as in training]"),
        click.option("--frames", type=click.IntRange(1, 256), help="Frames per video.  [as in training]"),
        click.option("--annotations", type=click.Path(path_type=Path), help="Captions.  [the run's]"),
        click.option("--shards", type=click.Path(path_type=Path), help="Region shards.  [the run's]"),
        click.option("--checkpoint", type=click.Path(path_type=Path), help="Checkpoint or run.  [newest in runs/]"),
    ):
        command = option(command)
    return command


@click.group("eval")
def command() -> None:
    """Measure retrieval with a trained checkpoint."""


@command.command("msrvtt")
@click.option("--split", type=click.Choice(["1ka", "1kb", "full"]), default="1ka", show_default=True)
@click.option("--queries", type=click.Choice(["all", "first", "index_file"]), help="Captions per clip.  [the split's]")
@_options
def msrvtt(split: str, queries: Queries | None, json_path: str | None, **options: Any) -> None:
    """Text-video retrieval on MSR-VTT, beside the papers' rows."""
    checkpoint, metrics = _evaluate(
        format="msrvtt", split=f"{split}-test", queries=queries, json_path=json_path, **options
    )
    console = console_for(json_path)
    seen = any(kind_of(source.captions, source.format) == "msrvtt" for source in checkpoint.config.data.sources)
    setting = "fine-tuned" if seen else "zero-shot"
    for direction in ("t2v", "v2t"):
        table = comparison_table(metrics[direction], "MSRVTT", split=split, direction=direction, setting=setting)  # type: ignore[arg-type]
        console.print(table)
    _say_public(metrics, console)
    _finish(checkpoint, metrics, json_path, {"dataset": "MSRVTT", "split": split})


@command.command("csv")
@click.option("--split", help="Which rows of the split column.  [all, or the run's]")
@_options
def csv(split: str | None, json_path: str | None, **options: Any) -> None:
    """Text-video retrieval on your own captions: a CSV, TSV, JSON or JSON-lines file of video_id and caption."""
    checkpoint, metrics = _evaluate(format=None, split=split, queries=None, json_path=json_path, **options)
    console = console_for(json_path)
    console.print(metrics_table(metrics))
    _say_public(metrics, console)
    _finish(checkpoint, metrics, json_path, {"dataset": Path(metrics["annotations"]).stem, "split": split})


def metrics_table(metrics: Mapping[str, Any]) -> Table:
    """Both directions and chance, a row each."""
    table = Table(title=f"{metrics['queries']:,} queries, {metrics['gallery']:,} videos", title_justify="left")
    names = ("R1", "R5", "R10", "R50", "MedR", "MeanR")
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right")
    for title, key in (("text to video", "t2v"), ("video to text", "v2t"), ("chance", "chance")):
        values = metrics[key]
        table.add_row(title, *(f"{values[name]:.1f}" if name in values else "" for name in names))
    return table


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
    found = [path for run in RUNS.glob("*") if (path := files.latest(run))]
    if not found:
        raise InputError(f"no trained run in {RUNS}/", "name one with --checkpoint, or run 'regionvlp pretrain'")
    return max(found, key=lambda path: (path / WEIGHTS).stat().st_mtime).parents[1]


def _evaluate(
    *,
    format: CaptionFormat | None,
    split: str | None,
    queries: Queries | None,
    checkpoint: Path | None,
    shards: Path | None,
    annotations: Path | None,
    frames: int | None,
    regions: int | None,
    allow_missing: bool,
    device: str,
    json_path: str | None,
) -> tuple[Checkpoint, dict[str, Any]]:
    where = pick_device(device)
    opened = load_checkpoint(checkpoint or newest_run(), where)
    known = opened.config.eval.source
    captions = annotations or (known.captions if known else None)
    folder = shards or (known.shards if known else None)
    for path, name in ((captions, "annotations"), (folder, "shards")):
        if path is None:
            raise InputError(f"the run names no {name} to evaluate on", f"give them with --{name}")
    source: dict[str, Any] = known.model_dump(exclude_none=True) if known and annotations is None else {}
    source |= {"captions": captions, "shards": folder}
    source |= {"format": format or source.get("format", "auto"), "allow_missing": allow_missing}
    for key, value in (("split", split), ("queries", queries), ("frames", frames)):
        if value is not None:
            source[key] = value
    chosen = validate(SourceSettings, source, "the options")
    opened.check_shards(Manifest.read(chosen.shards), chosen.shards)
    trained = opened.config.data
    sizes = {"frames": opened.config.eval.frames or trained.frames, "regions": regions or trained.regions}
    settings = trained.model_copy(update=sizes)
    dataset = open_source(chosen, settings, training=False)
    check_script(dataset.captions, opened.tokenizer)
    with ProgressBar("evaluate", "items", "items") as bar:
        bar.begin(len(dataset.videos) + len(dataset.captions))
        result = run_retrieval(
            opened.task,
            dataset,
            collate_for(settings, opened.tokenizer),
            device=where,
            batch_size=opened.config.eval.batch_size,
            workers=opened.config.train.workers,
            keep_parts=_has_public_number(opened.config),
            advance=lambda count: bar.advance(count, count),
        )
    about = {
        "annotations": str(chosen.captions),
        "shards": str(chosen.shards),
        "frames": dataset.videos.frames,
        "regions": settings.regions,
        "allow_missing": chosen.allow_missing,
    }
    metrics = {**about, **retrieval_metrics(result.similarity, result.target)}
    if result.parts and len(result.captions) == len(result.video_ids):
        metrics["public"] = public_metrics(result)
    return opened, metrics


def _has_public_number(config: RunConfig) -> bool:
    """Whether the public code would rank by a sum of its own: with models of its form (spec section 7.2)."""
    loss = config.loss
    return loss.use_global and loss.use_local and loss.local == "region_word" and loss.region_word.form == "public"


def _finish(
    checkpoint: Checkpoint, metrics: dict[str, Any], json_path: str | None, about: dict[str, str | None]
) -> None:
    """Says which model it was, and leaves ``metrics.json`` where ``--json`` says, else with the checkpoint."""
    console = console_for(json_path)
    ties = metrics["t2v"]["ties"]
    console.print(
        f"checkpoint {checkpoint.path}; ties count by their average ({ties:g} queries have one)", markup=False
    )
    record = {**about, "checkpoint": str(checkpoint.path), **metrics}
    if json_path is not None:
        write_json(record, json_path)
        return
    # A file per benchmark, so that one does not replace another.
    name = "-".join(part.lower() for part in about.values() if part)
    target = checkpoint.path / "eval" / name / "metrics.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_json(record, str(target))
    console.print(f"wrote {target}", markup=False)
