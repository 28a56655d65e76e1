"""FILIP and TACo's token term against loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from regionvlp.errors import InputError
from regionvlp.losses import (
    REGION_WORD_PRESETS,
    filip_loss,
    filip_scores,
    filip_similarity,
    region_word_similarity,
    taco_similarity,
    taco_token_loss,
)
from regionvlp.models import Encoded


def side(items: int, tokens: int, seed: int) -> Encoded:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(items, tokens, 6, generator=generator, dtype=torch.float64)
    mask = torch.rand(items, tokens, generator=generator) < 0.7
    mask[:, 0] = True
    return Encoded(vectors[:, 0], vectors.requires_grad_(), mask)


def detached(encoded: Encoded) -> Encoded:
    return Encoded(encoded.pooled.detach(), encoded.tokens.detach(), encoded.mask)


def cosines(video: Encoded, text: Encoded, i: int, j: int) -> torch.Tensor:
    """[regions, words] of one pair, real tokens only."""
    regions, words = video.tokens[i][video.mask[i]], text.tokens[j][text.mask[j]]
    return functional.cosine_similarity(regions[:, None], words[None], dim=2)


def test_filip_is_the_mean_of_the_best() -> None:
    video, text = detached(side(3, 5, seed=1)), detached(side(2, 4, seed=2))
    scores = filip_scores(video=video, text=text)
    for i in range(3):
        for j in range(2):
            pair = cosines(video, text, i, j)
            assert scores.v2l[i, j].item() == pytest.approx(float(pair.max(1).values.mean()), abs=1e-12)
            assert scores.l2v[i, j].item() == pytest.approx(float(pair.max(0).values.mean()), abs=1e-12)
    assert torch.equal(filip_similarity(video=video, text=text), (scores.v2l + scores.l2v).T)


def test_taco_ranks_by_the_mean_of_its_words() -> None:
    video, text = detached(side(3, 5, seed=1)), detached(side(2, 4, seed=2))
    similarity = taco_similarity(video=video, text=text)
    for i in range(3):
        for j in range(2):
            best = cosines(video, text, i, j).max(0).values
            assert similarity[j, i].item() == pytest.approx(float(best.mean()), abs=1e-12)


def test_filip_of_nothing_is_zero() -> None:
    video, text = side(3, 5, seed=1), side(3, 4, seed=2)
    video.mask[0], text.mask[1] = False, False
    scores = filip_scores(video=video, text=text)
    assert not scores.v2l[0].any()
    assert not scores.l2v[0].any()
    assert not scores.v2l[:, 1].any()
    loss = sum(filip_loss(video=video, text=text).values())
    grads = torch.autograd.grad(loss, (video.tokens, text.tokens))
    assert not grads[0][0].any()
    assert not grads[1][1].any()


def test_taco_asks_each_content_word_for_its_video() -> None:
    video, text = detached(side(3, 5, seed=1)), detached(side(3, 4, seed=2))
    weight = torch.rand(3, 4, dtype=torch.float64) * (torch.arange(4) % 2 == 0)
    weight[2] = 0
    total = mass = 0.0
    for j in range(3):
        for w in range(4):
            if not text.mask[j, w]:
                continue
            best = [
                float(functional.cosine_similarity(video.tokens[i][video.mask[i]], text.tokens[j, w], dim=1).max())
                for i in range(3)
            ]
            e = [math.exp(s / 0.1) for s in best]
            total -= float(weight[j, w]) * math.log(e[j] / sum(e))
            mass += float(weight[j, w])
    found = taco_token_loss(video=video, text=text, word_weight=weight, temperature=0.1)["taco_token_loss"]
    assert found.item() == pytest.approx(total / mass, abs=1e-12)


def test_taco_without_content_words_is_zero() -> None:
    video, text = side(3, 5, seed=1), side(3, 4, seed=2)
    found = taco_token_loss(video=video, text=text, word_weight=torch.zeros(3, 4))["taco_token_loss"]
    assert found.item() == 0
    with pytest.raises(InputError, match="one weight per word"):
        taco_token_loss(video=video, text=text, word_weight=torch.zeros(3, 5))


def test_captions_cut_to_cls_have_no_words_to_match() -> None:
    video, text = side(2, 5, seed=1), side(2, 1, seed=2)
    empty = Encoded(text.pooled, text.tokens[:, :0], text.mask[:, :0])
    assert not filip_similarity(video=video, text=empty).any()
    for settings in REGION_WORD_PRESETS.values():
        assert not region_word_similarity(video=video, text=empty, settings=settings).any()
