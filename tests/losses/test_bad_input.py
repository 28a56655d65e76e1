"""What every loss makes of input that is odd or broken: a defined number, or one clear error. Never NaN."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from regionvlp.errors import InputError
from regionvlp.losses import (
    REGION_WORD_PRESETS,
    RegionWordSettings,
    filip_loss,
    filip_similarity,
    global_contrast,
    global_similarity,
    region_word_loss,
    region_word_similarity,
    taco_similarity,
    taco_token_loss,
)
from regionvlp.models import Encoded

Loss = Callable[..., dict[str, Tensor]]


def taco(*, video: Encoded, text: Encoded) -> dict[str, Tensor]:
    return taco_token_loss(video=video, text=text, word_weight=torch.ones(text.mask.shape))


TOKEN_LOSSES: dict[str, Loss] = {
    **{name: partial(region_word_loss, settings=settings) for name, settings in REGION_WORD_PRESETS.items()},
    "filip": filip_loss,
    "taco": taco,
}
LOSSES: dict[str, Loss] = {"global": global_contrast, **TOKEN_LOSSES}
SIMILARITIES: dict[str, Callable[..., Tensor]] = {
    "global": global_similarity,
    **{name: partial(region_word_similarity, settings=settings) for name, settings in REGION_WORD_PRESETS.items()},
    "filip": filip_similarity,
    "taco": taco_similarity,
}
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
each_token_loss = pytest.mark.parametrize("loss", TOKEN_LOSSES.values(), ids=TOKEN_LOSSES)


def side(items: int = 3, tokens: int = 4, seed: int = 1, width: int = 6) -> Encoded:
    generator = torch.Generator().manual_seed(seed)
    pooled = torch.randn(items, width, generator=generator).requires_grad_()
    vectors = torch.randn(items, tokens, width, generator=generator).requires_grad_()
    return Encoded(pooled, vectors, torch.ones(items, tokens, dtype=torch.bool))


def leaves(*sides: Encoded) -> list[Tensor]:
    return [x for encoded in sides for x in (encoded.pooled, encoded.tokens)]


def is_defined(loss: Loss, video: Encoded, text: Encoded) -> float:
    """The loss, which is finite and has finite gradients."""
    total = torch.stack(list(loss(video=video, text=text).values())).sum()
    assert total.isfinite()
    if total.requires_grad:
        for grad in torch.autograd.grad(total, leaves(video, text), allow_unused=True):
            assert grad is None or grad.isfinite().all()
    return total.item()


@each_loss
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30])
@pytest.mark.parametrize("which", ["video", "text"])
def test_numbers_that_are_none_are_named(loss: Loss, value: float, which: str) -> None:
    sides = {"video": side(seed=1), "text": side(seed=2)}
    with torch.no_grad():
        for x in (sides[which].pooled, sides[which].tokens):
            x[1, 2] = value
    said = {"video": "of 1 videos hold NaN", "text": "of 1 captions hold NaN"}[which]
    with pytest.raises(InputError, match=said):
        loss(**sides)


@pytest.mark.parametrize("similarity", SIMILARITIES.values(), ids=SIMILARITIES)
def test_similarities_name_them_too(similarity: Callable[..., Tensor]) -> None:
    video, text = side(seed=1), side(seed=2)
    with torch.no_grad():
        text.pooled[0, 0] = text.tokens[0, 1, 0] = float("nan")
    with pytest.raises(InputError, match="of 1 captions hold NaN"):
        similarity(video=video, text=text)


@each_token_loss
def test_what_stands_in_padding_matters_only_to_losses_that_read_it(loss: Loss) -> None:
    video, text = side(seed=1), side(seed=2)
    video.mask[0, 3] = False
    with torch.no_grad():
        video.tokens[0, 3] = float("nan")
    if loss is TOKEN_LOSSES["public"]:
        with pytest.raises(InputError, match="NaN"):
            loss(video=video, text=text)
    else:
        is_defined(loss, video, text)


@each_loss
def test_a_video_without_valid_regions(loss: Loss) -> None:
    video, text = side(seed=1), side(seed=2)
    video.mask[1] = False
    is_defined(loss, video, text)


@each_loss
def test_a_caption_of_special_tokens_only(loss: Loss) -> None:
    video, text = side(seed=1), side(seed=2)
    text.mask[2] = False
    is_defined(loss, video, text)


@each_loss
def test_nothing_valid_anywhere(loss: Loss) -> None:
    video, text = side(seed=1), side(seed=2)
    video.mask[:], text.mask[:] = False, False
    is_defined(loss, video, text)


@each_loss
def test_no_room_for_tokens(loss: Loss) -> None:
    """Captions cut to their CLS token, videos of no regions."""
    video, text = (Encoded(x.pooled, x.tokens[:, :0], x.mask[:, :0]) for x in (side(seed=1), side(seed=2)))
    is_defined(loss, side(seed=1), text)
    is_defined(loss, video, side(seed=2))


@each_loss
def test_one_word_one_region(loss: Loss) -> None:
    is_defined(loss, side(tokens=4, seed=1), side(tokens=1, seed=2))
    is_defined(loss, side(tokens=1, seed=1), side(tokens=4, seed=2))


@each_loss
def test_one_pair_has_nothing_to_be_told_from(loss: Loss) -> None:
    assert is_defined(loss, side(items=1, seed=1), side(items=1, seed=2)) == pytest.approx(0, abs=2e-6)


@each_loss
def test_zero_vectors(loss: Loss) -> None:
    video, text = side(seed=1), side(seed=2)
    with torch.no_grad():
        for x in (video.pooled, text.pooled, video.tokens):
            x[0] = 0
        text.tokens[:, 1] = 0
    is_defined(loss, video, text)


@each_loss
def test_sides_that_do_not_fit_are_refused(loss: Loss) -> None:
    with pytest.raises(InputError, match="videos of width 6, captions of width 5"):
        loss(video=side(), text=side(width=5))
    with pytest.raises(InputError, match="3 videos against 2 captions"):
        loss(video=side(), text=side(items=2))
    with pytest.raises(InputError, match="nothing to compare"):
        loss(video=side()[:0], text=side()[:0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.uint8])
def test_masks_that_are_not_boolean_are_refused(dtype: torch.dtype) -> None:
    """No loss meets one: they all take Encoded, which refuses it."""
    video = side()
    with pytest.raises(InputError, match="boolean mask"):
        Encoded(video.pooled, video.tokens, video.mask.to(dtype))


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), -1.0])
def test_word_weights_that_are_none_are_refused(weight: float) -> None:
    video, text = side(seed=1), side(seed=2)
    weights = torch.ones(3, 4)
    weights[1, 1] = weight
    with pytest.raises(InputError, match="word_weight"):
        taco_token_loss(video=video, text=text, word_weight=weights)
    text.mask[1, 1] = False  # a weight that is not read
    is_defined(partial(taco_token_loss, word_weight=weights), video, text)


@pytest.mark.parametrize("value", [0.0, -0.05, 1e-45, float("inf"), float("nan")])
def test_a_temperature_that_makes_no_loss_is_refused(value: float) -> None:
    video, text = side(seed=1), side(seed=2)
    weight = torch.ones(text.mask.shape)
    for loss in (global_contrast, filip_loss, partial(taco_token_loss, word_weight=weight)):
        with pytest.raises(InputError, match="a temperature of"):
            loss(video=video, text=text, temperature=value)
    with pytest.raises(ValidationError):
        RegionWordSettings(temperature=value)


def test_embeddings_are_floating_point_and_of_one_width() -> None:
    video, text = side(seed=1), side(seed=2)
    with pytest.raises(InputError, match="int64"):
        Encoded(video.pooled, video.tokens.long(), video.mask)
    for loss in LOSSES.values():
        with pytest.raises(InputError, match="float64 goes with"):
            loss(video=video.to(torch.float64), text=text)
