"""``regionvlp report``: a training run, shards or evaluations as one page that opens without a network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from regionvlp.errors import InputError
from regionvlp.pipelines.output import console_for

if TYPE_CHECKING:
    from regionvlp.report.regions import Drawn
    from regionvlp.shards import ShardReader


WHAT = "name a run of 'pretrain', shards of 'extract', or a folder that 'eval' left"


@click.command("report")
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option(
    "--compare", nargs=2, type=click.Path(path_type=Path), metavar="A B", help="Two folders of 'eval', side by side."
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("report.html"), show_default=True, help="Page.")
@click.option("--videos", metavar="DIR", help="What 'extract' was given, to draw frames with their boxes.")
@click.option(
    "--count",
    type=click.IntRange(0, 50),
    default=6,
    show_default=True,
    help="Samples of shards; best and worst queries.",
)
def command(folder: Path | None, compare: tuple[Path, Path] | None, out: Path, videos: str | None, count: int) -> None:
    """Draw FOLDER, a run of 'pretrain', shards of 'extract' or what 'eval' left, as one HTML file.

    \b
    a run:       curves, where the time of a step goes, metrics over time, which checkpoint is best and why
    shards:      counts, failures, how numbers are spread, samples with their boxes
    CKPT/eval/X: figures, queries that went well and badly, the regions that answer their words, the rank of each
    --compare:   two of these, on the queries that both have
    """
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise InputError(f"cannot write {out}", "give --out a file in a folder that exists")
    if (folder is None) == (compare is None):
        raise InputError("name one FOLDER, or two with --compare", "see 'regionvlp report --help'")
    if compare is not None:
        _compare(*compare, out, videos)
    elif folder is not None:
        _draw(folder, out, videos, count)
    console_for(None).print(f"drew {out.resolve().as_uri()}", markup=False)


def _draw(folder: Path, out: Path, videos: str | None, count: int) -> None:
    from regionvlp.report.evaluation import is_evaluation
    from regionvlp.report.run import is_run, write_run_page

    _check(folder)
    if is_run(folder):
        if videos is not None:
            raise InputError("--videos is for shards and evaluations, and this is a run", "leave it out")
        write_run_page(out, folder)
    elif (folder / "manifest.json").is_file():
        _of_shards(folder, out, videos, count)
    elif is_evaluation(folder):
        from regionvlp.pipelines.report_evaluation import draw_evaluation

        draw_evaluation(folder, out, videos, count)
    else:
        raise InputError(f"{folder} holds neither the log of a run nor shards nor an evaluation", WHAT)


def _compare(one: Path, other: Path, out: Path, videos: str | None) -> None:
    from regionvlp.report.compare import write_comparison_page

    if videos is not None:
        raise InputError("--videos is for one evaluation", "leave it out")
    for folder in (one, other):
        _check(folder)
    write_comparison_page(out, one, other)


def _check(folder: Path) -> None:
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}", WHAT)


def _of_shards(folder: Path, out: Path, videos: str | None, count: int) -> None:
    from regionvlp.report.shards import write_shards_page
    from regionvlp.shards import inspect, open_shards
    from regionvlp.shards.vocabulary import read_vocabulary

    summary = inspect(folder)
    reader = open_shards(folder) if summary["videos"] else None
    vocabulary = read_vocabulary(folder)
    drawn = _samples(folder, reader, videos, count) if reader is not None and videos is not None else iter(())
    write_shards_page(out, folder, summary, reader, vocabulary.objects if vocabulary else None, drawn)


def _samples(folder: Path, reader: ShardReader, videos: str, count: int) -> Iterator[Drawn]:
    from regionvlp.extract.sources import open_source
    from regionvlp.pipelines.shards_draw import pictures

    step = max(1, len(reader) // max(count, 1))
    yield from pictures(folder, reader, open_source(videos), reader.video_ids[::step][:count])
