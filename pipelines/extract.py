"""``regionvlp extract``: a folder of videos becomes region shards."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from regionvlp.config import load_config, parse_assignments, read_yaml
from regionvlp.configs import find_config
from regionvlp.data.tables.vocabulary import parse_columns
from regionvlp.errors import InputError
from regionvlp.extract.settings import ExtractConfig
from regionvlp.pipelines.output import console_for, human_bytes, json_option, options_layer, say_failures, write_json
from regionvlp.progress import ProgressBar

if TYPE_CHECKING:
    from regionvlp.extract.launch.launch import Outcome
    from regionvlp.extract.sources import Source

# option -> the key of the configuration that it sets
OPTION_KEYS = {
    "detector": "detector.name",
    "device": "detector.device",
    "regions": "detector.regions",
    "frames": "video.frames",
    "decoder": "video.decoder",
    "format": "shards.format",
    "dtype": "shards.dtype",
    "shard_size": "shards.size",
    "engine": "run.engine",
    "processes": "run.processes",
    "address": "run.address",
    "cpus_per_worker": "run.cpus_per_worker",
    "retry": "run.retry",
    "stale_after": "run.stale_after",
}


@click.command("extract")
@click.option("--videos", required=True, help="Folder, list, glob (also s3://...), or tars of videos and images.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the shards.")
@click.option("--what", type=click.Choice(["regions", "frames"]), default="regions", help="What to keep.  [regions]")
@click.option("--root", metavar="DIR", help="What the names in a list are relative to.  [the list's folder]")
@click.option(
    "--columns", metavar="ROLE=NAME,...", help="Columns of a list by other names, e.g. video=clip,start=from_s."
)
@click.option("--source", "kind", metavar="KIND", help="folder, list, glob, webdataset or segments.  [as it looks]")
@click.option(
    "--detector",
    metavar="NAME|PATH|MODULE:FACTORY",
    help="auto, toy, a name of 'regionvlp weights list', a folder or weights file, or code of your own.  [auto]",
)
@click.option("--format", metavar="hdf5|parquet", help="How the shards are stored.  [hdf5]")
@click.option("--dtype", metavar="float16|float32|uint8", help="How the features are stored.  [float16]")
@click.option("--frames", type=int, help="Frames per video, one from each equal segment.  [8]")
@click.option("--regions", type=int, help="Regions per frame.  [30]")
@click.option("--shard-size", type=int, help="Videos per shard.  [at most 512, so that every worker has some]")
@click.option("--decoder", metavar="auto|pyav|decord|torchcodec", help="Who reads the videos.  [auto]")
@click.option("--device", help="auto, cpu, cuda, cuda:1 ...  [auto]")
@click.option("--dry-run", is_flag=True, help="Say what it would take, after trying a few videos; write nothing.")
@click.option("--processes", type=int, help="Worker processes on this machine.  [one per GPU, else none]")
@click.option("--task", metavar="K/N", help="Do slot K of N, in an array job; any may be run again.")
@click.option("--engine", metavar="local|ray", help="Who runs the workers.  [local]")
@click.option("--address", help="ray: of a running cluster, e.g. auto.  [one of this machine alone]")
@click.option("--cpus-per-worker", type=int, help="ray, without GPUs: CPUs of one worker.  [4]")
@click.option("--retry", metavar="none|transient|all", help="Failures of earlier runs to try again.  [transient]")
@click.option("--stale-after", type=float, metavar="SECONDS", help="Silence that counts as death.  [300]")
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="YAML file; see configs/extract.")
@click.option("--set", "assignments", multiple=True, metavar="K=V", help="Set one key, e.g. video.workers=4.")
@json_option
def command(
    videos: str,
    what: str,
    root: str | None,
    kind: str | None,
    columns: str | None,
    out: Path,
    dry_run: bool,
    config_path: Path | None,
    task: str | None,
    assignments: tuple[str, ...],
    json_path: str | None,
    **options: Any,
) -> int:
    """Turn videos into region shards.

    \b
    --videos may be
      DIR, or one file          its videos and images; the id is the path below it
      LIST.csv .tsv .txt        a table with a column that names the file (path, video_id, page_dir + videoid ...), or
           .parquet .jsonl      without a header, where the column of names shows in its cells; also with .gz, and
           .json                whatever 'pretrain' takes as captions
      LIST with start and end   stretches of files, as of InternVid and Panda-70M
      'DIR/**/*.mp4'            a glob, also s3://..., gs://..., https://...
      'DIR/{00000..00099}.tar'  webdataset tars, also a folder of them
      FRAMES                    what --what frames left: no video is decoded again

    --what frames keeps the pictures themselves, for any detector or encoder to read later.

    Runs again and again: what is finished is kept, what is missing is done. A video that cannot be read becomes a
    failure row with its reason, and the run goes on.

    To use several machines, start the same command on each of them over one shared folder: they share the work, and
    when one dies the others do its part. In a Slurm array: --task $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT.
    Ctrl-C finishes the shards at hand; a second one, or SIGTERM, drops them at once. Both can be resumed.
    """
    from regionvlp.extract.launch.launch import extract_folder
    from regionvlp.extract.run.job import parse_task
    from regionvlp.extract.run.resuming import resumed
    from regionvlp.extract.sources import open_source

    config = _config(config_path, options, assignments)
    source = open_source(videos, kind=kind, root=root, columns=parse_columns(columns))
    if dry_run:
        from regionvlp.pipelines.dry_run import dry_run as tell

        tell(source, out, resumed(config, out), json_path)
        return 0
    console = console_for(json_path)
    if what == "frames":
        _frames(source, out, config, json_path)
        return 0
    slot = (0, 1) if task is None else parse_task(task)
    if resumed(config, out).detector.name == "toy":
        console.print("the toy detector knows painted shapes only: on real footage its regions mean nothing")
    with ProgressBar("extract", "videos", "frames") as bar:

        def on_plan(planned: int, left: int) -> None:
            before = f"{planned - left:,} handled before, {left:,} to do"
            console.print(f"{planned:,} videos; {before if task is None else f'{left:,} to do in slot {task}'}")
            bar.begin(left)

        outcome = extract_folder(
            source,
            out,
            config,
            task=slot,
            on_plan=on_plan,
            on_video=lambda frames: bar.advance(1, frames),
            on_elsewhere=lambda videos: bar.advance(videos),
            on_note=lambda line: console.print(line, markup=False),
        )
    _summary(outcome, out, task, json_path)
    return 1 if outcome.left else 0


def _config(config_path: Path | None, options: dict[str, Any], assignments: tuple[str, ...]) -> ExtractConfig:
    """The configuration that file and options make."""
    config = load_config(
        ExtractConfig,
        read_yaml(find_config(config_path)) if config_path else {},
        options_layer(OPTION_KEYS, options),
        parse_assignments(assignments),
        source=str(config_path) if config_path else "the options",
    )
    for name in ("address", "cpus_per_worker"):
        if options[name] is not None and config.run.engine != "ray":
            raise InputError(f"--{name.replace('_', '-')} is for Ray's workers", "leave it out, or add --engine ray")
    return config


def _frames(source: Source, out: Path, config: ExtractConfig, json_path: str | None) -> None:
    """``--what frames``."""
    from regionvlp.extract.run.caching import cache_frames

    if config.run.engine != "local" or config.run.processes is not None:
        raise InputError("frames are kept by this process", "start the command on as many machines as are to help")
    console = console_for(json_path)
    with ProgressBar("frames", "videos", "frames") as bar:

        def on_plan(planned: int, left: int) -> None:
            console.print(f"{planned:,} videos; {planned - left:,} handled before, {left:,} to do")
            bar.begin(left)

        done = cache_frames(source, out, config, on_plan=on_plan, on_video=lambda frames: bar.advance(1, frames))
    summary = done.summary or {}
    console.print(
        f"{out}: {summary['videos']:,} videos, {summary['frames']:,} frames, {human_bytes(summary['bytes'])} in "
        f"{summary['shards_done']:,} shards; {summary['failed']:,} failed"
    )
    say_failures(console, out, summary["failures"], most=10)
    write_json({**summary, "new_videos": done.videos}, json_path)


def _summary(outcome: Outcome, out: Path, task: str | None, json_path: str | None) -> None:
    status, console = outcome.status, console_for(json_path)
    if outcome.new_videos:
        rate = outcome.new_frames / max(outcome.seconds, 1e-9)
        console.print(f"{outcome.new_frames:,} frames in {outcome.seconds:.1f} s ({rate:.1f} frames/s)")
    else:
        console.print("nothing left to do" if task is None else f"nothing to do in slot {task}")
    part = f" ({status.partial:,} only in part)" if status.partial else ""
    console.print(
        f"{out}: {status.done:,} videos{part}, {status.frames:,} frames, {status.regions:,} regions, "
        f"{human_bytes(status.bytes)} in {status.shards_done:,} shards; {status.failed:,} failed"
    )
    if outcome.left:
        shards = ", ".join(map(str, outcome.left))
        console.print(f"left undone, because workers died on them: shards {shards}; run again to try once more")
    if outcome.open_slots and task is not None:
        slots = task.rpartition("/")[2]
        for open_slot, count in outcome.open_slots.items():
            console.print(f"{count:,} shards of slot {open_slot} are open, and nobody is at work on them")
        first = next(iter(outcome.open_slots))
        console.print(f"to take them over: the same command with --task {first}/{slots}, or without --task for all")
    say_failures(console, out, status.failures, most=10)
    slots_left = {"open_slots": outcome.open_slots} if task is not None else {}
    write_json(
        {**status.to_dict(), "new_videos": outcome.new_videos, "seconds": round(outcome.seconds, 3), **slots_left},
        json_path,
    )
