"""``regionvlp weights``: the detectors that have a name, what a weights file holds, fetching and converting them.

``convert`` also takes whole models: ``convert demovlp|frozen FILE`` makes a checkpoint folder of a public checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from regionvlp.errors import InputError
from regionvlp.pipelines.output import console_for, human_bytes, json_option, write_json

PATH = click.Path(path_type=Path)
NO_VOCABULARY = "none: regions are shown by number; give --objects and --attributes"


@click.group("weights")
def command() -> None:
    """List, fetch, convert and describe weights."""


@command.command("list")
@json_option
def list_command(json_path: str | None) -> None:
    """Say which detectors have a name, whether they can be used here, and how they are come by."""
    from rich.markup import escape

    from regionvlp.extract.detector import default_weights_dir, weights_status
    from regionvlp.extract.detector.catalogue import ENTRIES

    rows = []
    for status in weights_status(names=ENTRIES):
        entry = ENTRIES[status["name"]]
        fetching = "hub" if entry.hub else "bundled" if not entry.file_names else "by hand"
        facts = {
            "family": entry.family,
            "licence": entry.licence,
            "from": entry.where,
            "fetched": "no" if entry.refused else fetching,
            "file_names": list(entry.file_names),
            "sha256": entry.sha256,
        }
        rows.append(status | facts)
    console = console_for(json_path)
    missing = {"hub": "not here: regionvlp weights fetch {name}", "by hand": "not here: by hand", "no": "not supported"}
    for row in rows:
        usable = row["where"] if row["usable"] else missing[row["fetched"]].format(name=row["name"])
        console.print(f"[bold]{row['name']:<18}[/] {row['family']:<7} {escape(str(usable))}")
        console.print(
            f"    {row['what']}", f"    {row['from']}", f"    licence: {row['licence']}", sep="\n", markup=False
        )
    folder = default_weights_dir()
    console.print(
        f"weights folder: {folder}; with a file got by hand: regionvlp weights fetch NAME --from FILE", markup=False
    )
    write_json({"folder": str(folder), "detectors": rows}, json_path)


@command.command("info")
@click.argument("name_or_path", metavar="NAME|PATH")
@json_option
def info_command(name_or_path: str, json_path: str | None) -> None:
    """Say what a detector's weights hold: family, depth, sizes, hashes, vocabularies. Nothing is fetched."""
    from regionvlp.extract.detector import find_detector
    from regionvlp.extract.detector.convert import describe

    _show(describe(find_detector(name_or_path)), json_path)


@command.command("fetch")
@click.argument("name")
@click.option("--from", "source", metavar="FILE|URL", help="A local file or a URL, instead of the Hugging Face hub.")
@click.option("--objects", type=PATH, help="The object classes, one a line.")
@click.option("--attributes", type=PATH, help="The attribute classes, one a line.")
@click.option("--to", type=PATH, metavar="DIR", help="With hub:NAME: a folder to carry to where there is no network.")
@json_option
def fetch_command(
    name: str,
    source: str | None,
    objects: Path | None,
    attributes: Path | None,
    to: Path | None,
    json_path: str | None,
) -> None:
    """Bring the named detector into the weights folder. What broke off goes on when the command is run again.

    NAME may be hub:OWNER/NAME, a model of pictures and sentences for 'regionvlp index': it goes into the Hub's cache,
    and with --to into a folder that hub:DIR reads anywhere.
    """
    if name.startswith("hub:"):
        if source or objects or attributes:
            raise InputError("--from, --objects and --attributes are for detectors", "leave them out for hub:NAME")
        _fetch_model(name.removeprefix("hub:"), to, json_path)
        return
    if to is not None:
        raise InputError("--to is for hub:NAME", "detectors go into the weights folder: leave --to out")
    from regionvlp.extract.detector import default_weights_dir
    from regionvlp.extract.detector.catalogue import ENTRIES, TOY
    from regionvlp.extract.detector.fetch import fetch
    from regionvlp.extract.detector.registry import where_is

    console = console_for(json_path)
    folder = default_weights_dir()
    if name in ENTRIES:
        console.print(f"{name}: {ENTRIES[name].what}; licence: {ENTRIES[name].licence}", markup=False)
        if name != TOY and source is None and (here := where_is(name, folder)):
            console.print(f"it is already here: {here}", markup=False)
    progress = _Progress(name)
    description = fetch(name, folder, source=source, objects=objects, attributes=attributes, on_bytes=progress.on_bytes)
    _show(description, json_path)


def _fetch_model(name: str, to: Path | None, json_path: str | None) -> None:
    """Fetches a model of pictures and sentences, opens it to see that it is one, and makes a bundle of its files."""
    from regionvlp.models.hub.files import bundle
    from regionvlp.models.hub.opening import open_joint_model

    model, files = open_joint_model(name)
    where = files.folder if to is None else to
    if to is not None:
        bundle(files, to)
    sizes = {part: path.stat().st_size for part, path in files.parts.items()}
    about = {
        "name": files.name or name,
        "revision": files.revision,
        "layout": files.layout,
        "width": model.width,
        "picture": [model.framing.height, model.framing.width],
        "longest": model.longest,
        "folder": str(where),
        "bytes": sum(sizes.values()),
        "sha256": files.identity()["files"],
    }
    console = console_for(json_path)
    console.print(f"{about['name']} at {files.revision or 'no known revision'}", markup=False)
    frame = f"{model.framing.height} x {model.framing.width} pixels, {model.framing.mode}"
    console.print(f"{model.width} numbers a vector; pictures of {frame}; sentences of {model.longest} tokens")
    console.print(f"{len(sizes)} files, {human_bytes(about['bytes'])}: {where}", markup=False)
    console.print(f"next: regionvlp index --videos DIR --out INDEX --encoder hub:{to or name}", markup=False)
    write_json(about, json_path)


class _Conversions(click.Group):
    """``convert FILE`` means ``convert detector FILE``, as long as detectors are what is mostly converted."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in {*self.commands, *self.get_help_option_names(ctx)}:
            args = ["detector", *args]
        return super().parse_args(ctx, args)


@command.group("convert", cls=_Conversions)
def convert_group() -> None:
    """Make a folder of a file that others published; code in a file is never run.

    'convert FILE --out DIR' takes a detector, 'convert demovlp FILE --out DIR' a public DemoVLP checkpoint,
    'convert frozen FILE --out DIR' one of Frozen in Time.
    """


def _of_a_model(function: Callable[..., None]) -> Callable[..., None]:
    """The options of every command that makes a checkpoint folder."""
    options = [
        click.argument("file", type=PATH),
        click.option("--out", required=True, type=PATH, help="The checkpoint folder to make."),
        click.option(
            "--tokenizer", metavar="DIR|NAME", help="Of bert-base-uncased.  [from the Hugging Face hub or its cache]"
        ),
        click.option("--frames", type=click.IntRange(1, 256), help="Frames the model shall read.  [as it was trained]"),
        click.option(
            "--inflation", type=click.Choice(["zeros", "nearest", "interp", "bilinear"]), default="zeros",
            show_default=True, help="Where the temporal embedding of further frames comes from.",
        ),
        click.option("--heads", type=click.IntRange(1), help="Attention heads, for unusual widths.  [width / 64]"),
        json_option,
    ]  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


@convert_group.command("demovlp")
@_of_a_model
def convert_demovlp_command(json_path: str | None, file: Path, out: Path, **options: Any) -> None:
    """Make a checkpoint folder of a checkpoint of the public DemoVLP code, for 'regionvlp eval' and 'finetune'."""
    from regionvlp.checkpoints.public.demovlp import convert_demovlp

    made = convert_demovlp(file, out, **options)
    own = {
        "regions": f"{made['regions']} of {made['feature_width']} features, location of {made['loc_dim']}",
        "attention": "frame and time" if made["time_attention"] else "frame",
        "text length": f"{made['text_length']}, always padded: the public scores depend on it",
        "answers": f"{made['answers']:,}, the head beside the model" if made["answers"] else "none",
    }
    after = f"regionvlp eval msrvtt --checkpoint {out} --shards FOLDER --annotations FOLDER"
    if made["answers"]:
        head = "regionvlp.checkpoints.public.demovlp.load_answer_head"
        after = f"in Python, regionvlp.load_checkpoint('{out}') and {head}('{out}')"
    _show_model(made, own, after, json_path)


@convert_group.command("frozen")
@_of_a_model
def convert_frozen_command(json_path: str | None, file: Path, out: Path, **options: Any) -> None:
    """Make a checkpoint folder of a checkpoint of the public Frozen in Time code; a '.pth.tar' is read as it is."""
    from regionvlp.checkpoints.public.frozen import convert_frozen

    made = convert_frozen(file, out, **options)
    side, patch = made["image_size"], made["patch_size"]
    own = {"pixels": f"{side} x {side}, patches of {patch} x {patch}", "joint space": made["joint_width"]}
    after = f"regionvlp eval msrvtt --checkpoint {out} --videos FOLDER --annotations FOLDER"
    _show_model(made, own, after, json_path)


def _show_model(made: dict[str, Any], own: dict[str, Any], after: str, json_path: str | None) -> None:
    """What a conversion of a whole model made, for people and as JSON; ``own`` is what its system alone has."""
    console, frames = console_for(json_path), made["frames"]
    shown = {
        "checkpoint": made["checkpoint"],
        "parameters": f"{made['parameters']:,}",
        "frames": f"{frames['checkpoint']} (trained with {frames['file']})",
        **own,
        "file sha256": made["file_sha256"],
    }
    for label, value in shown.items():
        console.print(f"{label:<12} {value}", markup=False)
    console.print(f"next: {after}", markup=False)
    write_json(made, json_path)


@convert_group.command("detector")
@click.argument("file", type=PATH)
@click.option("--out", required=True, type=PATH, help="The detector folder to make.")
@click.option("--objects", type=PATH, help="The object classes, one a line.")
@click.option("--attributes", type=PATH, help="The attribute classes, one a line.")
@click.option("--name", help="What the detector calls itself; a name of 'weights list' brings its settings.")
@json_option
def convert_command(
    file: Path, out: Path, objects: Path | None, attributes: Path | None, name: str | None, json_path: str | None
) -> None:
    """Make a detector folder of a .pkl, .pth, .bin or .safetensors FILE; code in a file is refused, never run."""
    from regionvlp.extract.detector.catalogue import ENTRIES
    from regionvlp.extract.detector.convert import convert

    entry = ENTRIES.get(name) if name else None
    _show(convert(file, out, entry=entry, name=name, objects=objects, attributes=attributes), json_path)


class _Progress:
    """A download's progress on standard error: a line every half minute, with rate and time left."""

    EVERY = 30.0  # seconds

    def __init__(self, name: str) -> None:
        self.name = name
        self._first: tuple[float, int] | None = None
        self._last = 0.0

    def on_bytes(self, done: int, total: int | None) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first, self._last = (now, done), now
            if done:
                click.echo(f"{self.name}: going on after {human_bytes(done)}", err=True)
        if now - self._last >= self.EVERY:
            self._last = now
            click.echo(self._line(now, done, total), err=True)

    def _line(self, now: float, done: int, total: int | None) -> str:
        assert self._first is not None, "a line follows a beginning"
        started, before = self._first
        rate = (done - before) / max(now - started, 1e-9)
        line = f"{self.name}: {human_bytes(done)}"
        if total:
            minutes, seconds = divmod(round((total - done) / max(rate, 1.0)), 60)
            line += f" of {human_bytes(total)}, about {minutes}m{seconds:02d}s left"
        return f"{line}, {human_bytes(rate)}/s"


def _show(description: dict[str, Any], json_path: str | None) -> None:
    size = description["file_bytes"]
    shown = {
        "name": description["name"],
        "family": f"{description['family']}, ResNet-{description['depth']} {description['blocks']}",
        "feature width": description["feature_width"],
        "classes": f"{description['classes']:,} objects, {description['attributes']:,} attributes",
        "parameters": f"{description['parameters']:,}",
        "input": f"short side {description['input']['short_side']}, long side {description['input']['long_side']}",
        "proposals": f"{description['proposals']}, selection {description['selection']}",
        "weights sha256": description["weights_sha256"],
        "file": f"{description['file']} ({human_bytes(size)})" if size else "drawn from a seed",
        "file sha256": description["file_sha256"] or "-",
        "vocabulary": ", ".join(description["vocabularies"].values()) or NO_VOCABULARY,
        **{f"from: {key}": value for key, value in description["origin"].items()},
    }
    console = console_for(json_path)
    for label, value in shown.items():
        console.print(f"{label:<17} {value}", markup=False)
    write_json(description, json_path)
