"""What the demo draws: metrics, curves, and the examples of its page.

Shape letters: V videos, F frames, R regions, W words.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from regionvlp.evaluation.metrics import text_to_video_ranks
from regionvlp.extract.detector.registry import bundled_dir
from regionvlp.pipelines.measure import Results, region_clips, region_edges, region_tokens
from regionvlp.regions import VideoRegions
from regionvlp.report.heat import heat_boxes, strengths, words_and_rows
from regionvlp.report.page import inline_jpeg
from regionvlp.report.plots import Curve, Plot
from regionvlp.report.retrieval import Example, GroundedFrame, Hit, write_retrieval_page
from regionvlp.training.logbook import read_log
from regionvlp.video import read_frames

EXAMPLES, HITS = 6, 6


def draw_page(path: Path, results: Mapping[str, Results], out: Path) -> None:
    """Writes the page: curves and metrics of all models, examples of the one trained with the full loss."""
    full = results["full"]
    ranks = 1 + text_to_video_ranks(full.retrieval.similarity, full.retrieval.target)
    order = np.argsort(ranks, kind="stable")
    aligned = [i for i in order if len(full.annotations[i]["objects"]) > 1]  # two objects say more than one
    best, worst = aligned[:EXAMPLES], order[::-1][: EXAMPLES // 2]
    table = [
        {
            "": name,
            **{f"R@{k}": f"{result.metrics['t2v'][f'R{k}']:.1f}" for k in (1, 5, 10)},
            "median rank": f"{result.metrics['t2v']['MedR']:g}",
            "pointing": f"{result.grounding['accuracy']:.1f}",
        }
        for name, result in results.items()
    ]
    chance = full.metrics["chance"]
    table.append(
        {"": "chance", **{f"R@{k}": f"{chance[f'R{k}']:.1f}" for k in (1, 5, 10)}, "median rank": "",
         "pointing": f"{full.grounding['chance']:.1f}"}
    )  # fmt: skip
    write_retrieval_page(
        path,
        title="Found by a sentence, and why",
        lead="Clips of a toy world were cut into regions by a tiny Faster R-CNN; a ViT over the regions and a small "
        "DistilBERT then learnt, from captions alone, to bring a clip and its sentence together. No box was ever given "
        "to them. Choose a word to see the regions that answer it.",
        facts={
            "queries": f"{full.metrics['queries']} captions that training never saw",
            "gallery": f"{full.metrics['gallery']} held-out clips",
            "pointing": f"how often the region that answers a noun most lies on its object; the regions allow "
            f"{full.grounding['ceiling']:.1f} %",
            "model": "the full loss; its checkpoint is in the folder 'checkpoint' beside this page",
        },
        table=table,
        plots=_plots(results, out),
        groups=[
            ("Found first", [_example(full, int(i), ranks[i], out) for i in best]),
            ("Missed by most", [_example(full, int(i), ranks[i], out) for i in worst]),
        ],
    )


def _example(results: Results, i: int, rank: float, out: Path) -> Example:
    assert results.video is not None
    assert results.text is not None
    row, checkpoint = results.annotations[i], results.checkpoint
    words, positions = words_and_rows(checkpoint.tokenizer, row["caption"], checkpoint.config.data.text_length)
    regions = region_clips(results.dataset).stored(i, results.dataset.choice)
    tokens, mask = region_tokens(results.video, i, results.dataset, regions.num_frames)
    answers, _ = strengths([results.text.tokens[i, rows].numpy() for rows in positions], tokens, mask)
    order = np.argsort(-results.retrieval.similarity[i], kind="stable")[:HITS]
    ids = results.dataset.clips.ids
    return Example(
        query=row["caption"],
        words=words,
        shown=words.index(row["objects"][0]["noun"]),
        video_id=ids[int(results.retrieval.target[i])],
        rank=float(rank),
        frames=_frames(results, i, answers, regions, out),
        hits=[
            Hit(
                _thumbnail(out / "videos" / ids[v]),
                ids[v],
                float(results.retrieval.similarity[i, v]),
                bool(v == results.retrieval.target[i]),
            )
            for v in order
        ],
    )


def _frames(
    results: Results, i: int, answers: NDArray[np.floating], regions: VideoRegions, out: Path
) -> list[GroundedFrame]:
    """The frames of clip i with the regions that answer the words, ``answers`` being [W, F, R]."""
    count, slots = regions.num_frames, region_clips(results.dataset).settings.regions
    pictures = read_frames(out / "videos" / regions.video_id, count).frames
    names = (bundled_dir("toy") / "objects.txt").read_text(encoding="utf-8").split()
    edges, sizes = region_edges(regions, slots, results.last_pixel), regions.image_size
    found = []
    for f in range(count):
        real = min(slots, int(regions.num_regions[f]))
        labels = [f"{names[regions.class_ids[f, r]]} {regions.scores[f, r]:.2f}" for r in range(real)]
        height, width = (int(side) for side in sizes[f])
        boxes = heat_boxes(answers[:, f], edges[f], labels)
        found.append(GroundedFrame(inline_jpeg(pictures[f]), width, height, f"{regions.frame_time[f]:.1f} s", boxes))
    return found


def _thumbnail(path: Path) -> str:
    return inline_jpeg(read_frames(path, 1).frames[0], quality=75)


def _plots(results: Mapping[str, Results], out: Path) -> list[Plot]:
    logs = {name: read_log(out / "runs" / name) for name in results}

    def curve(name: str, run: str, key: str) -> Curve:
        return Curve(name, [(row["step"], row[key]) for row in logs[run] if key in row])

    return [
        Plot("global contrast", [curve(name, name, "global_loss") for name in logs]),
        Plot(
            "region-word alignment",
            [
                curve("regions ask words", "full", "local_v2l_loss"),
                curve("words ask regions", "full", "local_l2v_loss"),
            ],
        ),
    ]
