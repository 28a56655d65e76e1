"""The commands of ``regionvlp shards`` that bring features in, give them away, or store them differently."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from regionvlp.errors import InputError, NothingDoneError
from regionvlp.pipelines.output import console_for, human_bytes, json_option, say_failures, write_json
from regionvlp.progress import ProgressBar

if TYPE_CHECKING:
    from regionvlp.regions import VideoRegions
    from regionvlp.shards import Manifest, PlanRow

_DEFAULTS: dict[str, Any] = {"format": "hdf5", "dtype": "float16", "shard_size": 512}


def _detector_name(command: Callable[..., Any]) -> Callable[..., Any]:
    """Whose features they are; a name is all that is known of a detector that ran somewhere else."""
    return click.option(
        "--detector-name",
        metavar="NAME",
        help="Whose features these are. Sets of unlike names do not mix, as with detectors of one's own.",
    )(command)


def _storage_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """How new shards are stored; what is left out is what OUT has already, or the default."""
    for option in (
        click.option("--shard-size", type=click.IntRange(1, 100_000), help="Videos per shard.  [512]"),
        click.option("--dtype", metavar="float16|float32|uint8", help="How the features are stored.  [float16]"),
        click.option("--format", metavar="hdf5|parquet", help="How the shards are stored.  [hdf5]"),
    ):
        command = option(command)
    return command


@click.command("import-npz")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--regions", type=click.IntRange(1, 300), help="Regions per frame, the most confident.  [30]")
@click.option("--frames", type=click.IntRange(1, 1024), help="Frames per video at most.  [as many as any has]")
@click.option(
    "--layout",
    type=click.Choice(["auto", "frames", "images"]),
    default="auto",
    show_default=True,
    help="What files called by numbers are: the frames of the video that their folder is, or images.",
)
@_detector_name
@_storage_options
@json_option
def import_npz(
    folder: Path, out: Path, layout: str, detector_name: str | None, json_path: str | None, **options: Any
) -> None:
    """Bring features, one .npz per frame or image below DIR, into shards in OUT.

    \b
    DIR/<video>/<frame number>.npz    frames of a video (the public DemoVLP layout)
    DIR/.../<image>_1.npz             an image (CC3M); _0 where there is no _1
    DIR/.../<image>.npz               an image, with --layout images

    \b
    Each file holds (other names in use are known too)
      x [K, C]  bbox [K, 4] in pixels, x1 y1 x2 y2  image_h  image_w
      and, there or in a dictionary 'info', where they are known:
      objects_conf or scores [K], objects_id or labels [K], attrs_id [K], attrs_conf [K]

    Run again, it goes on where it stopped. A broken file fails its video, which is listed and never replaced.
    """
    from regionvlp.shards.interop import public_npz

    found = public_npz.find_videos(folder, layout)
    console = console_for(json_path)
    if found.strange:
        console.print(f"not of the layout, left out: {found.strange:,} files ({', '.join(found.strangers)})")

    def settings() -> dict[str, Any]:
        return {"frames": found.most_frames, "feature_width": public_npz.feature_width(folder, found)}

    about = {"video": {"reader": "npz", "layout": public_npz.LAYOUT}}
    options |= _detector(out, detector_name, json_path)
    manifest = _manifest(out, {**options, **about}, {"regions": 30, "detector": {"name": "public-npz"}}, settings)
    _fill(out, manifest, found.rows, public_npz.video_reader(folder, manifest), "import-npz", json_path)


@click.command("import-butd")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--regions", type=click.IntRange(1, 300), help="Regions per image, the most confident.  [36]")
@_detector_name
@_storage_options
@json_option
def import_butd(
    files: tuple[Path, ...], out: Path, detector_name: str | None, json_path: str | None, **options: Any
) -> None:
    """Bring tables of bottom-up-attention features (lines of base64) into shards in OUT, an image as a clip of a frame.

    Lines have 10 columns, 6 (image_id image_w image_h num_boxes boxes features), or a first line with their names. Run
    again, it goes on where it stopped.
    """
    from regionvlp.shards.interop import butd

    with ProgressBar("look through", "bytes", "MB") as bar:
        bar.begin(sum(path.stat().st_size for path in files if path.is_file()))
        found = butd.find_images(files, lambda count: bar.advance(count, count / 1e6))
    console = console_for(json_path)
    if found.repeated:
        console.print(f"{found.repeated:,} lines repeat another word for word and count once")
    if found.broken:
        console.print(f"{found.broken:,} lines cannot be read, and another line of the same image counts instead")

    def settings() -> dict[str, Any]:
        return {"frames": 1, "feature_width": butd.feature_width(found)}

    options |= _detector(out, detector_name, json_path)
    defaults = {"regions": 36, "detector": {"name": "bottom-up-attention-table"}}
    manifest = _manifest(out, {**options, "video": {"reader": "butd"}}, defaults, settings)
    _fill(out, manifest, found.rows, butd.image_reader(found.tables, manifest), "import-butd", json_path)


@click.command("import-boxes")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--regions", type=click.IntRange(1, 300), help="Regions per frame, the most confident.  [30]")
@_storage_options
@json_option
def import_boxes(files: tuple[Path, ...], out: Path, json_path: str | None, **options: Any) -> None:
    """Bring boxes that another detector found into shards in OUT, with features or without.

    FILE is COCO JSON, Parquet (a row a box) or npz (a file a video; a folder of them will do); 'python -c "import
    regionvlp.shards.interop.boxes as b; help(b)"' says which columns they have. Run again, it goes on where it stopped.
    """
    from regionvlp.shards.interop import boxes
    from regionvlp.shards.vocabulary import write_vocabulary

    found = boxes.find_boxes(files)

    def settings() -> dict[str, Any]:
        return {"frames": found.most_frames, "feature_width": max(1, found.feature_width)}

    about = {"detector": found.detector(), "video": {"reader": "boxes"}}
    manifest = _manifest(out, {**options, **about}, {"regions": 30}, settings)
    write_vocabulary(out, found.vocabulary)
    _fill(out, manifest, found.rows, boxes.boxes_reader(found, manifest), "import-boxes", json_path)


@click.command("export-npz")
@click.argument("shards", type=click.Path(path_type=Path))
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--compress/--no-compress", default=True, help="As the public files are.  [compress]")
@json_option
def export_npz(shards: Path, folder: Path, compress: bool, json_path: str | None) -> None:
    """Write SHARDS in the public DemoVLP layout below DIR: one float32 .npz per frame.

    Run again, it writes the files that are missing.
    """
    from regionvlp.shards import open_shards
    from regionvlp.shards.interop import public_npz

    reader, console = open_shards(shards), console_for(json_path)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file", "give a folder")
    with ProgressBar("export-npz", "videos", "frames") as bar:
        bar.begin(len(reader))
        written = public_npz.export(reader, folder, compress=compress, on_video=lambda frames: bar.advance(1, frames))
    console.print(f"{folder}: {written:,} files written for {len(reader):,} videos")
    if reader.manifest.dtype != "float32":
        console.print(f"the features were stored as {reader.manifest.dtype}: they are as exact as that, not more")
    if reader.failures:
        console.print(f"{len(reader.failures):,} videos failed when the shards were made, and have no files")
    write_json({"videos": len(reader), "files": written, "failed": len(reader.failures)}, json_path)


@click.command("convert")
@click.argument("shards", metavar="IN", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--format", "file_format", metavar="hdf5|parquet", help="[as IN]")
@click.option("--dtype", metavar="float16|float32|uint8", help="[as IN]")
@json_option
def convert_command(shards: Path, out: Path, file_format: str | None, dtype: str | None, json_path: str | None) -> None:
    """Write the shards of IN in another format or dtype to OUT, with plan, failures and detector.

    Shards of version 0.1 have no checksums, and get some: then format and dtype may stay what they are. Shard by shard:
    run again, it does those that are missing.
    """
    from regionvlp.extract.run.card import CARD_NAME, write_card
    from regionvlp.shards import Manifest, inspect
    from regionvlp.shards.interop import convert

    if not shards.is_dir():
        raise InputError(f"no shard folder at {shards}", "check the path")
    source, console = Manifest.read(shards), console_for(json_path)
    target = convert.converted_manifest(source, file_format, dtype, checksums=convert.lacks_checksums(shards))
    lost = convert.loss(source, target)
    console.print(f"not exact: {lost}" if lost else "exact: every number stays what it is")
    with ProgressBar("convert", "videos", "frames") as bar:
        written = convert.convert(
            shards,
            out,
            target,
            on_plan=lambda total, left: bar.begin(left),
            on_video=lambda frames: bar.advance(1, frames),
        )
    if not write_card(out):
        console.print(f"{out / CARD_NAME} was edited, so it is left as it is", markup=False)
    before, after = inspect(shards), inspect(out)
    console.print(
        f"{out}: {written:,} shards written; {after['videos']:,} videos, {human_bytes(after['bytes'])} "
        f"({human_bytes(before['bytes'])} in {shards})"
    )
    write_json(
        {"shards": written, "videos": after["videos"], "bytes": after["bytes"], "bytes_before": before["bytes"]}
        | {"loss": lost},
        json_path,
    )


def _detector(out: Path, name: str | None, json_path: str | None) -> dict[str, Any]:
    """The detector as it was stated; without a name, what OUT has or what all such files share, which is said."""
    from regionvlp.store.names import MANIFEST_NAME

    if name is not None:
        return {"detector": {"name": name}}
    if not (out / MANIFEST_NAME).is_file():
        console_for(json_path).print(
            "nothing says which detector made these; with --detector-name, sets of different ones are told apart"
        )
    return {}


def _manifest(
    out: Path, given: dict[str, Any], defaults: dict[str, Any], found: Callable[[], dict[str, Any]]
) -> Manifest:
    """The manifest of ``out``, created if need be: what was given, else what is there, else the defaults."""
    from regionvlp.shards import Manifest
    from regionvlp.store.names import MANIFEST_NAME

    there: dict[str, Any] = {}
    if (out / MANIFEST_NAME).is_file():
        there = Manifest.read(out).as_dict()
    elif out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file", "give a folder")
    chosen = {name: value for name, value in given.items() if value is not None}
    rest = {name: value for name, value in there.items() if name not in ("schema_version", "created_by")}
    values = {**_DEFAULTS, **defaults, **(rest or found()), **chosen}
    return Manifest.create_or_check(out, Manifest(**values))


def _fill(
    out: Path,
    manifest: Manifest,
    rows: Sequence[PlanRow],
    make: Callable[[PlanRow], VideoRegions],
    label: str,
    json_path: str | None,
) -> None:
    """Plans, reads and writes; then says what the folder holds."""
    from regionvlp.shards import inspect
    from regionvlp.shards.interop.filling import extend_plan, fill_shards

    console = console_for(json_path)
    plan = extend_plan(out, list(rows), manifest.shard_size)
    with ProgressBar(label, "videos", "frames") as bar:

        def on_plan(planned: int, left: int) -> None:
            console.print(f"{planned:,} videos; {planned - left:,} handled before, {left:,} to do")
            bar.begin(left)

        filled = fill_shards(out, manifest, plan, make, on_plan=on_plan, on_video=lambda frames: bar.advance(1, frames))
    if filled.busy:
        console.print(f"{filled.busy:,} shards are in the hands of another process")
    summary = inspect(out)
    console.print(
        f"{out}: {summary['videos']:,} videos, {summary['frames']:,} frames, {human_bytes(summary['bytes'])} in "
        f"{summary['shards_done']:,} shards; {summary['failed']:,} failed"
    )
    if manifest.dtype != "float32":
        console.print(f"features are kept as {manifest.dtype}; --dtype float32 would keep them exactly")
    say_failures(console, out, summary["failures"], most=10)
    write_json({**summary, "new_videos": filled.videos}, json_path)
    if summary["videos"] == 0 and not filled.busy:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in summary["failures"].items())
        raise NothingDoneError(f"none of {summary['failed']} could be imported: {reasons}", f"regionvlp status {out}")


COMMANDS: list[click.Command] = [import_npz, import_butd, import_boxes, export_npz, convert_command]
