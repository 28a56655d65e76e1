"""``regionvlp bench latency``: what a query costs in retrieval, after Table 2 of DemoVLP.

The paper gives 0.77 ms (1,000 items) and 1.01 ms (12,000) for a query by global similarity alone, and 3.29 and 40.5 ms
with region-word alignment, without saying on what. Here both directions are timed on this machine: a sentence against
the gallery's videos, and a video against its sentences; encoding is not counted, as there.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import click
import numpy as np

from regionvlp.pipelines.bench.search import timed
from regionvlp.pipelines.output import console_for, json_option, write_json

GALLERIES = (1_000, 12_000)
WORDS, WIDTH = 20, 256
PAPER = {"global": {1_000: 0.77, 12_000: 1.01}, "full": {1_000: 3.29, 12_000: 40.5}}  # ms
FIRST = 100  # videos that are compared token by token after the pooled stage


@click.command("latency")
@click.option("--regions", default=30, show_default=True, type=click.IntRange(1, 1000), help="Of an item.")
@click.option("--threads", default=2, show_default=True, type=click.IntRange(1, 256))
@click.option("--device", default="cpu", show_default=True)
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1, 1000))
@json_option
def command(regions: int, threads: int, device: str, rounds: int, json_path: str | None) -> None:
    """Time a query at galleries of 1,000 and 12,000 items, by pooled vectors, by tokens, and by both in turn."""
    import torch

    from regionvlp.devices import pick_device

    where = pick_device(device)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        rows, ratios = measure(regions, where, rounds)
    finally:
        torch.set_num_threads(before)
    console = console_for(json_path)
    console.print(f"{regions} regions, {WORDS} words, width {WIDTH}, {where}, {threads} threads")
    for row in rows:
        console.print(f"  {row['name']:36} {row['value']:>10,.2f} {row['unit']}")
    for name, ratio in ratios.items():
        console.print(f"  {name:36} {ratio:>10,.2f} times")
    write_json({"device": str(where), "rows": rows, "ratios": ratios}, json_path)


def measure(regions: int, device: Any, rounds: int) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The rows, and how much faster re-ranking the first hundred is than comparing all."""
    rows: list[dict[str, Any]] = []
    ratios: dict[str, float] = {}
    for size in GALLERIES:
        for direction in ("t2v", "v2t"):
            calls = _calls(size, direction, regions, device)
            times = {name: _milliseconds(call, rounds) for name, call in calls.items()}
            rows += [
                {"name": f"{direction}_{size}_{name}", "value": time, "unit": "ms"} for name, time in times.items()
            ]
            if direction == "t2v":
                ratios[f"rerank_speed_{size}"] = times["full"] / times["reranked"]
    paper = [(f"paper_{size}_{name}", value) for name, found in PAPER.items() for size, value in found.items()]
    rows += [_row(name, value) for name, value in paper]
    return rows, ratios


def _row(name: str, milliseconds: float) -> dict[str, Any]:
    return {"name": name, "value": milliseconds, "unit": "ms"}


def _calls(size: int, direction: str, regions: int, device: Any) -> dict[str, Callable[[int], object]]:
    """What is timed, by name: one query against ``size`` items, by pooled vectors, by all tokens, by both in turn."""
    import torch

    from regionvlp.losses.contrastive import global_similarity
    from regionvlp.losses.region_word.alignment import region_word_similarity
    from regionvlp.losses.region_word.settings import RegionWordSettings
    from regionvlp.models.encoded import Encoded

    def made(count: int, tokens: int) -> Encoded:
        drawn = torch.randn(count, tokens, WIDTH, generator=torch.Generator().manual_seed(count + tokens))
        mask = torch.ones(count, tokens, dtype=torch.bool)
        return Encoded(drawn.mean(1), drawn, mask).to(device)

    to_videos = direction == "t2v"
    gallery, query = (made(size, regions), made(1, WORDS)) if to_videos else (made(size, WORDS), made(1, regions))
    settings = RegionWordSettings()

    def sides(items: Encoded) -> dict[str, Encoded]:
        return {"video": items, "text": query} if to_videos else {"video": query, "text": items}

    def pooled(_: int) -> torch.Tensor:
        return global_similarity(**sides(gallery)).flatten().topk(10).indices.cpu()

    def full(_: int) -> object:
        parts = global_similarity(**sides(gallery)) + region_word_similarity(**sides(gallery), settings=settings)
        return parts.flatten().topk(10).indices.cpu()

    def reranked(_: int) -> object:
        first = global_similarity(**sides(gallery)).flatten().topk(FIRST).indices
        some = Encoded(gallery.pooled[first], gallery.tokens[first], gallery.mask[first])
        parts = global_similarity(**sides(some)) + region_word_similarity(**sides(some), settings=settings)
        return first[parts.flatten().topk(10).indices].cpu()

    return {"global": pooled, "full": full, "reranked": reranked}


def _milliseconds(call: Callable[[int], object], rounds: int) -> float:
    import torch

    with torch.inference_mode():
        return 1000 * statistics.median(timed(call, np.arange(rounds).tolist()))
