"""Negatives from two processes give the loss and the gradients of one process with the joined batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from torch.nn.functional import pad

from regionvlp.errors import InputError
from regionvlp.losses import (
    REGION_WORD_PRESETS,
    RegionWordSettings,
    candidates,
    filip_loss,
    global_contrast,
    region_word_loss,
    taco_token_loss,
)
from regionvlp.models import Encoded

WORLD, BATCH = 2, 3
PUBLIC_BOTH = RegionWordSettings(form="public")


def joined_batch() -> tuple[Encoded, Encoded]:
    """Videos of 4 regions; captions of up to 5 words, the first process's of up to 3."""
    generator = torch.Generator().manual_seed(0)
    items = WORLD * BATCH
    regions, words = (torch.randn(items, n, 6, generator=generator, dtype=torch.float64) for n in (4, 5))
    word_mask = torch.arange(5) < torch.tensor([3, 2, 3, 5, 4, 1])[:, None]
    region_mask = torch.rand(items, 4, generator=generator) < 0.8
    return Encoded(regions[:, 0], regions, region_mask), Encoded(words[:, 0], words, word_mask)


def all_losses(video: Encoded, text: Encoded, negatives: Any) -> dict[str, Tensor]:
    among = candidates(video, text, negatives)
    weight = text.tokens.detach()[..., 0].abs()
    return {
        "global": global_contrast(video=video, text=text, among=among)["global_loss"],
        "paper": sum(
            region_word_loss(video=video, text=text, settings=REGION_WORD_PRESETS["paper"], among=among).values()
        ),
        "kl_row": region_word_loss(video=video, text=text, settings=REGION_WORD_PRESETS["valid"], among=among)[
            "local_loss"
        ],
        "public_both": sum(region_word_loss(video=video, text=text, settings=PUBLIC_BOTH, among=among).values()),
        "filip": sum(filip_loss(video=video, text=text, among=among).values()),
        "taco": taco_token_loss(video=video, text=text, word_weight=weight, among=among)["taco_token_loss"],
    }


def with_gradients(video: Encoded, text: Encoded, negatives: str) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Each loss with its gradient for regions and for words."""
    regions, words = video.tokens.clone().requires_grad_(), text.tokens.clone().requires_grad_()
    video, text = Encoded(regions[:, 0], regions, video.mask), Encoded(words[:, 0], words, text.mask)
    losses = all_losses(video, text, negatives)
    return {
        name: (loss.detach(), *torch.autograd.grad(loss, (regions, words), retain_graph=True))
        for name, loss in losses.items()
    }


def one_process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD)
    video, text = joined_batch()
    mine = slice(rank * BATCH, (rank + 1) * BATCH)
    text = Encoded(text.pooled, text.tokens[:, :3], text.mask[:, :3]) if rank == 0 else text
    torch.save(with_gradients(video[mine], text[mine], "global"), f"{folder}/{rank}.pt")
    # A gradient that autograd hands to two consumers is not summed over processes for both.
    mine_too, other = (
        video.pooled[mine].clone().requires_grad_(),
        torch.zeros(WORLD * BATCH, 6).double().requires_grad_(),
    )
    gathered = candidates(Encoded(mine_too, video.tokens[mine], video.mask[mine]), text[-BATCH:], "global").video.pooled
    total = gathered + other.exp()
    torch.testing.assert_close(torch.autograd.grad(total.square().sum(), (mine_too, other))[1], 2 * total.detach())
    with pytest.raises(InputError, match="different sizes"):
        candidates(video[: 2 + rank], text[: 2 + rank], "global")
    dist.destroy_process_group()


def test_two_processes_are_one_large_batch(tmp_path: Path) -> None:
    mp.spawn(one_process, args=(str(tmp_path),), nprocs=WORLD)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(WORLD)]
    video, text = joined_batch()
    for name, (loss, regions, words) in with_gradients(video, text, "local").items():
        torch.testing.assert_close(sum(part[name][0] for part in parts) / WORLD, loss, rtol=0, atol=1e-12)
        # What the mean over processes of parameter gradients sees: each item's gradient over the number of processes.
        found = torch.cat([part[name][1] for part in parts]) / WORLD
        torch.testing.assert_close(found, regions, rtol=0, atol=1e-12)
        first, second = (part[name][2] / WORLD for part in parts)
        torch.testing.assert_close(torch.cat([pad(first, (0, 0, 0, 2)), second]), words, rtol=0, atol=1e-12)


def test_one_process_gathers_nothing() -> None:
    video, text = joined_batch()
    among = candidates(video, text, "global")
    assert among.video is video
    assert among.text is text
    assert among.first == 0
