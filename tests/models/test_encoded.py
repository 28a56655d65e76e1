"""What encoders return: checked at the door, sliced, padded, joined."""

from __future__ import annotations

import pytest
import torch

from regionvlp.errors import InputError
from regionvlp.models import Encoded


def encoded(batch: int, tokens: int, width: int = 3) -> Encoded:
    generator = torch.Generator().manual_seed(batch * tokens)
    return Encoded(
        torch.randn(batch, width, generator=generator),
        torch.randn(batch, tokens, width, generator=generator),
        torch.ones(batch, tokens, dtype=torch.bool),
    )


def test_cat_pads_to_the_widest() -> None:
    short, long = encoded(2, 3), encoded(1, 5)
    both = Encoded.cat([short, long])
    assert len(both) == 3
    assert both.tokens.shape == (3, 5, 3)
    assert torch.equal(both.tokens[:2, :3], short.tokens)
    assert both.mask.sum(1).tolist() == [3, 3, 5]
    assert torch.equal(both[2:].pooled, long.pooled)


def test_to_keeps_the_mask_boolean() -> None:
    double = encoded(2, 3).to(torch.float64).to("cpu")
    assert double.pooled.dtype is double.tokens.dtype is torch.float64
    assert double.mask.dtype is torch.bool


def test_a_mask_of_numbers_is_refused() -> None:
    with pytest.raises(InputError, match="boolean"):
        Encoded(torch.zeros(2, 3), torch.zeros(2, 4, 3), torch.ones(2, 4))


@pytest.mark.parametrize(
    ("pooled", "tokens", "mask"),
    [((2, 3), (2, 4, 5), (2, 4)), ((2, 3), (2, 4, 3), (2, 5)), ((1, 3), (2, 4, 3), (2, 4))],
)
def test_shapes_that_do_not_fit_are_refused(
    pooled: tuple[int, ...], tokens: tuple[int, ...], mask: tuple[int, ...]
) -> None:
    with pytest.raises(InputError, match="do not fit"):
        Encoded(torch.zeros(pooled), torch.zeros(tokens), torch.ones(mask, dtype=torch.bool))
