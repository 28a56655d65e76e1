"""What the demo draws: metrics, curves, and the examples of its page.

Shape letters: V videos, F frames, R regions, W words, D joint width.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from regionvlp.evaluation.grounding import alignment
from regionvlp.evaluation.metrics import text_to_video_ranks
from regionvlp.extract.detector.registry import bundled_dir
from regionvlp.pipelines.measure import Results, region_clips, region_edges, region_tokens
from regionvlp.report.page import inline_jpeg
from regionvlp.report.plots import Curve, Plot
from regionvlp.report.retrieval import Example, GroundedFrame, Hit, RegionBox, write_retrieval_page
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
        story="Clips of a toy world were cut into regions by a tiny Faster R-CNN; a ViT over the regions and a small "
        "DistilBERT then learnt, from captions alone, to bring a clip and its sentence together. No box was ever given "
        "to them. Move over a word to see the regions that answer it.",
        facts={
            "queries": f"{full.metrics['queries']} captions that training never saw",
            "gallery": f"{full.metrics['gallery']} held-out clips",
            "pointing": f"how often the region that answers a noun most lies on its object; the regions allow "
            f"{full.grounding['ceiling']:.1f} %",
            "model": "the full loss; its checkpoint is in the folder 'checkpoint' beside this page",
        },
        table=table,
        plots=_plots(results, out),
        best=[_example(full, int(i), ranks[i], out) for i in best],
        worst=[_example(full, int(i), ranks[i], out) for i in worst],
    )


def _example(results: Results, i: int, rank: float, out: Path) -> Example:
    row = results.annotations[i]
    words, positions = _words(results, i)
    nouns = [thing["noun"] for thing in row["objects"]]
    order = np.argsort(-results.retrieval.similarity[i], kind="stable")[:HITS]
    return Example(
        words=words,
        shown=words.index(nouns[0]),
        rank=float(rank),
        hits=[
            Hit(
                _thumbnail(out / "videos" / results.dataset.clips.ids[v]),
                results.dataset.clips.ids[v],
                float(results.retrieval.similarity[i, v]),
                bool(v == results.retrieval.target[i]),
            )
            for v in order
        ],
        frames=_frames(results, i, positions, out),
    )


def _words(results: Results, i: int) -> tuple[list[str], list[list[int]]]:
    """The words of caption i (punctuation stripped) and the rows of their pieces in its tokens."""
    caption, length = results.annotations[i]["caption"], results.checkpoint.config.data.text_length
    words, positions, start = [], [], 0
    for word in caption.split():
        start = caption.index(word, start)
        rows = results.checkpoint.tokenizer.tokens_of(caption, (start, start + len(word.strip(","))), length)
        words.append(word.strip(","))
        positions.append([row - 1 for row in rows])
        start += len(word)
    return words, positions


def _frames(results: Results, i: int, positions: list[list[int]], out: Path) -> list[GroundedFrame]:
    regions = region_clips(results.dataset).stored(i, results.dataset.choice)
    slots, count = region_clips(results.dataset).settings.regions, regions.num_frames
    assert results.video is not None
    assert results.text is not None
    tokens, mask = region_tokens(results.video, i, results.dataset, count)
    pictures = read_frames(out / "videos" / regions.video_id, count).frames
    answers = np.stack([alignment(results.text.tokens[i, rows].numpy(), tokens) for rows in positions])  # [W, F, R]
    # Each word is shown from its weakest to its strongest region over the whole clip; empty slots have no say.
    real = answers[:, mask]
    low, high = real.min(1)[:, None, None], real.max(1)[:, None, None]
    answers = np.round((answers - low) / np.maximum(high - low, 1e-9), 2)
    names = (bundled_dir("toy") / "objects.txt").read_text(encoding="utf-8").split()
    boxes, sizes = region_edges(regions, slots, results.last_pixel), regions.image_size
    return [
        GroundedFrame(
            picture=inline_jpeg(pictures[f]),
            width=int(sizes[f, 1]),
            height=int(sizes[f, 0]),
            boxes=[
                _box(boxes[f, r], sizes[f], f"{names[regions.class_ids[f, r]]} {regions.scores[f, r]:.2f}")
                for r in range(min(slots, int(regions.num_regions[f])))
            ],
            answers=answers[:, f].tolist(),
        )
        for f in range(count)
    ]


def _box(box: NDArray[np.floating], size: NDArray[np.int32], label: str) -> RegionBox:
    """A box in percent of a picture of ``size`` (height, width)."""
    (x1, y1, x2, y2), (height, width) = (map(float, values) for values in (box, size))
    return RegionBox(100 * x1 / width, 100 * y1 / height, 100 * (x2 - x1) / width, 100 * (y2 - y1) / height, label)


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
