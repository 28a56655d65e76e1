"""``regionvlp bench encoders``: what reads one's own videos best, and at what cost.

In: a folder of videos, captions of them. Out: for each encoder an index of its own, its recall, how often the box that
answers a word lies on the thing (where boxes are known), seconds and bytes a clip.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from regionvlp.errors import InputError
from regionvlp.pipelines.output import console_for, human_bytes, json_option, write_json

if TYPE_CHECKING:
    from regionvlp.search.pointing import Thing

PATH = click.Path(path_type=Path)


@click.command("encoders")
@click.option("--videos", required=True, type=PATH, metavar="DIR", help="Folder of videos and pictures.")
@click.option("--queries", required=True, type=PATH, metavar="FILE", help="Table of video_id and caption.")
@click.option("--encoder", "encoders", multiple=True, metavar="NAME", help="As of 'index'; several of them.  [hub]")
@click.option("--boxes", type=PATH, metavar="FILE", help="Table of video_id, word, x1, y1, x2, y2: where things are.")
@click.option("--detector", metavar="NAME", help="As of 'extract', for encoders that read regions.  [auto]")
@click.option("--keep", type=PATH, metavar="DIR", help="Keep the indexes there.  [deleted]")
@click.option("--device", default="auto", show_default=True)
@json_option
def command(
    videos: Path,
    queries: Path,
    encoders: tuple[str, ...],
    boxes: Path | None,
    detector: str | None,
    keep: Path | None,
    device: str,
    json_path: str | None,
) -> None:
    """Index your own videos with each encoder, and print which finds most, points best, and costs what.

    Pointing is counted with --boxes: of each word with a box in a picture, how often the strongest box of the answer
    overlaps it by half (intersection over union), and how often its middle lies in it.
    """
    from regionvlp.devices import pick_device
    from regionvlp.models.hub.files import DEFAULT
    from regionvlp.search.pointing import read_things

    where = str(pick_device(device))
    things = read_things(boxes) if boxes is not None else []
    console = console_for(json_path)
    found = []
    with TemporaryDirectory() as scratch:
        for number, name in enumerate(encoders or (f"hub:{DEFAULT}",)):
            out = (keep or Path(scratch)) / f"index-{number}"
            found.append(_measured(name, out, videos, queries, things, detector, where))
            _say(found[-1], console)
    write_json({"device": where, "rows": _rows(found), "ratios": {}, "encoders": found}, json_path)


def _measured(
    name: str,
    out: Path,
    videos: Path,
    queries: Path,
    things: Sequence[Thing],
    detector: str | None,
    device: str,
) -> dict[str, Any]:
    """Recall, pointing and costs of one encoder; its index lies at ``out`` afterwards."""
    from rich.console import Console

    from regionvlp.data.captions import load_captions, resolve_videos
    from regionvlp.pipelines.index_videos import VideoIndexing
    from regionvlp.search.encoders.opening import open_encoder
    from regionvlp.search.evaluate import evaluate, gallery
    from regionvlp.search.index import open_index
    from regionvlp.search.pointing import pointing
    from regionvlp.video import find_videos

    if out.exists():
        raise InputError(f"{out} is there already", "name a new folder with --keep")
    encoder = open_encoder(name, device)
    work = VideoIndexing(
        videos, out, [encoder], detector, 8.0, 4.0, False, 8, encoder.has_tokens, False, device, Console(quiet=True)
    )  # fmt: skip
    start = time.perf_counter()
    _, writer = work.run(find_videos(videos), prune=False, discard=False)
    seconds = time.perf_counter() - start
    clips = writer.contents.rows
    size = sum(path.stat().st_size for path in out.glob("segment-*/*"))
    index = open_index(out, encoders=[name], device=device)
    captions = resolve_videos(load_captions(queries), gallery(index)[0], allow_missing=False)
    metrics = evaluate(index, [(row.video_id, row.caption) for row in captions])
    about: dict[str, Any] = {
        "encoder": name,
        "clips": clips,
        "queries": metrics["queries"],
        "recall": {key: metrics["t2v"][key] for key in ("R1", "R5", "R10", "MedR")},
        "intervals": metrics["intervals"],
        "seconds_per_clip": seconds / max(clips, 1),
        "bytes_per_clip": size / max(clips, 1),
    }
    return about | ({"pointing": pointing(index, things)} if things else {})


def _rows(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for one in found:
        values = {**{key: (one["recall"][key], "%") for key in ("R1", "R5", "R10")}}
        values["seconds"] = (one["seconds_per_clip"], "s/clip")
        values["bytes"] = (one["bytes_per_clip"], "B/clip")
        for key, value in one.get("pointing", {}).items():
            values[f"pointing_{key}"] = (value, "words" if key == "words" else "%")
        rows += [{"name": f"{one['encoder']} {k}", "value": value, "unit": unit} for k, (value, unit) in values.items()]
    return rows


def _say(one: Mapping[str, Any], console: Any) -> None:
    recall = ", ".join(f"R@{key[1:]} {one['recall'][key]:.1f}" for key in ("R1", "R5", "R10"))
    costs = f"{one['seconds_per_clip']:.2f} s and {human_bytes(round(one['bytes_per_clip']))} a clip"
    console.print(
        f"{one['encoder']}: {recall} ({one['queries']:,} queries, {one['clips']:,} clips); {costs}", markup=False
    )
    if "pointing" in one:
        point = one["pointing"]
        chance = f"chance {point['chance']:.1f}"
        shares = f"half overlapping {point['iou']:.1f} %, middle inside {point['inside']:.1f} % ({chance})"
        console.print(f"  pointing at {point['words']:,.0f} words: {shares}")
