"""``regionvlp demo``: a small world of moving shapes, through the real stages, to a page to look at.

Stages, each skipped where its result already lies in the folder: render clips, extract their regions, draw the page.
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from regionvlp import open_shards
from regionvlp.extract.launch import Outcome, extract_folder
from regionvlp.extract.settings import DetectorSettings, ExtractConfig, ShardSettings
from regionvlp.pipelines import toyworld
from regionvlp.pipelines.output import console_for, human_bytes, json_option, write_json
from regionvlp.progress import ProgressBar
from regionvlp.report.regions import summary_facts, write_regions_page

CLIPS, QUICK_CLIPS = 24, 8
CONFIG = ExtractConfig(detector=DetectorSettings(name="toy"), shards=ShardSettings(size=16))


@click.command("demo")
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo-out"), show_default=True, help="Folder.")
@click.option("--quick", is_flag=True, help=f"A smoke run: {QUICK_CLIPS} clips instead of {CLIPS}.")
@json_option
def command(out: Path, quick: bool, json_path: str | None) -> None:
    """Render a few clips of moving shapes, extract their regions, and draw what was written.

    Leaves videos, shards and report.html in the folder. Run again, it does only what is missing.
    """
    console = console_for(json_path)
    count = QUICK_CLIPS if quick else CLIPS
    annotations = _rendered(out / "videos", count)
    console.print(f"1. rendered  {count} clips of {toyworld.WIDTH}x{toyworld.HEIGHT} pixels in {out / 'videos'}")

    with ProgressBar("extract", "videos", "frames") as bar:
        outcome = extract_folder(
            out / "videos",
            out / "shards",
            CONFIG,
            on_plan=lambda plan, left: bar.begin(left),
            on_video=lambda frames: bar.advance(1, frames),
        )
    status = outcome.status
    console.print(
        f"2. extracted {status.frames:,} frames, {status.regions:,} regions, {human_bytes(status.bytes)} "
        f"in {status.shards_done} shards in {out / 'shards'}"
    )

    page = out / "report.html"
    _draw(page, out, annotations, outcome)
    console.print(f"3. drew      {page}")
    console.print(f"\nOpen {page.resolve().as_uri()} and see what was written. Then try your own videos:")
    console.print("  regionvlp extract --videos DIR --out SHARDS --detector toy")
    write_json({**status.to_dict(), "report": str(page), "seconds": round(outcome.seconds, 3)}, json_path)


def _rendered(folder: Path, count: int) -> list[dict[str, str]]:
    """The annotations of the first ``count`` test clips, rendering them where they are not there yet."""
    index = folder / "test.jsonl"
    if not index.exists() or index.read_text(encoding="utf-8").count("\n") < count:
        toyworld.write_clips(folder, count, split="test")
    return [json.loads(line) for line in index.read_text(encoding="utf-8").splitlines()][:count]


def _draw(page: Path, out: Path, annotations: list[dict[str, str]], outcome: Outcome) -> None:
    shards = open_shards(out / "shards")
    manifest = shards.manifest
    facts = {
        "detector": f"{manifest.detector['name']} ({manifest.detector['family']})",
        "per frame": f"{manifest.regions} regions of {manifest.feature_width} features, {manifest.dtype}",
        "format": manifest.format,
        **summary_facts({name: getattr(outcome.status, name) for name in ("videos", "frames", "regions", "failures")}),
        "on disk": human_bytes(outcome.status.bytes),
    }
    write_regions_page(
        page,
        title="regionvlp: what the extraction wrote",
        facts=facts,
        videos=[
            (out / "videos" / row["video_id"], shards[row["video_id"]], row["caption"]) for row in annotations[:12]
        ],
        class_names=None,
    )
