"""Negatives from two processes give the loss and the gradients of one process with the joined batch."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal
from unittest import mock

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from torch.nn.functional import pad

from regionvlp.errors import InputError
from regionvlp.losses import (
    REGION_WORD_PRESETS,
    Candidates,
    RegionWordSettings,
    candidates,
    filip_loss,
    global_contrast,
    global_similarity,
    region_word_loss,
    taco_token_loss,
)
from regionvlp.losses.region_word.alignment import kl_row
from regionvlp.models import Encoded

WORLD, BATCH = 2, 3
# Where negatives come from, and whether pairs that agree in a key are any; groups of 2 lie across both processes.
KINDS: list[tuple[Literal["global"] | int, bool]] = [
    ("global", False),
    ("global", True),
    (2, False),
    (2, True),
    (3, True),
]
KEYS = [torch.tensor([0, 1, 2, 2, 4, 5]), torch.tensor([0, 0, 2, 3, 4, 0])]
PUBLIC_BOTH = RegionWordSettings(form="public")


def joined_batch() -> tuple[Encoded, Encoded]:
    """Videos of 4 regions; captions of up to 5 words, the first process's of up to 3."""
    generator = torch.Generator().manual_seed(0)
    items = WORLD * BATCH
    regions, words = (torch.randn(items, n, 6, generator=generator, dtype=torch.float64) for n in (4, 5))
    word_mask = torch.arange(5) < torch.tensor([3, 2, 3, 5, 4, 1])[:, None]
    region_mask = torch.rand(items, 4, generator=generator) < 0.8
    return Encoded(regions[:, 0], regions, region_mask), Encoded(words[:, 0], words, word_mask)


def all_losses(video: Encoded, text: Encoded, among: Candidates | None) -> dict[str, Tensor]:
    weight = text.tokens.detach()[..., 0].abs()
    paper, valid = (partial(region_word_loss, settings=REGION_WORD_PRESETS[name]) for name in ("paper", "valid"))
    found = {
        "global": global_contrast(video=video, text=text, among=among),
        "paper": paper(video=video, text=text, among=among),
        "kl_row": valid(video=video, text=text, among=among),
        "public_both": region_word_loss(video=video, text=text, settings=PUBLIC_BOTH, among=among),
        "filip": filip_loss(video=video, text=text, among=among),
        "taco": taco_token_loss(video=video, text=text, word_weight=weight, among=among),
    }
    return {name: torch.stack(list(losses.values())).sum() for name, losses in found.items()}


def with_gradients(
    video: Encoded, text: Encoded, negatives: Literal["global"] | int, keys: list[Tensor] | None = None
) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Each loss with its gradient for regions and for words."""
    regions, words = video.tokens.clone().requires_grad_(), text.tokens.clone().requires_grad_()
    video, text = Encoded(regions[:, 0], regions, video.mask), Encoded(words[:, 0], words, text.mask)
    losses = all_losses(video, text, candidates(video, text, negatives, keys=keys or []))
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
    for number, (negatives, keyed) in enumerate(KINDS):
        keys = [key[mine] for key in KEYS] if keyed else []
        torch.save(with_gradients(video[mine], text[mine], negatives, keys), f"{folder}/{rank}-{number}.pt")
    # A gradient that autograd hands to two consumers is not summed over processes for both.
    mine_too, other = (
        video.pooled[mine].clone().requires_grad_(),
        torch.zeros(WORLD * BATCH, 6).double().requires_grad_(),
    )
    gathered = candidates(Encoded(mine_too, video.tokens[mine], video.mask[mine]), text[-BATCH:]).video.pooled
    total = gathered + other.exp()
    torch.testing.assert_close(torch.autograd.grad(total.square().sum(), (mine_too, other))[1], 2 * total.detach())
    # The gradients of halves come as halves, and are summed in float32.
    halves = Encoded(mine_too.detach().bfloat16().requires_grad_(), video.tokens[mine].bfloat16(), video.mask[mine])
    joined = candidates(halves, text[-BATCH:].to(torch.bfloat16)).video.pooled
    with mock.patch.object(dist, "all_reduce", side_effect=dist.all_reduce) as summed:
        (grad,) = torch.autograd.grad(joined.sum(), halves.pooled)
    assert [call.args[0].dtype for call in summed.call_args_list] == [torch.float32]
    assert grad.dtype is torch.bfloat16
    assert torch.equal(grad, torch.full_like(grad, WORLD))
    with pytest.raises(InputError, match="different sizes"):
        candidates(video[: 2 + rank], text[: 2 + rank])
    with pytest.raises(InputError, match="6 pairs do not divide into groups of 4"):
        candidates(video[mine], text[mine], 4)
    among = candidates(video[mine], text[mine])
    with pytest.raises(InputError, match="counts padding"):
        region_word_loss(video=video[mine], text=text[mine], settings=REGION_WORD_PRESETS["public"], among=among)
    dist.destroy_process_group()


def test_two_processes_are_one_large_batch(tmp_path: Path) -> None:
    mp.spawn(one_process, args=(str(tmp_path),), nprocs=WORLD)
    video, text = joined_batch()
    for number, (negatives, keyed) in enumerate(KINDS):
        parts = [torch.load(tmp_path / f"{rank}-{number}.pt") for rank in range(WORLD)]
        whole = with_gradients(video, text, negatives, KEYS if keyed else [])
        for name, (loss, regions, words) in whole.items():
            torch.testing.assert_close(sum(part[name][0] for part in parts) / WORLD, loss, rtol=0, atol=1e-12)
            # What the mean over processes of parameter gradients sees: each item's gradient over their number.
            found = torch.cat([part[name][1] for part in parts]) / WORLD
            torch.testing.assert_close(found, regions, rtol=0, atol=1e-12)
            first, second = (part[name][2] / WORLD for part in parts)
            torch.testing.assert_close(torch.cat([pad(first, (0, 0, 0, 2)), second]), words, rtol=0, atol=1e-12)


def test_one_process_gathers_nothing() -> None:
    video, text = joined_batch()
    among = candidates(video, text)
    assert among.video is video
    assert among.text is text
    assert among.first == 0
    (group,) = among.groups(video, text)
    assert group.closed


def test_groups_are_batches_of_their_own() -> None:
    video, text = joined_batch()
    found = all_losses(video, text, candidates(video, text, 2))
    apart = [all_losses(video[at : at + 2], text[at : at + 2], None) for at in (0, 2, 4)]
    for name, loss in found.items():
        torch.testing.assert_close(loss, sum(losses[name] for losses in apart) / 3, rtol=0, atol=1e-12)
    with pytest.raises(InputError, match="6 pairs do not divide into groups of 4"):
        candidates(video, text, 4)


def test_what_agrees_in_a_key_is_no_negative() -> None:
    """Pairs 0 and 3 are of one clip, 3 and 5 of one caption: each pair's row is that of a batch without the others."""
    video, text = joined_batch()
    clip, caption = torch.tensor([7, 1, 2, 7, 4, 5]), torch.tensor([0, 1, 2, 9, 4, 9])
    among = candidates(video, text, keys=[clip, caption])
    assert among.left_out() == pytest.approx(4 / 6)
    left_out = {0: [3], 3: [0, 5], 5: [3]}
    found = global_contrast(video=video, text=text, among=among)["global_loss"]
    scores = global_similarity(video=video, text=text) / 0.05
    expected = []
    for i in range(6):
        kept = [j for j in range(6) if j not in left_out.get(i, [])]
        for row in (scores[i], scores[:, i]):
            expected.append(row[kept].logsumexp(0) - row[i])
    assert found.item() == pytest.approx(float(sum(expected)) / 6, abs=1e-12)
    assert candidates(video, text, 2, keys=[clip, caption]).left_out() == 0  # never in one group


@pytest.mark.parametrize("agree", [True, False])
def test_where_all_or_none_agree(agree: bool) -> None:
    """A batch of one clip has nothing to contrast; keys that all differ change nothing."""
    video, text = joined_batch()
    key = torch.zeros(6, dtype=torch.long) if agree else torch.arange(6)
    whole = with_gradients(video, text, "global")
    for name, (loss, *gradients) in with_gradients(video, text, "global", [key]).items():
        if agree:
            assert loss.item() == pytest.approx(0, abs=2e-6), name
            assert not any(grad.any() for grad in gradients), name
        else:
            assert loss == whole[name][0], name


def test_a_reversed_divergence_leaves_out_what_is_no_negative() -> None:
    score = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    same = torch.tensor([[False, True, False], [True, False, False], [False, False, False]])
    found = kl_row(score, 0.05, 0, same)
    expected = kl_row(score[:1, [0, 2]], 0.05, 0) + kl_row(score[1:2, [1, 2]], 0.05, 0) + kl_row(score[2:], 0.05, 2)
    assert found.item() == pytest.approx(expected.item() / 3, abs=1e-12)
    (grad,) = torch.autograd.grad(found, score)
    assert grad.isfinite().all()
    assert not grad[same].any()
