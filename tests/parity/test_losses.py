"""Every loss against its golden numbers, values and gradients, in float64 and float32."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from regionvlp.losses import (
    REGION_WORD_PRESETS,
    RegionWordScores,
    RegionWordSettings,
    filip_loss,
    filip_scores,
    global_contrast,
    global_similarity,
    region_word_loss,
    region_word_scores,
    region_word_similarity,
    taco_token_loss,
)
from regionvlp.models import Encoded

from .demovlp_case import EXACT, DemovlpCase, close, gradients_close, tokens_only
from .discovery import Case, cases

PRECISIONS = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])


class Pairs:
    """The videos and captions of a case as leaves that collect gradients."""

    def __init__(self, golden: DemovlpCase, dtype: torch.dtype) -> None:
        self.golden = golden
        self.im = golden["im"].to(dtype).requires_grad_()
        self.cap = golden["cap"].to(dtype).requires_grad_()
        self.video = tokens_only(self.im, golden.mask("im_valid", "im_mask"))
        self.text = tokens_only(self.cap, golden.mask("cap_valid", "cap_mask"))
        double = dtype is torch.float64
        self.scores_within = EXACT if double else 2e-5
        self.loss_relative = 0.0 if double else 1e-4
        self.gradients_within = EXACT if double else None

    def check_scores(self, found: Tensor, name: str) -> None:
        close(found, self.golden[name], self.scores_within)

    def check_loss(self, found: Tensor, name: str) -> None:
        close(found, self.golden[name], EXACT + self.loss_relative * float(self.golden[name].abs()))

    def check_gradients(self, of: Tensor, prefix: str) -> None:
        for leaf, name in ((self.im, "im"), (self.cap, "cap")):
            (grad,) = torch.autograd.grad(of, leaf, retain_graph=True)
            gradients_close(grad, self.golden[f"{prefix}_{name}"], self.gradients_within)


@PRECISIONS
@pytest.mark.parametrize("case", cases("demovlp", "rwa_"))
def test_region_word_public(case: Case, dtype: torch.dtype) -> None:
    golden = DemovlpCase(case)
    pairs = Pairs(golden, dtype)
    settings = REGION_WORD_PRESETS["public"].model_copy(
        update={"refine": golden.config["focal_type"] == "equal", "temperature": 1 / golden.config["lambda_softmax"]}
    )
    scores = region_word_scores(video=pairs.video, text=pairs.text, settings=settings)
    pairs.check_scores(scores.v2l, "region_score")
    pairs.check_scores(scores.l2v, "word_score")
    pairs.check_scores(scores.v2l + scores.l2v, "scores")
    pairs.check_gradients(((scores.v2l + scores.l2v) * golden["probe"].to(dtype)).sum(), "probe_grad")
    if "local_loss" in golden:
        loss = region_word_loss(video=pairs.video, text=pairs.text, settings=settings)["local_loss"]
        pairs.check_loss(loss, "local_loss")
        pairs.check_gradients(loss, "local_grad")
        total = loss + check_global(golden, dtype, pairs)
        pairs.check_loss(total, "total_loss")


def check_global(golden: DemovlpCase, dtype: torch.dtype, pairs: Pairs) -> Tensor:
    """The global part of a case, compared and returned."""
    text = golden["global_text"].to(dtype).requires_grad_()
    video = golden["global_object"].to(dtype).requires_grad_()
    sides = {"video": pooled_only(video), "text": pooled_only(text)}
    pairs.check_scores(global_similarity(**sides), "global_sim")
    loss = global_contrast(**sides, temperature=golden.config["temperature"])["global_loss"]
    pairs.check_loss(loss, "global_loss")
    grads = torch.autograd.grad(loss, (text, video))
    gradients_close(grads[0], golden["global_grad_text"], pairs.gradients_within)
    gradients_close(grads[1], golden["global_grad_object"], pairs.gradients_within)
    return loss.detach()


def pooled_only(pooled: Tensor) -> Encoded:
    return Encoded(pooled, pooled[:, None], torch.ones(len(pooled), 1, dtype=torch.bool))


@PRECISIONS
@pytest.mark.parametrize("case", cases("demovlp", "rwa_valid_preset"))
def test_region_word_valid_preset(case: Case, dtype: torch.dtype) -> None:
    golden = DemovlpCase(case)
    pairs = Pairs(golden, dtype)
    settings = REGION_WORD_PRESETS["valid"].model_copy(
        update={"refine": golden.config["focal_type"] == "equal", "temperature": 1 / golden.config["lambda_softmax"]}
    )
    pairs.check_scores(region_word_similarity(video=pairs.video, text=pairs.text, settings=settings).T, "scores")
    loss = region_word_loss(video=pairs.video, text=pairs.text, settings=settings)["local_loss"]
    pairs.check_loss(loss, "local_loss")
    pairs.check_gradients(loss, "local_grad")


@PRECISIONS
@pytest.mark.parametrize("case", cases("demovlp", "paper_rwa"))
def test_region_word_paper(case: Case, dtype: torch.dtype) -> None:
    golden = DemovlpCase(case)
    settings = RegionWordSettings(refine=golden.config["refine"], temperature=golden.config["sigma"])

    def scores(video: Encoded, text: Encoded) -> RegionWordScores:
        return region_word_scores(video=video, text=text, settings=settings)

    def loss(video: Encoded, text: Encoded) -> dict[str, Tensor]:
        return region_word_loss(video=video, text=text, settings=settings)

    check_two_scores(Pairs(golden, dtype), scores, loss)


@PRECISIONS
@pytest.mark.parametrize("case", cases("demovlp", "alt_filip"))
def test_filip(case: Case, dtype: torch.dtype) -> None:
    golden = DemovlpCase(case)

    def loss(video: Encoded, text: Encoded) -> dict[str, Tensor]:
        return filip_loss(video=video, text=text, temperature=golden.config["sigma"])

    check_two_scores(Pairs(golden, dtype), lambda video, text: filip_scores(video=video, text=text), loss)


def check_two_scores(
    pairs: Pairs,
    scores_of: Callable[[Encoded, Encoded], RegionWordScores],
    loss_of: Callable[[Encoded, Encoded], dict[str, Tensor]],
) -> None:
    scores = scores_of(pairs.video, pairs.text)
    pairs.check_scores(scores.v2l, "score_v2l")
    pairs.check_scores(scores.l2v, "score_l2v")
    loss = loss_of(pairs.video, pairs.text)
    pairs.check_loss(loss["local_v2l_loss"], "loss_v2l")
    pairs.check_loss(loss["local_l2v_loss"], "loss_l2v")
    pairs.check_gradients(loss["local_v2l_loss"] + loss["local_l2v_loss"], "grad")


@PRECISIONS
@pytest.mark.parametrize("case", cases("demovlp", "alt_taco_token"))
def test_taco_token(case: Case, dtype: torch.dtype) -> None:
    golden = DemovlpCase(case)
    pairs = Pairs(golden, dtype)
    weight = (golden["weight"] * golden["select"]).to(dtype)
    found = taco_token_loss(video=pairs.video, text=pairs.text, word_weight=weight, temperature=golden.config["sigma"])[
        "taco_token_loss"
    ]
    pairs.check_loss(found, "loss")
    pairs.check_gradients(found, "grad")


@pytest.mark.parametrize("case", cases("demovlp", "retrieval_eval"))
def test_similarities_of_a_gallery(case: Case) -> None:
    golden = DemovlpCase(case)
    video = Encoded(golden["global_object"], golden["local_object"], golden.mask("object_mask"))
    text = Encoded(golden["global_text"], golden["local_text"], golden.mask("text_mask"))
    whole = global_similarity(video=video, text=text)
    local = region_word_similarity(video=video, text=text, settings=REGION_WORD_PRESETS["public"])
    close(whole, golden["global_sim"])
    close(local.T, golden["local_sim"])
    close(whole + local, golden["aligned_sum"])
