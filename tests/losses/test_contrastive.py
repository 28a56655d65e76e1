"""Global contrast against the definition, written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from regionvlp.errors import InputError
from regionvlp.losses import global_contrast, global_similarity
from regionvlp.models import Encoded


def pooled(batch: int, width: int = 5, seed: int = 0) -> Encoded:
    vectors = torch.randn(batch, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return wrapped(vectors.requires_grad_())


def wrapped(vectors: Tensor) -> Encoded:
    return Encoded(vectors, vectors[:, None].detach(), torch.ones(len(vectors), 1, dtype=torch.bool))


def cosine(a: Tensor, b: Tensor) -> float:
    return (a @ b / (a.norm() * b.norm())).item()


def test_both_directions_are_summed() -> None:
    video, text = pooled(4), pooled(4, seed=1)
    expected = 0.0
    for queries, answers in ((text, video), (video, text)):
        for i in range(4):
            e = [math.exp(cosine(queries.pooled[i], answers.pooled[j]) / 0.1) for j in range(4)]
            expected -= math.log(e[i] / sum(e)) / 4
    found = global_contrast(video=video, text=text, temperature=0.1)
    assert found["global_loss"].item() == pytest.approx(expected, abs=1e-12)


def test_similarity_has_texts_as_rows() -> None:
    video, text = pooled(3), pooled(2, seed=1)
    similarity = global_similarity(video=video, text=text)
    assert similarity.shape == (2, 3)
    assert similarity[1, 2].item() == pytest.approx(cosine(text.pooled[1], video.pooled[2]), abs=1e-12)


def test_one_pair_has_no_loss() -> None:
    video, text = pooled(1), pooled(1, seed=1)
    loss = global_contrast(video=video, text=text)["global_loss"]
    loss.backward()
    assert loss.item() == 0
    assert video.pooled.grad is not None
    assert not video.pooled.grad.any()


def test_a_zero_vector_gives_no_nan() -> None:
    vectors = torch.zeros(2, 5, requires_grad=True)
    loss = global_contrast(video=wrapped(vectors), text=pooled(2).to(torch.float32))["global_loss"]
    loss.backward()
    assert loss.isfinite()
    assert vectors.grad is not None
    assert vectors.grad.isfinite().all()


def test_sides_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(InputError, match="width"):
        global_similarity(video=pooled(2), text=pooled(2, width=4))
    with pytest.raises(InputError, match="3 videos against 2 captions"):
        global_contrast(video=pooled(3), text=pooled(2))
    with pytest.raises(InputError, match="nothing to compare"):
        global_similarity(video=pooled(0), text=pooled(2))


def test_autocast_does_not_touch_it() -> None:
    video, text = pooled(4).to(torch.float32), pooled(4, seed=1).to(torch.float32)
    plain = global_contrast(video=video, text=text)["global_loss"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(global_contrast(video=video, text=text)["global_loss"], plain)
