"""Region-word alignment against plain loops over the equations, one pair, one token at a time."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional

from regionvlp.errors import InputError
from regionvlp.losses import (
    REGION_WORD_PRESETS,
    RegionWordSettings,
    region_word_loss,
    region_word_scores,
    region_word_similarity,
)
from regionvlp.losses.region_word import lean as region_word_lean
from regionvlp.models import Encoded

SETTINGS = {
    **REGION_WORD_PRESETS,
    "paper without refinement": RegionWordSettings(refine=False),
    "public without refinement": REGION_WORD_PRESETS["public"].model_copy(update={"refine": False}),
    "padded norm": RegionWordSettings(form="public", query_norm="padded"),
    "padded threshold": RegionWordSettings(form="public", threshold_count="padded"),
    "padded mean": RegionWordSettings(form="public", query_mean="padded"),
}


def side(items: int, tokens: int, seed: int, width: int = 6, real: float = 0.7) -> Encoded:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(items, tokens, width, generator=generator, dtype=torch.float64)
    mask = torch.rand(items, tokens, generator=generator) < real
    mask[:, 0] = True
    return Encoded(vectors[:, 0], vectors.requires_grad_(), mask)


def paper_direction(queries: Tensor, contexts: Tensor, settings: RegionWordSettings) -> Tensor:
    """Equations 6 to 9 for one pair without padding, [N, D] against [M, D]."""
    agreements = []
    for query in queries:
        cosines = [functional.cosine_similarity(query, context, dim=0) for context in contexts]
        attention = torch.stack(cosines).softmax(0)
        mean = attention.mean()
        attended = torch.zeros_like(query)
        for a, context in zip(attention, contexts, strict=True):
            if not settings.refine or a > mean:
                attended = attended + a * context
        agreements.append(functional.cosine_similarity(query, attended, dim=0))
    return torch.stack(agreements).mean()


def public_direction(
    queries: Tensor, real_queries: Tensor, contexts: Tensor, real_contexts: Tensor, settings: RegionWordSettings
) -> Tensor:
    """The public score of one padded pair (section 4.2 of the specification)."""
    b = torch.empty(len(contexts), len(queries), dtype=queries.dtype)
    for s, context in enumerate(contexts):
        for t, query in enumerate(queries):
            b[s, t] = functional.leaky_relu(context @ query / (context.norm() * query.norm()), 0.1)
    normed = [t for t in range(len(queries)) if settings.query_norm == "padded" or real_queries[t]]
    kept = [s for s in range(len(contexts)) if real_contexts[s]]
    counted = len(contexts) if settings.threshold_count == "padded" else len(kept)
    agreements = []
    for t, query in enumerate(queries):
        if settings.query_mean == "valid" and not real_queries[t]:
            continue
        logits = torch.stack([b[s, t] / b[s, normed].norm() for s in kept]) / settings.temperature
        attended = torch.zeros_like(query)
        for p, s in zip(logits.softmax(0), kept, strict=True):
            if not settings.refine or p > 1 / counted:
                attended = attended + p * contexts[s] / contexts[s].norm()
        agreements.append(functional.cosine_similarity(query, attended, dim=0))
    return torch.stack(agreements).mean()


def oracle(video: Encoded, text: Encoded, settings: RegionWordSettings) -> tuple[Tensor, Tensor]:
    v2l, l2v = [], []
    for regions, real_regions in zip(video.tokens, video.mask, strict=True):
        for words, real_words in zip(text.tokens, text.mask, strict=True):
            if settings.form == "paper":
                v2l.append(paper_direction(regions[real_regions], words[real_words], settings))
                l2v.append(paper_direction(words[real_words], regions[real_regions], settings))
            else:
                v2l.append(public_direction(regions, real_regions, words, real_words, settings))
                l2v.append(public_direction(words, real_words, regions, real_regions, settings))
    shape = len(video), len(text)
    return torch.stack(v2l).view(shape), torch.stack(l2v).view(shape)


@pytest.mark.parametrize("name", SETTINGS)
def test_scores_and_gradients_are_those_of_the_equations(name: str) -> None:
    settings = SETTINGS[name]
    video, text = side(3, 5, seed=1), side(2, 4, seed=2)
    scores = region_word_scores(video=video, text=text, settings=settings)
    v2l, l2v = oracle(video, text, settings)
    torch.testing.assert_close(scores.v2l, v2l, rtol=0, atol=1e-7)
    torch.testing.assert_close(scores.l2v, l2v, rtol=0, atol=1e-7)
    probe = torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = torch.autograd.grad((scores.v2l * probe[0] + scores.l2v * probe[1]).sum(), (video.tokens, text.tokens))
    expected = torch.autograd.grad((v2l * probe[0] + l2v * probe[1]).sum(), (video.tokens, text.tokens))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)  # the loops leave out every 1e-8


@pytest.mark.parametrize("name", ["paper", "valid"])
def test_padding_changes_nothing(name: str) -> None:
    settings = REGION_WORD_PRESETS[name]
    video, text = side(3, 5, seed=1, real=1), side(3, 4, seed=2, real=1)
    wide_video, wide_text = video.pad_to(9), text.pad_to(7)
    with torch.no_grad():
        wide_text.tokens[:, 4:] = 1e3
    narrow = region_word_loss(video=video, text=text, settings=settings)
    for key, value in region_word_loss(video=wide_video, text=wide_text, settings=settings).items():
        assert value.item() == pytest.approx(narrow[key].item(), abs=1e-12)


@pytest.mark.parametrize("name", SETTINGS)
def test_tiles_are_laid_together_in_order(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    video, text = side(3, 5, seed=1), side(4, 3, seed=2)
    whole = region_word_similarity(video=video, text=text, settings=SETTINGS[name])
    gradients = torch.autograd.grad(whole.square().sum(), (video.tokens, text.tokens))
    assert whole.shape == (4, 3)
    for tile in ((1, 1), (10, 6)):
        monkeypatch.setattr(region_word_lean, "_tile", lambda device, tile=tile: tile)
        tiled = region_word_similarity(video=video, text=text, settings=SETTINGS[name])
        torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-12)
        again = torch.autograd.grad(tiled.square().sum(), (video.tokens, text.tokens))
        torch.testing.assert_close(again, gradients, rtol=0, atol=1e-12)


def test_the_paper_contrasts_each_score_along_its_own_queries() -> None:
    video, text = side(4, 5, seed=1), side(4, 3, seed=2)
    settings = RegionWordSettings(temperature=0.1)
    v2l, l2v = oracle(video, text, settings)
    losses = region_word_loss(video=video, text=text, settings=settings)
    rows = [-math.log((v2l / 0.1).softmax(1)[i, i].item()) for i in range(4)]
    columns = [-math.log((l2v / 0.1).softmax(0)[i, i].item()) for i in range(4)]
    assert losses["local_v2l_loss"].item() == pytest.approx(sum(rows) / 4, abs=1e-6)
    assert losses["local_l2v_loss"].item() == pytest.approx(sum(columns) / 4, abs=1e-6)


def test_the_public_form_contrasts_the_sum() -> None:
    video, text = side(4, 5, seed=1), side(4, 3, seed=2)
    settings = RegionWordSettings(form="public", temperature=0.1)
    logits = sum(oracle(video, text, settings)) / 0.1
    losses = region_word_loss(video=video, text=text, settings=settings)
    truth = torch.arange(4)
    torch.testing.assert_close(losses["local_v2l_loss"], functional.cross_entropy(logits, truth), rtol=0, atol=1e-6)
    torch.testing.assert_close(losses["local_l2v_loss"], functional.cross_entropy(logits.T, truth), rtol=0, atol=1e-6)

    rows = settings.model_copy(update={"local_loss": "kl_row"})
    p = logits.softmax(1)
    kl = sum(p[i, j] * (p[i, j].log() - math.log((i == j) + 1e-6)) for i in range(4) for j in range(4))
    found = region_word_loss(video=video, text=text, settings=rows)["local_loss"]
    assert found.item() == pytest.approx(kl.item() / 4, abs=1e-6)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_edges_have_defined_results(name: str, dtype: torch.dtype) -> None:
    """No valid region, no valid word, zero vectors, equal vectors: no NaN, and nothing pulls at what is not there."""
    video, text = side(4, 5, seed=1), side(4, 3, seed=2)
    with torch.no_grad():
        video.tokens[1, 0] = 0
        text.tokens[1, :] = 0
        text.tokens[3, :] = text.tokens[3, 0]
    video.mask[0], text.mask[2] = False, False
    regions = video.tokens.detach().to(dtype).requires_grad_()
    words = text.tokens.detach().to(dtype).requires_grad_()
    video = Encoded(video.pooled.to(dtype), regions, video.mask)
    text = Encoded(text.pooled.to(dtype), words, text.mask)
    loss = sum(region_word_loss(video=video, text=text, settings=SETTINGS[name]).values())
    grads = torch.autograd.grad(loss, (regions, words))
    assert loss.isfinite()
    assert all(grad.isfinite().all() for grad in grads)
    assert not grads[0][1, 0].any()
    assert not grads[1][1].any()
    if SETTINGS[name].query_mean == "valid":
        scores = region_word_scores(video=video, text=text, settings=SETTINGS[name])
        assert not scores.v2l[0].any()
        assert not scores.l2v[:, 2].any()
        assert not grads[0][0].any()
        assert not grads[1][2].any()


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("real", [True, False])
def test_what_is_alike_to_rounding_moves_nothing(name: str, real: bool) -> None:
    """Clips of equal regions, such as the encoder makes of a clip without any; words that are all on one side of them.

    Of equal contexts none is above the average, and so are, in the public form, all words to queries that are equal.
    """
    video, text = side(2, 6, seed=1, real=1), side(3, 4, seed=2, real=1)
    with torch.no_grad():
        video.tokens[:] = video.tokens[:, :1]
        text.tokens[:] = 0.3 * text.tokens - video.tokens[:1, :1]
    video.mask[:] = real
    draw = torch.Generator().manual_seed(3)
    still = region_word_scores(video=video, text=text, settings=SETTINGS[name])
    for _ in range(5):
        noise = 1e-7 * torch.randn(video.tokens.shape, generator=draw, dtype=torch.float64)
        moved = region_word_scores(
            video=Encoded(video.pooled, video.tokens + noise, video.mask), text=text, settings=SETTINGS[name]
        )
        torch.testing.assert_close(moved.v2l, still.v2l, rtol=0, atol=1e-5)
        torch.testing.assert_close(moved.l2v, still.l2v, rtol=0, atol=1e-5)
    if real or SETTINGS[name].query_mean == "padded":
        cosine = functional.cosine_similarity(text.tokens[None], video.tokens[:, None, :1], dim=-1)
        if SETTINGS[name].threshold_count == "valid" or real or not SETTINGS[name].refine:
            torch.testing.assert_close(still.l2v, cosine.mean(2), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", SETTINGS)
def test_one_pair_and_one_word(name: str) -> None:
    video, text = side(1, 5, seed=1), side(1, 1, seed=2)
    loss = sum(region_word_loss(video=video, text=text, settings=SETTINGS[name]).values())
    (grad,) = torch.autograd.grad(loss, video.tokens)
    assert loss.item() == pytest.approx(0, abs=2e-6)  # the KL of one caption is -log(1 + 1e-6)
    assert not grad.any()
    if SETTINGS[name].refine:
        assert not region_word_scores(video=video, text=text, settings=SETTINGS[name]).v2l.any()


@pytest.mark.parametrize("name", ["paper", "valid"])
def test_what_lies_in_padding_is_never_read(name: str) -> None:
    video, text = side(2, 5, seed=1), side(2, 3, seed=2)
    with torch.no_grad():
        video.tokens[~video.mask] = float("nan")
    loss = sum(region_word_loss(video=video, text=text, settings=REGION_WORD_PRESETS[name]).values())
    (grad,) = torch.autograd.grad(loss, video.tokens)
    assert loss.isfinite()
    assert grad.isfinite().all()


def test_bfloat16_tokens_and_autocast_give_float32_scores() -> None:
    video, text = side(2, 5, seed=1).to(torch.bfloat16), side(2, 3, seed=2).to(torch.bfloat16)
    settings = REGION_WORD_PRESETS["paper"]
    wide = region_word_similarity(video=video.to(torch.float32), text=text.to(torch.float32), settings=settings)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = region_word_similarity(video=video, text=text, settings=settings)
    assert found.dtype is torch.float32
    assert torch.equal(found, wide)


def test_sides_that_cannot_be_compared_are_refused() -> None:
    settings = RegionWordSettings()
    with pytest.raises(InputError, match="width"):
        region_word_scores(video=side(2, 5, seed=1), text=side(2, 3, seed=2, width=4), settings=settings)
    with pytest.raises(InputError, match="2 videos against 3 captions"):
        region_word_loss(video=side(2, 5, seed=1), text=side(3, 3, seed=2), settings=settings)


@pytest.mark.parametrize("values", [{"query_mean": "padded"}, {"local_loss": "kl_row"}, {"temperature": 0}])
def test_settings_that_contradict_each_other_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RegionWordSettings.model_validate(values)
