"""The lean form: its hand-derived backward pass, and what it never makes. Its values are tested beside the losses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from regionvlp.losses import REGION_WORD_PRESETS, RegionWordSettings, region_word_loss
from regionvlp.losses.region_word import lean as region_word_lean
from regionvlp.losses.region_word.alignment import region_word_scores
from regionvlp.losses.region_word.lean import lean_scores
from regionvlp.models import Encoded
from regionvlp.pipelines.bench.rwa_baseline import einsum_scores, expanded_scores

COUNTED = ("valid", "padded")
PUBLIC = [
    RegionWordSettings(form="public", refine=refine, threshold_count=count, query_mean=mean, query_norm=norm)
    for refine in (True, False)
    for count in COUNTED
    for mean in COUNTED
    for norm in COUNTED
]
ALL = [RegionWordSettings(), RegionWordSettings(refine=False), *PUBLIC]


def side(items: int, tokens: int, seed: int, *, width: int = 5, real: float = 1.0, empty: int | None = None) -> Encoded:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(items, tokens, width, generator=generator, dtype=torch.float64)
    mask = torch.rand(items, tokens, generator=generator) <= real
    mask[:, tokens // 2] = True
    if empty is not None:
        mask[empty] = False
    return Encoded(vectors[:, 0], vectors.requires_grad_(), mask)


def of_tokens(settings: RegionWordSettings, video: Encoded, text: Encoded) -> Any:
    def scores(regions: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        return lean_scores(Encoded(video.pooled, regions, video.mask), Encoded(text.pooled, words, text.mask), settings)

    return scores


@pytest.mark.parametrize("settings", ALL, ids=str)
def test_the_backward_pass_is_the_derivative(settings: RegionWordSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(region_word_lean, "_tile", lambda device: (10, 8))  # several tiles each way
    video, text = side(4, 5, seed=3, real=0.6, empty=1), side(3, 4, seed=4, real=0.6, empty=2)
    scores = of_tokens(settings, video, text)
    assert torch.autograd.gradcheck(scores, (video.tokens, text.tokens), atol=1e-6, rtol=1e-5, fast_mode=True)


@pytest.mark.parametrize("baseline", [expanded_scores, einsum_scores], ids=["expanded", "einsum"])
@pytest.mark.parametrize("refine", [True, False])
@pytest.mark.parametrize(("regions", "words"), [(150, 7), (6, 70)])
def test_it_agrees_with_the_public_form_written_out(baseline: Any, refine: bool, regions: int, words: int) -> None:
    settings = REGION_WORD_PRESETS["public"].model_copy(update={"refine": refine})
    video, text = side(3, regions, seed=1, width=16, real=0.8), side(4, words, seed=2, width=16, real=0.8)
    found, expected = lean_scores(video, text, settings), baseline(video, text, settings)
    probe = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    tokens = video.tokens, text.tokens
    ours = torch.autograd.grad((torch.stack(tuple(found)) * probe).sum(), tokens)
    theirs = torch.autograd.grad((torch.stack(tuple(expected)) * probe).sum(), tokens)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("settings", [RegionWordSettings(), REGION_WORD_PRESETS["public"]], ids=str)
def test_a_score_that_nobody_asks_for_is_not_computed(settings: RegionWordSettings) -> None:
    video, text = side(3, 5, seed=1), side(2, 4, seed=2)
    both = region_word_scores(video=video, text=text, settings=settings)
    regions_ask = region_word_scores(video=video, text=text, settings=settings, l2v=False)
    words_ask = region_word_scores(video=video, text=text, settings=settings, v2l=False)
    assert torch.equal(regions_ask.v2l, both.v2l)
    assert torch.equal(words_ask.l2v, both.l2v)
    assert not regions_ask.l2v.any()
    assert not words_ask.v2l.any()
    together = torch.autograd.grad(both.v2l.sum() + both.l2v.sum(), (video.tokens, text.tokens))
    apart = torch.autograd.grad(regions_ask.v2l.sum() + words_ask.l2v.sum(), (video.tokens, text.tokens))
    torch.testing.assert_close(apart, together, rtol=0, atol=1e-12)


class Largest(TorchDispatchMode):
    """Remembers how many numbers the largest tensor made meanwhile has."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        made = (x.numel() for x in tree_leaves(result) if isinstance(x, Tensor))
        self.numbers = max(self.numbers, *made, 0)
        return result


@pytest.mark.parametrize("name", REGION_WORD_PRESETS)
def test_nothing_of_the_size_of_all_pairs_is_made_or_saved(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(region_word_lean, "_tile", lambda device: (40, 60))
    video, text = side(12, 40, seed=1, width=64), side(12, 30, seed=2, width=64)
    inputs = video.tokens.numel()
    saved: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        saved.append(x)
        return x

    with Largest() as largest:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            loss = sum(region_word_loss(video=video, text=text, settings=REGION_WORD_PRESETS[name]).values())
        loss.backward()
    assert largest.numbers == inputs  # against 12 * 12 * 40 * 30 cosines
    given = {x.data_ptr() for x in (video.tokens, video.mask, text.tokens, text.mask)}
    assert all(x.data_ptr() in given or x.numel() <= 12 * 12 for x in saved)


def test_padding_costs_nothing() -> None:
    """Tokens that do not count are cut away, wherever they stand, and short items are compared at their length."""
    video, text = side(8, 12, seed=1, width=8), side(8, 10, seed=2, width=8)
    narrow = largest_of(video, text)
    apart = torch.zeros(8, 60, dtype=torch.bool)
    apart[:, ::5] = True
    wide = torch.zeros(8, 60, 8, dtype=torch.float64).masked_scatter(apart[..., None], video.tokens.detach())
    assert largest_of(Encoded(video.pooled, wide.requires_grad_(), apart), text.pad_to(100)) == narrow


def largest_of(video: Encoded, text: Encoded) -> int:
    with Largest() as largest:
        lean_scores(video, text, REGION_WORD_PRESETS["valid"])
    return largest.numbers


def test_a_second_derivative_is_refused() -> None:
    video, text = side(2, 3, seed=1), side(2, 3, seed=2)
    score = lean_scores(video, text, RegionWordSettings()).v2l.sum()
    with pytest.raises(NotImplementedError, match="second derivative"):
        torch.autograd.grad(score, video.tokens, create_graph=True)


def test_half_precision_tokens_get_half_precision_gradients() -> None:
    video, text = side(3, 6, seed=1, width=16), side(3, 5, seed=2, width=16)
    settings = RegionWordSettings(refine=False)
    exact = torch.autograd.grad(sum(lean_scores(video, text, settings)).sum(), (video.tokens, text.tokens))
    half = [x.tokens.detach().bfloat16().requires_grad_() for x in (video, text)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = of_tokens(settings, video.to(torch.bfloat16), text.to(torch.bfloat16))(*half)
        grads = torch.autograd.grad(sum(scores).sum(), half)
    assert all(score.dtype is torch.float32 for score in scores)
    for ours, theirs in zip(grads, exact, strict=True):
        assert ours.dtype is torch.bfloat16
        torch.testing.assert_close(ours.double(), theirs, rtol=0.05, atol=0.02 * float(theirs.abs().max()))
