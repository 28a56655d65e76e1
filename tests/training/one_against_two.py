"""One process against several: the loss and the gradients of every loss, in parts and groups, with odd batches.

``python tests/training/one_against_two.py`` prints the table that ``test_training_processes.py`` tests.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from regionvlp.losses import REGION_WORD_PRESETS
from regionvlp.losses.settings import LossSettings
from regionvlp.models.settings import DualEncoderSettings
from regionvlp.systems.demovlp import DemoVLP
from regionvlp.systems.registry import build_system
from regionvlp.training.distributed import World
from regionvlp.training.settings import TrainSettings
from regionvlp.training.step import Gradients

PAIRS, FRAMES, REGIONS, WORDS = 12, 2, 4, 7  # words: tokens of a caption, CLS included
MODEL = {
    "video": {"feature_width": 6, "width": 8, "depth": 1, "heads": 2, "frames": 2, "regions": 4, "joint_width": 6},
    "text": {"width": 8, "depth": 1, "heads": 2, "mlp_width": 8, "max_length": 8, "joint_width": 6, "dropout": 0.0},
}
LOSSES: dict[str, dict[str, Any]] = {
    "global": {"use_local": False},
    "paper": {},
    "paper, no refinement": {"region_word": {"refine": False}},
    "valid": {"region_word": REGION_WORD_PRESETS["valid"].model_dump()},
    "valid, both ways": {"region_word": {"form": "public"}},
    "public": {"region_word": REGION_WORD_PRESETS["public"].model_dump()},
    "filip": {"local": "filip"},
    "taco": {"local": "taco"},
    "taco, weighed": {"local": "taco", "word_weight": "idf"},
}
# Groups of 4 lie across what two processes hold of a batch of 12; groups of 6 are held by one, or shared by both.
NEGATIVES: dict[str, dict[str, Any]] = {
    "global": {"duplicates": "negatives"},
    "global, masked": {"duplicates": "mask"},
    "groups of 6": {"negatives": {"group": 6}, "duplicates": "negatives"},
    "groups of 4, masked": {"negatives": {"group": 4}, "duplicates": "mask"},
}
DTYPES = {"float32": torch.float32, "float64": torch.float64}


class Case(NamedTuple):
    """A loss, where its negatives come from, in how many parts it is computed, and in what."""

    loss: str
    negatives: str
    parts: int
    dtype: str


class Step(NamedTuple):
    """What a training step found.

    Attributes:
        scalars: by name; the mean over processes is that of the batch.
        gradients: by parameter.
    """

    scalars: dict[str, Tensor]
    gradients: dict[str, Tensor]


def cases() -> Iterator[Case]:
    for loss, negatives, parts, dtype in product(LOSSES, NEGATIVES, (1, 2), DTYPES):
        if parts == 1 or "4" not in negatives:  # a part of 6 has no groups of 4
            yield Case(loss, negatives, parts, dtype)


def some_cases() -> Iterator[Case]:
    """Every loss, the hardest ways to spread its negatives."""
    for loss, dtype in product(LOSSES, DTYPES):
        yield Case(loss, "groups of 4, masked", 1, dtype)
        yield Case(loss, "global, masked", 2, dtype)


def system_of(case: Case) -> DemoVLP:
    torch.manual_seed(0)
    losses = LossSettings.model_validate({**LOSSES[case.loss], **NEGATIVES[case.negatives]})
    system = build_system("demovlp", DualEncoderSettings.model_validate(MODEL), losses, vocab_size=30)
    assert isinstance(system, DemoVLP)
    return system.to(DTYPES[case.dtype])


def whole_batch(dtype: torch.dtype) -> dict[str, Tensor]:
    """Clips of which two have no regions, captions of 2 to 7 tokens; clips and captions that come again, here and
    with other processes."""
    draw = torch.Generator().manual_seed(1)
    lengths = torch.tensor([3, 4, 2, 3, 4, 3, 7, 2, 5, 6, 3, 2])
    mask = torch.rand(PAIRS, FRAMES, REGIONS, generator=draw) < 0.7
    mask[1], mask[8], mask[:6, :, 3] = False, False, False
    return {
        "features": torch.randn(PAIRS, FRAMES, REGIONS, 6, generator=draw).to(dtype) * mask[..., None],
        "location": torch.rand(PAIRS, FRAMES, REGIONS, 7, generator=draw).to(dtype) * mask[..., None],
        "region_mask": mask,
        "input_ids": torch.randint(5, 30, (PAIRS, WORDS), generator=draw),
        "attention_mask": torch.arange(WORDS) < lengths[:, None],
        "word_weight": torch.rand(PAIRS, WORDS - 1, generator=draw).to(dtype),
        "clip_number": torch.tensor([0, 1, 2, 0, 4, 5, 6, 7, 2, 9, 10, 10]),
        "text_hash": torch.tensor([0, 1, 2, 3, 4, 5, 5, 7, 8, 1, 10, 11]),
    }


def share(batch: Mapping[str, Tensor], rows: slice, padded: bool) -> dict[str, Tensor]:
    """Some pairs as a loader reads them: as wide as the widest of them, unless a loss counts padding."""
    taken = {key: values[rows] for key, values in batch.items()}
    if padded:
        return taken
    words = int(taken["attention_mask"].sum(1).max())
    regions = int(taken["region_mask"].any(1).nonzero()[:, 1].max()) + 1
    for key in ("input_ids", "attention_mask"):
        taken[key] = taken[key][:, :words]
    taken["word_weight"] = taken["word_weight"][:, : words - 1]
    for key in ("features", "location", "region_mask"):
        taken[key] = taken[key][:, :, :regions]
    return taken


def step(case: Case, rank: int, world: int) -> Step:
    """One training step of this process among ``world``."""
    system, batch = system_of(case), whole_batch(DTYPES[case.dtype])
    size = PAIRS // (world * case.parts)
    starts = [(part * world + rank) * size for part in range(case.parts)]
    parts = [share(batch, slice(start, start + size), system.losses.counts_padding) for start in starts]
    settings = TrainSettings(batch_size=PAIRS, accumulate=case.parts, precision="float32", device="cpu")
    scalars = Gradients(system, settings, World(rank, world)).add(parts)
    return Step(scalars, {name: p.grad for name, p in system.named_parameters() if p.grad is not None})


def one_of_many(rank: int, folder: str, wanted: list[Case], world: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    torch.save([tuple(step(case, rank, world)) for case in wanted], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def differences(folder: Path, wanted: list[Case], world: int = 2) -> dict[Case, tuple[float, float]]:
    """For each case, by how much the loss, relative to its size from 1 on, and the gradients differ.

    Those of float32, too, relative to their size: roundings grow with a gradient, and steep losses have large ones.
    """
    mp.spawn(one_of_many, args=(str(folder), wanted, world), nprocs=world)
    ranks = [torch.load(folder / f"{rank}.pt") for rank in range(world)]
    found: dict[Case, tuple[float, float]] = {}
    for at, case in enumerate(wanted):
        alone, sides = step(case, 0, 1), [Step(*steps[at]) for steps in ranks]
        apart = [
            float((sum(side.scalars[name] for side in sides) / world - value).abs() / value.abs().clamp_min(1))
            for name, value in alone.scalars.items()
        ]
        assert alone.scalars.keys() == sides[0].scalars.keys()
        assert alone.gradients.keys() == sides[0].gradients.keys()
        rounded = case.dtype == "float32"
        pulled = [
            float((side.gradients[name] - grad).abs().max() / (grad.abs().max().clamp_min(1) if rounded else 1))
            for side in sides
            for name, grad in alone.gradients.items()
        ]
        found[case] = max(apart), max(pulled)
    return found


def table(found: Mapping[Case, tuple[float, float]]) -> str:
    lines = ["| loss | negatives | parts | loss, float32 | gradients, float64 |", "|---|---|---|---|---|"]
    for case, (loss, _) in found.items():
        if case.dtype == "float32":
            gradients = found[case._replace(dtype="float64")][1]
            lines.append(f"| {case.loss} | {case.negatives} | {case.parts} | {loss:.1e} | {gradients:.1e} |")
    return "\n".join(lines)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        print(table(differences(Path(temporary), list(cases()))))  # noqa: T201
