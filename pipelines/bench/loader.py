"""``regionvlp bench loader``: how fast training's batches come, against a loader that opens one npz a frame."""

from __future__ import annotations

import platform
import tempfile
from pathlib import Path
from typing import Any

import click

from regionvlp.errors import InputError
from regionvlp.pipelines.output import console_for, json_option, write_json


@click.command("loader")
@click.option("--shards", "count", default=200, show_default=True, type=click.IntRange(1, 10_000), help="Of 2 clips.")
@click.option("--frames", default=1, show_default=True, type=click.IntRange(1, 64), help="Read of each clip.")
@click.option("--regions", default=30, show_default=True, type=click.IntRange(1, 300), help="Per frame.")
@click.option("--batch", default=64, show_default=True, type=click.IntRange(1, 4096), help="Clips of a batch.")
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1, 256), help="Of either loader.")
@click.option("--format", "kind", default="hdf5", show_default=True, metavar="hdf5|parquet", help="Of our shards.")
@click.option("--captions", default=1_000_000, show_default=True, type=click.IntRange(1), help="Rows of a table.")
@click.option("--dir", "folder", type=click.Path(path_type=Path), help="On which disk.  [the system's for temporaries]")
@json_option
def command(folder: Path | None, captions: int, json_path: str | None, **options: Any) -> None:
    """Time training's loader against one npz a frame, one item at a time; and what a table of captions costs."""
    if folder is not None and not folder.is_dir():
        raise InputError(f"no folder at {folder}", "give --dir a folder that exists")
    from regionvlp.pipelines.bench.captions import caption_rows
    from regionvlp.pipelines.bench.loader_rates import measure  # with torch

    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        rows, ratios = measure(Path(scratch), **options)
    rows += [{"name": name, "value": value, "unit": unit} for name, value, unit in caption_rows(captions)]
    result = {"device": platform.processor() or platform.machine(), "rows": rows, "ratios": ratios}
    console = console_for(json_path)
    for row in rows:
        console.print(f"  {row['name']:36} {row['value']:>12,.3f} {row['unit']}")
    for name, ratio in ratios.items():
        console.print(f"  {name:36} {ratio:>12,.1f} times")
    write_json(result, json_path)
