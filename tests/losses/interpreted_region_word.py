"""The kernels of region-word alignment in Triton's interpreter, against the lean form in float64.

Not collected by itself: Triton has to be told before it is imported that it is to interpret, so that
``test_region_word_fused.py`` runs this file in a process of its own.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from _pytest.mark import ParameterSet
from torch import Tensor

from regionvlp.losses import REGION_WORD_PRESETS, RegionWordScores, RegionWordSettings
from regionvlp.losses.region_word import fused as region_word_fused
from regionvlp.losses.region_word.alignment import region_word_scores
from regionvlp.losses.region_word.fused import Plan, fused_is_better, fused_obstacle, fused_scores
from regionvlp.losses.region_word.lean import lean_scores
from regionvlp.models import Encoded

SETTINGS = {
    **REGION_WORD_PRESETS,
    "paper without refinement": RegionWordSettings(refine=False),
    "public without refinement": REGION_WORD_PRESETS["public"].model_copy(update={"refine": False}),
    "padded norm": RegionWordSettings(form="public", query_norm="padded", temperature=0.1),
    "padded threshold": RegionWordSettings(form="public", threshold_count="padded"),
    "padded mean": RegionWordSettings(form="public", query_mean="padded"),
}
# How a video of 17 to 32 regions may be laid over tiles: whole with and without Gram matrix, in two blocks of rows.
LAYOUTS = {
    "gram": Plan(rows=32, cols=16, depth=16, blocks=1, gram=True, group=2, warps=4),
    "whole": Plan(rows=32, cols=16, depth=16, blocks=1, gram=False, group=2, warps=4),
    "blocks": Plan(rows=16, cols=16, depth=16, blocks=2, gram=False, group=1, warps=4),
}


@pytest.fixture(autouse=True)
def few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter is slow: no programs of 32 captions where there are two."""
    plan = Plan.of
    monkeypatch.setattr(Plan, "of", staticmethod(lambda *sizes: replace(plan(*sizes), group=2)))


def side(items: int, tokens: int, seed: int, width: int = 13, real: float = 0.7) -> Encoded:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(items, tokens, width, generator=generator)
    mask = torch.rand(items, tokens, generator=generator) < real
    mask[:, 0] = True
    return Encoded(vectors[:, 0], vectors.requires_grad_(), mask)


def gradients(scores: RegionWordScores, video: Encoded, text: Encoded) -> tuple[Tensor, ...]:
    probe = torch.randn(2, len(video), len(text), generator=torch.Generator().manual_seed(3))
    return torch.autograd.grad((scores.v2l * probe[0] + scores.l2v * probe[1]).sum(), (video.tokens, text.tokens))


def check(video: Encoded, text: Encoded, settings: RegionWordSettings, **directions: bool) -> RegionWordScores:
    """The fused form gives what the lean form gives in float64."""
    assert fused_obstacle(video, text) is None
    found = fused_scores(video, text, settings, **directions)
    expected = lean_scores(video.to(torch.float64), text.to(torch.float64), settings, **directions)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs.float(), rtol=0, atol=2e-6)
    for ours, theirs in zip(gradients(found, video, text), gradients(expected, video, text), strict=True):
        # Of the whole tensor: where few queries share a norm, single numbers are as inexact as float32 makes them.
        assert (ours - theirs).norm() <= 3e-4 * theirs.norm() + 1e-6
        assert not ours[theirs == 0].any()
    return found


SAMPLE = {("paper", "gram"), ("public", "whole"), ("valid", "blocks"), ("paper without refinement", "blocks")}


def sampled(case: tuple[str, str]) -> ParameterSet:
    return pytest.param(*case, marks=() if case in SAMPLE else pytest.mark.slow)


@pytest.mark.parametrize(("name", "layout"), map(sampled, product(SETTINGS, LAYOUTS)))
def test_scores_and_gradients_are_those_of_the_lean_form(
    name: str, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Plan, "of", staticmethod(lambda rows, cols, width: LAYOUTS[layout]))
    check(side(2, 20, seed=1), side(2, 7, seed=2), SETTINGS[name])


@pytest.mark.parametrize("seed", [0, 3, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 4, 5, 6, 7))])
def test_any_sizes(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sides of any sizes, either the wider one, one pair, one token, under plans of the real kind."""
    draw = torch.Generator().manual_seed(seed)
    videos, captions, regions, words, width = (
        int(torch.randint(least, most + 1, (), generator=draw))
        for least, most in ((1, 3), (1, 2), (1, 40), (1, 40), (2, 40))
    )
    smaller = Plan.of(max(regions, words), min(regions, words), width)
    if seed % 2:
        smaller = replace(smaller, rows=16, blocks=-(-max(regions, words) // 16), gram=False)
    monkeypatch.setattr(Plan, "of", staticmethod(lambda *sizes: smaller))
    settings = REGION_WORD_PRESETS[("paper", "valid")[seed // 2 % 2]]
    check(side(videos, regions, seed, width), side(captions, words, seed + 9, width), settings)


@pytest.mark.parametrize("name", ["paper", "valid"])
def test_one_word_and_one_region(name: str) -> None:
    scores = check(side(2, 1, seed=1), side(1, 1, seed=2), SETTINGS[name])
    assert not scores.v2l.any()
    check(side(1, 3, seed=1), side(2, 1, seed=2), SETTINGS[name].model_copy(update={"refine": False}))


@pytest.mark.parametrize(("name", "layout"), map(sampled, product([*REGION_WORD_PRESETS, "padded mean"], LAYOUTS)))
def test_the_edges_are_those_of_the_lean_form(name: str, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No valid region, no valid word, zero vectors, equal vectors, and nothing read where there is nothing."""
    monkeypatch.setattr(Plan, "of", staticmethod(lambda *sizes: LAYOUTS[layout]))
    video, text = side(2, 17, seed=1), side(3, 3, seed=2)
    with torch.no_grad():
        video.tokens[1, 0] = 0
        text.tokens[0, :] = 0
        text.tokens[1, :] = text.tokens[1, 0]
    video.mask[0], text.mask[2] = False, False
    check(video, text, SETTINGS[name])
    if name in ("paper", "valid"):
        found = gradients(fused_scores(video, text, SETTINGS[name]), video, text)
        with torch.no_grad():
            video.tokens[~video.mask] = float("nan")
        for grad, other in zip(gradients(fused_scores(video, text, SETTINGS[name]), video, text), found, strict=True):
            assert torch.equal(grad, other)


@pytest.mark.parametrize(("name", "layout"), map(sampled, product(["paper", "valid"], LAYOUTS)))
def test_one_direction_alone(name: str, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plan, "of", staticmethod(lambda *sizes: LAYOUTS[layout]))
    video, text = side(1, 20, seed=1), side(1, 5, seed=2)
    for directions in ({"v2l": False}, {"l2v": False}):
        scores = check(video, text, SETTINGS[name], **directions)
        assert not getattr(scores, *directions).any()


@pytest.mark.parametrize("layout", ["gram", pytest.param("whole", marks=pytest.mark.slow)])
def test_a_small_workspace_changes_nothing(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plan, "of", staticmethod(lambda *sizes: LAYOUTS[layout]))
    video, text = side(2, 20, seed=1), side(2, 5, seed=2)
    whole = gradients(fused_scores(video, text, SETTINGS["paper"]), video, text)
    monkeypatch.setattr(region_word_fused, "_WORKSPACE", 1)
    monkeypatch.setattr(region_word_fused, "_AT_ONCE", 1)
    for grad, other in zip(gradients(fused_scores(video, text, SETTINGS["paper"]), video, text), whole, strict=True):
        torch.testing.assert_close(grad, other, rtol=1e-5, atol=1e-6)


def test_gradients_come_in_the_dtype_of_the_tokens() -> None:
    video, text = side(2, 5, seed=1), side(2, 3, seed=2)
    halves = [Encoded(s.pooled.half(), s.tokens.detach().half().requires_grad_(), s.mask) for s in (video, text)]
    scores = fused_scores(*halves, SETTINGS["valid"])
    assert scores.v2l.dtype is torch.float32
    wide = [Encoded(s.pooled.float(), s.tokens.detach().float().requires_grad_(), s.mask) for s in halves]
    assert torch.equal(scores.l2v, fused_scores(*wide, SETTINGS["valid"]).l2v)
    assert all(grad.dtype is torch.float16 for grad in gradients(scores, *halves))


def test_bfloat16_is_not_for_the_interpreter() -> None:
    video, text = side(2, 5, seed=1), side(2, 3, seed=2)
    assert fused_obstacle(video, text) is None
    assert "bfloat16" in str(fused_obstacle(video.to(torch.bfloat16), text.to(torch.bfloat16)))


def test_the_environment_may_force_either_form(monkeypatch: pytest.MonkeyPatch) -> None:
    video, text = side(2, 5, seed=1), side(2, 3, seed=2)
    lean, fused = (form(video, text, SETTINGS["valid"]).v2l for form in (lean_scores, fused_scores))
    assert not torch.equal(lean, fused)
    for form, expected in (("lean", lean), ("fused", fused)):
        monkeypatch.setenv("REGIONVLP_RWA", form)
        assert torch.equal(region_word_scores(video=video, text=text, settings=SETTINGS["valid"]).v2l, expected)


@pytest.mark.parametrize("fault", ["raises", "is off", "is undefined", None])
def test_kernels_that_fail_here_are_not_taken(
    fault: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    monkeypatch.setattr(Plan, "of", staticmethod(lambda *sizes: replace(LAYOUTS["gram"], rows=16, group=2)))
    right = region_word_fused.fused_scores

    def scores(*sides: Encoded, **directions: bool) -> RegionWordScores:
        if fault == "raises":
            raise RuntimeError("no C compiler")
        found = right(*sides, **directions)
        factor = {"is off": 1.1, "is undefined": math.nan, None: 1.0}[fault]
        return RegionWordScores(found.v2l, found.l2v * factor)

    region_word_fused._passes.cache_clear()
    monkeypatch.setattr(region_word_fused, "fused_scores", scores)
    video, text = side(2, 5, seed=1), side(2, 3, seed=2)
    for _ in range(2):
        assert fused_is_better(video, text, SETTINGS["valid"]) == (fault is None)
    assert len(caplog.messages) == (fault is not None)
    region_word_fused._passes.cache_clear()
