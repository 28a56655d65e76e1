"""The text encoder: what counts as a word, what padding gets, sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from regionvlp.errors import InputError
from regionvlp.models import TextEncoder, TextEncoderSettings
from regionvlp.models.text_encoder import with_vocabulary

SMALL: dict[str, Any] = {
    "vocab_size": 30,
    "width": 16,
    "depth": 2,
    "heads": 4,
    "mlp_width": 32,
    "max_length": 10,
    "joint_width": 8,
}


def small(**changes: Any) -> TextEncoder:
    torch.manual_seed(0)
    return TextEncoder(TextEncoderSettings(**{**SMALL, **changes})).double().eval()


IDS = torch.tensor([[2, 5, 6, 3, 0, 0], [2, 7, 8, 9, 10, 3], [2, 3, 0, 0, 0, 0]])
MASK = (IDS != 0).long()


def test_shapes_and_words() -> None:
    encoded = small()(IDS, MASK)
    assert encoded.pooled.shape == (3, 8)
    assert encoded.tokens.shape == (3, 5, 8)
    assert encoded.mask.sum(1).tolist() == [3, 5, 1]


def test_sep_can_be_left_out() -> None:
    mask = small(sep_is_word=False)(IDS, MASK).mask
    assert mask.tolist() == [
        [True, True, False, False, False],
        [True, True, True, True, False],
        [False, False, False, False, False],
    ]


def test_words_do_not_depend_on_the_padded_width() -> None:
    model = small()
    wide, narrow = model(IDS[:1], MASK[:1]), model(IDS[:1, :4], MASK[:1, :4])
    torch.testing.assert_close(wide.tokens[:, :3], narrow.tokens, rtol=0, atol=1e-12)


def test_outputs_at_padding_are_computed() -> None:
    """The public losses read them; they must be those of plain attention, not zeros."""
    model = small()
    fused = model(IDS, MASK).tokens
    model.model.set_attn_implementation("eager")
    torch.testing.assert_close(fused, model(IDS, MASK).tokens, rtol=0, atol=1e-12)
    assert (fused[0, 3] != fused[0, 4]).any()


def test_captions_too_long_and_masks_of_another_shape_are_refused() -> None:
    model = small(max_length=5)
    with pytest.raises(InputError, match="6 tokens for a text encoder of 5"):
        model(IDS, MASK)
    with pytest.raises(InputError, match="both are"):
        model(IDS[:, :4], MASK[:, :3])


def test_the_default_is_distilbert_base() -> None:
    with torch.device("meta"):
        model = TextEncoder(TextEncoderSettings(vocab_size=30522))
    assert sum(parameter.numel() for parameter in model.model.parameters()) == 66_362_880
    assert sum(parameter.numel() for parameter in model.projection.parameters()) == 196_864


def test_the_vocabulary_comes_from_the_tokenizer_unless_set() -> None:
    assert with_vocabulary(TextEncoderSettings(), 100).vocab_size == 100
    assert with_vocabulary(TextEncoderSettings(vocab_size=200), 100).vocab_size == 200
    with pytest.raises(InputError, match="not known"):
        with_vocabulary(TextEncoderSettings(), None)
    with pytest.raises(InputError, match="a tokenizer of 100 entries for a text encoder of 50"):
        with_vocabulary(TextEncoderSettings(vocab_size=50), 100)
