"""``regionvlp demo``: the whole story on a small world of moving shapes, to a page to look at.

Stages: render clips and captions, extract regions, pre-train with the full loss and with the global loss alone, measure
both, draw. Killed at any moment and started again, it goes on where it stood; what is finished is not done again, but
for the measuring, which takes seconds.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml
from rich.console import Console

from regionvlp.errors import RegionVLPError
from regionvlp.extract.settings import DetectorSettings, ExtractConfig, ShardSettings, VideoSettings
from regionvlp.pipelines.output import console_for, human_bytes, json_option, write_json
from regionvlp.pipelines.toy.render import note_order, render
from regionvlp.progress import ProgressBar

if TYPE_CHECKING:
    from regionvlp.checkpoints.folder import Checkpoint
    from regionvlp.pipelines.measure import Results
    from regionvlp.training.config import RunConfig

SCALE = "demo.json"
FRAMES = 4
EXTRACT = ExtractConfig(
    detector=DetectorSettings(name="toy", device="cpu"),
    video=VideoSettings(frames=FRAMES),
    shards=ShardSettings(size=128),
)


@dataclass(frozen=True)
class Scale:
    """How large a demo is: clips to learn from, clips held out, training steps."""

    train: int
    test: int
    steps: int


FULL, QUICK = Scale(train=1600, test=256, steps=500), Scale(train=160, test=32, steps=40)


@click.command("demo")
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo-out"), show_default=True, help="Folder.")
@click.option("--quick", is_flag=True, help="A smoke run of about a minute: too little to learn from.")
@json_option
def command(out: Path, quick: bool, json_path: str | None) -> None:
    """Render a toy world, extract its regions, train, measure, and draw a page to look at.

    Leaves videos, shards, runs, checkpoint, index, metrics.json and report.html in the folder.
    """
    from regionvlp.checkpoints.folder import load_checkpoint
    from regionvlp.data.settings import SourceSettings
    from regionvlp.pipelines.measure import measure
    from regionvlp.pipelines.toy.demo_results import draw_page
    from regionvlp.training.run import train
    from regionvlp.training.saving import find_checkpoint

    console = console_for(json_path)
    scale = QUICK if quick else FULL
    out = out.resolve()  # a run remembers its paths
    note_order(out / SCALE, asdict(scale), "a demo of another size")
    console.print(f"1. rendering {scale.train} clips to learn from and {scale.test} held out")
    render(out / "videos", {"train": scale.train, "test": scale.test})
    console.print("2. extracting regions with the tiny detector")
    _extract(out, console)
    checkpoints: dict[str, Checkpoint] = {}
    for number, (name, use_local) in enumerate((("full", True), ("global-only", False)), start=3):
        losses = "region-word alignment and global contrast" if use_local else "global contrast alone"
        console.print(f"{number}. training with {losses}")
        run = out / "runs" / name
        train(demo_config(out, scale, use_local=use_local), run)
        checkpoints[name] = load_checkpoint(run)
    _copy_checkpoint(find_checkpoint(out / "runs" / "full"), out / "checkpoint")
    console.print("5. measuring on the held-out clips, and drawing")
    results = {
        name: measure(checkpoint, SourceSettings(captions=out / "videos" / "test.jsonl", shards=out / "shards"))
        for name, checkpoint in checkpoints.items()
    }
    record = _record(results)
    write_json(record, str(out / "metrics.json"))
    draw_page(out / "report.html", results, out)
    console.print("6. making the held-out clips searchable")
    captions = results["full"].annotations
    same = _index(out, [(row["video_id"], row["caption"]) for row in captions])
    _say(console, results, out / "report.html")
    console.print(
        f"   {same:.0f} % of searches that compare a hundred clips token by token find what comparing all finds"
    )
    console.print(f'or ask: regionvlp search {out / "index"} "{captions[0]["caption"]}"', markup=False)
    write_json(record, json_path)


def _index(out: Path, captions: list[tuple[str, str]]) -> float:
    """Makes the held-out clips searchable by the trained model.

    Returns:
        The share of captions (percent) for which re-ranking a hundred clips gives the first ten of re-ranking all.
    """
    from regionvlp.search.build import index_shards
    from regionvlp.search.clips import ShardClips
    from regionvlp.search.encoders.opening import open_encoder
    from regionvlp.search.evaluate import evaluate
    from regionvlp.search.index import open_index
    from regionvlp.search.writer import IndexWriter

    source = ShardClips([out / "shards"], out / "videos").only(video_id for video_id, _ in captions)
    about = {"shards": [str(out / "shards")], "videos": str(out / "videos")}
    encoders = [open_encoder(str(out / "checkpoint"))]
    # Trained anew, the checkpoint is another encoder, which an index does not change.
    if (out / "index").exists() and not _is_of(out / "index", encoders[0].identity()):
        shutil.rmtree(out / "index")
    with IndexWriter(out / "index", encoders, tokens=True, cut={"by": "shards"}, source=about) as writer:
        index_shards(writer, source, prune=True)
        writer.finish()
    return float(evaluate(open_index(out / "index"), captions)["same_top10"])


def _is_of(index: Path, identity: dict[str, Any]) -> bool:
    """Whether an index was made with one encoder of that identity."""
    from regionvlp.search.folder import IndexManifest

    try:
        return [record.identity for record in IndexManifest.read(index).encoders] == [identity]
    except RegionVLPError:
        return False


def demo_config(out: Path, scale: Scale, *, use_local: bool) -> RunConfig:
    """The shipped recipe with this folder's paths."""
    from regionvlp.training.config import run_config

    recipe = yaml.safe_load((resources.files("regionvlp.configs") / "pretrain" / "demo.yaml").read_text("utf-8"))
    shards = str(out / "shards")
    return run_config(
        recipe,
        {
            "data": {"sources": [{"captions": str(out / "videos" / "train.jsonl"), "shards": shards}]},
            "eval": {"source": {"captions": str(out / "videos" / "test.jsonl"), "shards": shards}},
            "loss": {"use_local": use_local},
            "optim": {"warmup_steps": min(recipe["optim"]["warmup_steps"], scale.steps - 1)},
            "train": {"max_steps": scale.steps},
        },
        source="demo.yaml",
    )


def _extract(out: Path, console: Console) -> None:
    from regionvlp.extract.launch.launch import extract_folder

    with ProgressBar("extract", "videos", "frames") as bar:
        outcome = extract_folder(
            out / "videos",
            out / "shards",
            EXTRACT,
            on_plan=lambda planned, left: bar.begin(left),
            on_video=lambda frames: bar.advance(1, frames),
        )
    status = outcome.status
    console.print(
        f"   {status.frames:,} frames, {status.regions:,} regions, {human_bytes(status.bytes)} "
        f"in {status.shards_done} shards"
    )


def _copy_checkpoint(source: Path, target: Path) -> None:
    """Puts the trained model where a user looks for it, whole or not at all."""
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(source, temporary, ignore=shutil.ignore_patterns("trainer_state.pt"))
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)


def _record(results: dict[str, Results]) -> dict[str, Any]:
    full, base = results["full"], results["global-only"]
    return {
        **full.metrics,
        "grounding": full.grounding,
        "global_only": {**{key: base.metrics[key] for key in ("t2v", "v2t")}, "grounding": base.grounding},
    }


def _say(console: Console, results: dict[str, Results], page: Path) -> None:
    for name, result in results.items():
        t2v, pointing = result.metrics["t2v"], result.grounding
        console.print(
            f"   {name:<12} text to video R@1 {t2v['R1']:5.1f} %  R@5 {t2v['R5']:5.1f} %  R@10 {t2v['R10']:5.1f} %   "
            f"pointing {pointing['accuracy']:.1f} % of {pointing['ceiling']:.1f} %"
        )
    chance = next(iter(results.values())).metrics["chance"]["R1"]
    console.print(f"   {'chance':<12} text to video R@1 {chance:5.1f} %")
    console.print(f"\nOpen {page.resolve().as_uri()}: what a sentence finds, and which regions answer which words.")
