"""Two sources, in turn and mixed, on one process and on several: the same batches, losses and gradients.

Step by step from real loaders: clips without regions, uneven captions, a caption that both sources have, passes that
end in mid-epoch. ``one_against_two`` does the same for batches made by hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from one_against_two import LOSSES, MODEL
from torch import Tensor

from regionvlp.data.captions import Caption
from regionvlp.data.clips.frame_choice import FrameChoice
from regionvlp.data.clips.regions import RegionClips
from regionvlp.data.pairs import Pairs
from regionvlp.data.sources import text_reader
from regionvlp.data.text.tokenizer import TextTokenizer
from regionvlp.regions import FrameRegions, VideoRegions
from regionvlp.systems.demovlp import DemoVLP
from regionvlp.systems.registry import build_system
from regionvlp.training.config import RunConfig, run_config
from regionvlp.training.distributed import World
from regionvlp.training.loaders import RoundRobin
from regionvlp.training.step import Gradients
from regionvlp.training.turns import loaders_of

SIZES = (40, 24)  # clips
STEPS = 4  # of batches that begin a pass over either source anew
WORDS = ("red", "blue", "star", "ring", "bar", "two")
# Without the one that weighs words, which needs a tagger.
NAMES = [name for name in LOSSES if name != "taco, weighed"]


class Case(NamedTuple):
    loss: str
    turns: str
    parts: int


class Step(NamedTuple):
    """What a process found: of which clips (by source and name), by what loss, with which gradients."""

    clips: list[str]
    loss: Tensor
    gradients: dict[str, Tensor]


CASES = [Case(*case) for case in product(NAMES, ("alternate", "mix"), (1, 2))]


def config_of(case: Case) -> RunConfig:
    mixed = case.turns == "mix"
    sources = [
        {"captions": f"{name}.csv", "shards": name, **({"weight": weight} if mixed else {"batch_size": batch})}
        for name, weight, batch in (("one", 3, 32), ("other", 1, 16))
    ]
    padded = case.loss == "public"
    clips = {"frames": 2, "regions": 4, "padding": "edge" if padded else "zeros"}
    return run_config(
        {
            "data": {"sources": sources, "clips": clips, "text_length": 8, "pad_text": padded},
            "model": MODEL,
            "loss": {**LOSSES[case.loss], "duplicates": "mask"},
            "train": {
                "batch_size": 32, "accumulate": case.parts, "turns": case.turns, "precision": "float32",
                "device": "cpu", "workers": 0,
            },
        }
    )  # fmt: skip


def regions(rng: np.random.Generator, count: int) -> FrameRegions:
    corners = np.sort(rng.uniform(0, 50, (count, 2, 2)), axis=1)
    return FrameRegions(
        features=rng.normal(size=(count, 6)).astype(np.float32),
        boxes=corners.reshape(count, 4).astype(np.float32),
        scores=rng.uniform(size=count).astype(np.float32),
        class_ids=np.zeros(count, np.int32),
        attribute_ids=np.zeros(count, np.int32),
        attribute_scores=np.zeros(count, np.float32),
    )


def source(name: str, clips: int, config: RunConfig) -> Pairs:
    """Clips of which every fifth has no regions; the first caption of either source is the same."""
    rng = np.random.default_rng(clips)
    videos = {
        f"{name}{number}": VideoRegions.from_frames(
            f"{name}{number}",
            [regions(rng, 0 if number % 5 == 1 else int(rng.integers(1, 5))) for _ in range(3)],
            frame_index=range(3), frame_time=[0.0, 0.1, 0.2], image_size=[(60, 80)] * 3, slots=4,
        )
        for number in range(clips)
    }  # fmt: skip
    captions = [
        Caption(clip, " ".join(rng.choice(WORDS, rng.integers(1, 6))) if number else "two", f"{clip}#0", "", "t")
        for number, clip in enumerate(videos)
    ]
    trim = not config.counts_padding and config.train.turns != "mix"
    return Pairs(
        captions,
        RegionClips(videos, list(videos), config.data.clips, trim=trim),
        FrameChoice(2, "default"),
        text_reader(config.data, TextTokenizer.train(list(WORDS), 64)),
        per_video=True,
    )


def steps(case: Case, rank: int, world: int) -> Iterator[Step]:
    """The steps of one process, all from the weights of the beginning, in float64."""
    config, place = config_of(case), World(rank, world)
    config.check_sizes()
    datasets = [source(name, size, config) for name, size in zip(("one", "other"), SIZES, strict=True)]
    torch.manual_seed(0)
    assert datasets[0].texts is not None
    system = build_system("demovlp", config.model, config.loss, vocab_size=datasets[0].texts.tokenizer.vocab_size)
    assert isinstance(system, DemoVLP)
    gradients = Gradients(system.double(), config.train, place)
    stream = RoundRobin(loaders_of(datasets, config, place), None, config.train.epoch)
    while True:
        system.zero_grad(set_to_none=True)
        _, parts = stream.next()
        scalars = gradients.add([{key: doubled(value) for key, value in part.items()} for part in parts])
        found = {name: p.grad for name, p in system.named_parameters() if p.grad is not None}
        yield Step([clip for part in parts for clip in part["video_id"]], scalars["loss"], found)


def doubled(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def one_of_many(rank: int, folder: str, world: int, wanted: list[Case]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    found = [[tuple(step) for step in islice(steps(case, rank, world), STEPS)] for case in wanted]
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def check(folder: Path, world: int, wanted: list[Case]) -> None:
    mp.spawn(one_of_many, args=(str(folder), world, wanted), nprocs=world)
    ranks = [torch.load(folder / f"{rank}.pt") for rank in range(world)]
    worst = 0.0
    for at, case in enumerate(wanted):
        for number, alone in enumerate(islice(steps(case, 0, 1), STEPS)):
            sides = [Step(*rank[at][number]) for rank in ranks]
            assert sorted(clip for side in sides for clip in side.clips) == sorted(alone.clips), case
            loss = sum(float(side.loss) for side in sides) / world
            assert loss == pytest.approx(float(alone.loss), rel=1e-6), case
            for side in sides:
                assert side.gradients.keys() == alone.gradients.keys()
                for name, gradient in alone.gradients.items():
                    worst = max(worst, float((side.gradients[name] - gradient).abs().max()))
                    assert worst <= 1e-12, (case, number, name)
    assert worst > 0, "nothing was compared"


def test_batches_hold_what_the_test_says() -> None:
    """Or the comparisons would say little: both sources, a second pass of each, clips of nothing."""
    mixed = list(islice(steps(Case("global", "mix", 1), 0, 1), STEPS))
    for step in mixed:
        assert sum(clip.startswith("one") for clip in step.clips) == 24
        assert len(set(step.clips)) == 32
    of_other = [{clip for clip in step.clips if clip.startswith("other")} for step in mixed]
    assert set.union(*of_other[:3]) == {f"other{n}" for n in range(24)}
    assert of_other[3] <= set.union(*of_other[:3])
    turns = list(islice(steps(Case("global", "alternate", 1), 0, 1), STEPS))
    assert [len(step.clips) for step in turns] == [32, 16, 32, 16]
    assert any(clip in ("one1", "one6", "other1") for step in mixed for clip in step.clips)


def test_two_sources_are_the_same_on_one_process_and_on_two(tmp_path: Path) -> None:
    """Every loss, mixed in two parts; and taking turns, which differs by its batches alone."""
    mixed = [case for case in CASES if case.turns == "mix" and case.parts == 2]
    check(tmp_path, 2, [*mixed, Case("valid", "alternate", 1), Case("public", "alternate", 2)])


@pytest.mark.slow
def test_two_sources_are_the_same_on_one_process_and_on_two_for_every_loss(tmp_path: Path) -> None:
    check(tmp_path, 2, CASES)


@pytest.mark.slow
def test_two_sources_are_the_same_on_one_process_and_on_eight(tmp_path: Path) -> None:
    check(tmp_path, 8, CASES)
