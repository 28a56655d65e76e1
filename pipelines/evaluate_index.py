"""``regionvlp eval index``: recall of one's own queries on one's own folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from regionvlp.pipelines.output import console_for, json_option, write_json
from regionvlp.pipelines.search import opened_index


@click.command("index")
@click.argument("index", type=click.Path(path_type=Path))
@click.option("--queries", required=True, type=click.Path(path_type=Path), help="Table of video_id and caption.")
@click.option("--split", help="Which rows of the split column.  [all]")
@click.option("--allow-missing", is_flag=True, help="Leave out queries whose video the index does not hold.")
@click.option("--encoder", "encoders", multiple=True, metavar="NAME", help="Where an encoder of the index is now.")
@click.option("--no-rerank", is_flag=True, help="Do not compare the first hundred token by token.")
@click.option("--from-shards", is_flag=True, help="Also where no tokens are stored: slower.")
@click.option("--absent", "asks_absent", is_flag=True, help="Ask each query without its file too: is that noticed?")
@click.option("--certificate", "asks_deletion", is_flag=True, help="Take boxes away: do answers hang on them?")
@click.option("--device", default="cpu", show_default=True, help="Where checkpoints run.")
@json_option
def command(
    index: Path,
    queries: Path,
    split: str | None,
    allow_missing: bool,
    encoders: tuple[str, ...],
    no_rerank: bool,
    from_shards: bool,
    asks_absent: bool,
    asks_deletion: bool,
    device: str,
    json_path: str | None,
) -> None:
    """Rank the files of INDEX for queries whose answer is known, and say how often it comes first."""
    from regionvlp.data.captions import load_captions, resolve_videos
    from regionvlp.search.evaluate import evaluate, gallery

    opened = opened_index(index, encoders, device, no_rerank, from_shards)
    captions = load_captions(queries, split=split)
    resolved = resolve_videos(captions, gallery(opened)[0], allow_missing=allow_missing)
    pairs = [(row.video_id, row.caption) for row in resolved]
    metrics = evaluate(opened, pairs, rerank=not no_rerank)
    console = console_for(json_path)
    console.print(_table(metrics))
    if "same_top10" in metrics:
        share = f"{metrics['same_top10']:.0f} of 100 queries"
        console.print(f"{share} have the same first ten clips as when all are compared token by token")
    names = ", ".join(record.name for record in opened.manifest.encoders)
    console.print(f"{index}: {names}; intervals hold 95 of 100 resamplings of the files asked for", markup=False)
    if asks_absent:
        from regionvlp.search.absent import absent

        metrics["absent"] = absent(opened, pairs)
        _say_absent(metrics["absent"], console)
    if asks_deletion:
        from regionvlp.search.deletion import deletion

        metrics["certificate"] = deletion(opened, [caption for _, caption in pairs])
        _say_deletion(metrics["certificate"], console)
    write_json({"index": str(index), "encoders": names, **metrics}, json_path)


def _table(metrics: dict[str, Any]) -> Table:
    table = Table(title=f"{metrics['queries']:,} queries, {metrics['gallery']:,} files", title_justify="left")
    table.add_column("")
    for name in ("R1", "R5", "R10", "MedR"):
        table.add_column(name, justify="right")
    t2v = metrics["t2v"]
    spans = (f"{low:.0f} to {high:.0f}" for low, high in (metrics["intervals"][f"R{k}"] for k in (1, 5, 10)))
    table.add_row("text to video", *(f"{t2v[name]:.1f}" for name in ("R1", "R5", "R10", "MedR")))
    table.add_row("  interval", *spans, "")
    table.add_row("chance", *(f"{metrics['chance'][name]:.1f}" for name in ("R1", "R5", "R10")), "")
    return table


def _say_absent(found: dict[str, Any], console: Console) -> None:
    table = Table(title=f"{found['queries']:,} queries, each with its file and without", title_justify="left")
    for name in ("", "AUC", "ECE", "ECE by chance"):
        table.add_column(name, justify="right" if name else "left")
    for name, values in found["encoders"].items():
        table.add_row(escape(name), *(f"{values[key]:.3f}" for key in ("auc", "ece", "ece_by_chance")))
    console.print(table)
    name, values = list(found["encoders"].items())[-1]
    table = Table(title=f"said and true, in %, of {escape(name)}", title_justify="left")
    table.add_column("queries")
    table.add_column("anything answers")
    table.add_column("true")
    for bin_ in values["curve"]:
        table.add_row(
            *(f"{value:.0f}" for value in (bin_["queries"], 100 * bin_["probability"], 100 * bin_["present"]))
        )
    console.print(table)


def _say_deletion(found: dict[str, Any], console: Console) -> None:
    table = Table(title=f"{found['queries']:,} first answers, boxes taken away", title_justify="left")
    for name in ("boxes", "queries", "rank lost, %: shown", "random"):
        table.add_column(name, justify="right")
    for step in found["curve"]:
        table.add_row(str(step["regions"]), str(step["queries"]), f"{step['shown']:.1f}", f"{step['random']:.1f}")
    console.print(table)
    if (agreement := found["agreement"]) is not None:
        console.print(
            f"held and reencode: rank correlation {agreement['correlation']:.2f} over {agreement['deletions']:,} "
            f"deletions; of 100, {agreement['same_rank']:.0f} lose the rank by both or by neither"
        )
