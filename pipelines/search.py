"""``regionvlp search``: what a sentence finds, and which boxes answer its words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from regionvlp.errors import InputError
from regionvlp.pipelines.output import console_for, json_option, many, write_json

if TYPE_CHECKING:
    from rich.console import Console

    from regionvlp.search.answers import Answers, Result, WordAnswer
    from regionvlp.search.index import Index

SHOWN_BOXES = 2  # of a word, on a terminal


@click.command("search")
@click.argument("index", type=click.Path(path_type=Path))
@click.argument("query", required=False)
@click.option("--top", default=10, show_default=True, type=click.IntRange(1, 10_000), help="The most answers.")
@click.option("--like", metavar="MOMENT", help="Find moments like clip.mp4@12s or photo.jpg, of the index or not.")
@click.option("--from", "queries_from", type=click.Path(path_type=Path), metavar="FILE", help="A query a line.")
@click.option("--folder", metavar="DIR", help="Only files below this folder, or of a pattern such as '*.jpg'.")
@click.option("--after", metavar="DATE", help="Only files that changed since, such as 2026-03-01.")
@click.option("--encoder", "encoders", multiple=True, metavar="NAME", help="Where an encoder of the index is now.")
@click.option("--no-rerank", is_flag=True, help="Do not compare the first hundred token by token.")
@click.option("--from-shards", is_flag=True, help="Also where no tokens are stored: slower.")
@click.option("--fine", is_flag=True, help="Look at the answers again, for boxes on a finer grid (hub encoders).")
@click.option(
    "--certificate",
    default="held",
    show_default=True,
    metavar="KIND",
    help="What an answer would be without a box: held (cheap), reencode (exact) or none.",
)
@click.option("--all", "unfold", is_flag=True, help="Show answers that are probably none as well.")
@click.option("--cut", type=click.Path(path_type=Path), metavar="DIR", help="Copy the moments out, not encoded anew.")
@click.option("--edl", type=click.Path(path_type=Path), metavar="FILE", help="Write an edit list for video editors.")
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Draw the answers with their boxes.")
@click.option("--device", default="cpu", show_default=True, help="Where checkpoints run.")
@json_option
def command(
    index: Path,
    query: str | None,
    top: int,
    like: str | None,
    queries_from: Path | None,
    folder: str | None,
    after: str | None,
    encoders: tuple[str, ...],
    no_rerank: bool,
    from_shards: bool,
    fine: bool,
    certificate: str,
    unfold: bool,
    cut: Path | None,
    edl: Path | None,
    html: Path | None,
    device: str,
    json_path: str | None,
) -> None:
    """Find the moments of INDEX that QUERY describes, the best first.

    Answers are always found, also where there is nothing to find: how likely it is that anything answers is said first,
    and where it is less likely than not, answers are folded away until --all. After a word stand its boxes, and
    which rank the answer would have had without them.
    """
    asked_by = {"QUERY": query, "--like": like, "--from": queries_from}
    given = [name for name, value in asked_by.items() if value is not None]
    if len(given) != 1:
        what = " and ".join(given) or "no query"
        raise InputError(f"{what} given", 'ask one thing: regionvlp search INDEX "a dog jumps", --like or --from')
    if queries_from is not None and (cut or edl or html):
        raise InputError("--cut, --edl and --html are for one query", "leave them out, or ask one query")
    from regionvlp.search.index import parse_moment

    since = None if after is None else parse_moment(after)
    opened = opened_index(index, encoders, device, no_rerank, from_shards)
    asked = [query or ""] if queries_from is None else _lines(queries_from)
    console = console_for(json_path)
    documents = []
    for text in asked:
        answers = opened.search(
            text, top, like=like, folder=folder, after=since, rerank=not no_rerank, fine=fine, certificate=certificate
        )
        _say(answers, console, like, unfold)
        documents.append(answers.to_dict())
    if queries_from is None:
        _export(answers, cut, edl, html, console)
        write_json(documents[0], json_path)
    else:
        write_json({"searches": documents}, json_path)


def opened_index(index: Path, encoders: tuple[str, ...], device: str, no_rerank: bool, from_shards: bool) -> Index:
    """The index that is asked, as the options of the same names say.

    Raises:
        InputError, ShardError: see :func:`~regionvlp.search.index.open_index`.
    """
    from regionvlp.search.index import open_index

    if no_rerank and from_shards:
        raise InputError("--no-rerank and --from-shards given", "give one of them")
    return open_index(index, encoders=encoders, device=device, from_shards=from_shards)


def _lines(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}", "name a file with a query a line") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is no text", "name a file with a query a line") from None
    asked = [line for line in lines if line]
    if not asked:
        raise InputError(f"{path} holds no query", "write a query a line")
    return asked


def _say(answers: Answers, console: Console, like: str | None, unfold: bool) -> None:
    unlikely = answers.unlikely
    say = "probably not in these videos" if unlikely else "found"
    asked = f"{answers.query}:"
    if like is None:
        asked = f'"{_short(answers.query)}": {say} (anything answers: {100 * answers.present:.0f} %)'
    console.print(asked, markup=False)
    for note in answers.notes:
        console.print(f"  {note}", markup=False)
    if unlikely and not unfold:
        if answers.results:
            console.print(f"  {many(len(answers.results), 'answer')} folded: --all shows them", markup=False)
        return
    for rank, result in enumerate(answers.results, start=1):
        shares = ", ".join(f"{name} {share:.2f}" for name, share in result.shares.items())
        console.print(
            f"{rank:3}. {result.video_id}  {_span(result)}  {result.score:.3f}" + (f"  ({shares})" if shares else ""),
            markup=False,
        )
        for word in result.words:
            if word.boxes:
                style = "dim" if word.matters is False else None
                console.print(f"     {_word(word, rank)}", markup=False, style=style)
        if result.copies:
            copies = ", ".join(copy.video_id for copy in result.copies[:3])
            console.print(f"     looks the same: {copies}" + (" ..." if len(result.copies) > 3 else ""), markup=False)


def _word(word: WordAnswer, rank: int) -> str:
    """A word with its best boxes: where, when, what the detector calls them, and what the answer is without all."""
    from regionvlp.search.page import without

    best = sorted(word.boxes, key=lambda box: -box.weight)[:SHOWN_BOXES]
    places = []
    for box in best:
        x1, y1, x2, y2 = (round(side) for side in box.box)
        places.append(f"{box.label + ' ' if box.label else ''}[{x1} {y1} {x2} {y2}] at {box.time:.1f} s")
    more = f" and {len(word.boxes) - len(best)} more" if len(word.boxes) > len(best) else ""
    told = without(word, rank)
    return f"{word.word}: {', '.join(places)}{more}" + (f"; {told}" if told else "")


def _span(result: Result) -> str:
    from regionvlp.search.page import clock

    return "picture" if result.end <= result.start else f"{clock(result.start)} to {clock(result.end)}"


def _short(query: str) -> str:
    line = " ".join(query.split())
    return line if len(line) <= 100 else f"{line[:97]}..."


def _export(answers: Answers, cut: Path | None, edl: Path | None, html: Path | None, console: Console) -> None:
    results: Any = answers.results
    if cut is not None:
        from regionvlp.search.cut import cut as cut_out

        files, faults = cut_out(results, cut)
        console.print(f"{many(len(files), 'clip')} cut into {cut}", markup=False)
        for fault in faults:
            console.print(f"  {fault}", markup=False)
    if edl is not None:
        from regionvlp.search.cut import write_edit_list

        write_edit_list(edl, results, answers.query)
        console.print(f"wrote {edl}", markup=False)
    if html is not None:
        from regionvlp.search.page import write_answers_page

        write_answers_page(html, answers)
        console.print(f"drew {html.resolve().as_uri()}", markup=False)
