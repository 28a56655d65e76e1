"""``regionvlp shards draw``: videos with their regions on one page, found where the extraction found them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from regionvlp.errors import InputError, VideoError
from regionvlp.pipelines.output import console_for, human_bytes

if TYPE_CHECKING:
    from regionvlp.extract.sources import Source
    from regionvlp.report.regions import Drawn
    from regionvlp.shards import ShardReader

_FACTS = ("format", "dtype", "videos", "frames", "regions", "failures", "partial")


@click.command("draw")
@click.argument("shards", type=click.Path(path_type=Path))
@click.option("--videos", required=True, help="What 'extract' was given: folder, list, glob or tars.")
@click.option("--root", metavar="DIR", help="What the names in a list are relative to.  [the list's folder]")
@click.option("--source", "kind", metavar="KIND", help="folder, list, glob, webdataset or segments.  [as it looks]")
@click.option("--out", type=click.Path(path_type=Path), default=Path("regions.html"), show_default=True, help="Page.")
@click.option("--count", type=click.IntRange(1, 1000), default=12, show_default=True, help="Videos to show.")
@click.option("--detector", metavar="NAME|PATH", help="Whose class names to show.  [classes by number]")
def command(
    shards: Path, videos: str, root: str | None, kind: str | None, out: Path, count: int, detector: str | None
) -> None:
    """Draw videos with their strongest regions on one HTML page.

    --videos, --root and --source say where the videos are, as they did to 'extract'.
    """
    from regionvlp.extract.detector import find_detector
    from regionvlp.extract.sources import open_source
    from regionvlp.report.regions import summary_facts, write_regions_page
    from regionvlp.shards import inspect, open_shards
    from regionvlp.shards.detectors import counts_last_pixel

    if out.is_dir() or not out.absolute().parent.is_dir():
        raise InputError(f"cannot write {out}", "give --out a file in a folder that exists")
    reader = open_shards(shards)
    source = open_source(videos, kind=kind, root=root)
    names = find_detector(detector).objects if detector else None
    step = max(1, len(reader) // count)
    chosen = reader.video_ids[::step][:count]
    summary = inspect(shards)
    write_regions_page(
        out,
        title=f"Regions in {shards}",
        facts={
            "detector": str(summary["detector"].get("name")),
            **summary_facts({name: summary[name] for name in _FACTS}),
            "on disk": human_bytes(summary["bytes"]),
        },
        videos=pictures(shards, reader, source, chosen),
        last_pixel=counts_last_pixel(reader.manifest.detector),
        class_names=names.read_text(encoding="utf-8").splitlines() if names else None,
    )
    console_for(None).print(f"drew {len(chosen)} of {len(reader)} videos: {out.resolve().as_uri()}", markup=False)


def pictures(folder: Path, reader: ShardReader, source: Source, video_ids: Sequence[str]) -> Iterator[Drawn]:
    """Reads the frames of videos again, from where their rows of the plan say that they are.

    Raises:
        InputError: a video is not in ``source``, or is not the one that was extracted.
    """
    from regionvlp.extract.sources.scratch import Scratch
    from regionvlp.store.plan import UNKNOWN, PlanRow, read_plan
    from regionvlp.video import READERS, read_frames

    manifest, rows = reader.manifest, dict[str, PlanRow]()
    by, max_seconds = manifest.video.get("reader", ""), manifest.video.get("max_seconds")
    if by in READERS:
        hint = "give --videos, --root and --source as 'extract' was given them"
        wanted = set(video_ids)
        rows = {row.video_id: row for row in read_plan(folder) or () if row.video_id in wanted}
    else:
        # Imported: the plan names tables of features, and ids seldom have an extension, as in a list.
        hint, by = "give --videos a folder that holds the imported videos or pictures, named by their ids", "auto"
        source = replace(source, kind="list") if source.kind == "folder" else source
    with closing(Scratch(most_bytes=1 << 30)) as scratch:
        for video_id in video_ids:
            row = rows.get(video_id) or PlanRow(0, video_id, UNKNOWN, UNKNOWN)
            regions = reader[video_id]
            try:
                with source.local(row, scratch) as path:
                    video = read_frames(
                        path, manifest.frames, reader=by, start=row.start, end=row.end, max_seconds=max_seconds
                    )
            except VideoError as error:
                raise InputError(f"cannot draw '{video_id}' from {source.videos}: {error.message}", hint) from None
            if video.frame_index.tolist() != regions.frame_index.tolist():
                raise InputError(
                    f"the frames of '{video_id}' in {source.videos} are not those that were extracted", hint
                )
            yield video.frames, regions, ""
