"""The text encoder: DistilBERT or BERT, ReLU, one linear layer (DemoVLP, section 3.1; Frozen in Time, section 3).

Shape letters: B batch, L tokens of a caption with CLS first and SEP last, W = L - 1 words, E joint width.
In: token ids and their mask. Out: :class:`Encoded`, CLS as the caption (of BERT, what its
pooler makes of it), everything after it as words.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from regionvlp.errors import InputError
from regionvlp.models.encoded import Encoded
from regionvlp.models.settings import TextEncoderSettings


class TextEncoder(nn.Module):
    """Captions to the joint space.

    Reads no file: :func:`regionvlp.models.pretrained.load_text_weights` fills in pre-trained weights.

    Args:
        settings: with ``vocab_size`` given.
    """

    def __init__(self, settings: TextEncoderSettings) -> None:
        from transformers import AutoModel  # takes seconds, which settings and losses should not cost

        super().__init__()
        self.settings = settings
        # Not a kernel that cuts padding out: the public losses read the outputs at padding, and SDPA under a mask
        # over keys still computes them.
        from_config: Any = AutoModel.from_config
        self.model: nn.Module = from_config(_architecture(settings), attn_implementation="sdpa")
        self.projection = nn.Linear(settings.width, settings.joint_width)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Encoded:
        """Encodes a batch of captions.

        Args:
            input_ids: [B, L] int64, CLS first.
            attention_mask: [B, L] bool or 0/1, real tokens first, CLS always among them.

        Returns:
            pooled [B, E] from CLS, tokens [B, L-1, E] (words, SEP, padding), mask [B, L-1]. A caption of only
            special tokens has SEP as its one word, or none where ``sep_is_word`` is off.

        Raises:
            InputError: captions longer than ``max_length``, or a mask of another shape.
        """
        if input_ids.shape != attention_mask.shape:
            shapes = f"{tuple(input_ids.shape)} and {tuple(attention_mask.shape)}"
            raise InputError(f"input_ids and attention_mask of shapes {shapes}", "both are [B, L]")
        if input_ids.shape[1] > self.settings.max_length:
            message = f"captions of {input_ids.shape[1]} tokens for a text encoder of {self.settings.max_length}"
            raise InputError(message, "truncate captions, or raise the model's 'max_length'")
        mask_BL = attention_mask.bool()
        found = self.model(input_ids=input_ids, attention_mask=mask_BL.long())
        hidden_BLD = found.last_hidden_state
        if self.settings.architecture == "bert":
            hidden_BLD = torch.cat([found.pooler_output[:, None], hidden_BLD[:, 1:]], dim=1)
        out_BLE = self.projection(functional.relu(hidden_BLD))
        return Encoded(out_BLE[:, 0], out_BLE[:, 1:], self._words(mask_BL))

    def _words(self, mask_BL: Tensor) -> Tensor:
        """[B, W] bool: which tokens after CLS count as words."""
        words_BW = mask_BL[:, 1:]
        if self.settings.sep_is_word:
            return words_BW
        # SEP is the last real token: a word is a token that a real one follows.
        return words_BW & functional.pad(words_BW[:, 1:], (0, 1), value=False)


def _architecture(settings: TextEncoderSettings) -> Any:
    """The sizes in the words of transformers."""
    from transformers import BertConfig, DistilBertConfig

    assert settings.vocab_size is not None, "vocab_size comes from the settings or the tokenizer by now"
    if settings.architecture == "bert":
        return BertConfig(
            vocab_size=settings.vocab_size,
            max_position_embeddings=settings.max_length,
            num_hidden_layers=settings.depth,
            num_attention_heads=settings.heads,
            hidden_size=settings.width,
            intermediate_size=settings.mlp_width,
            hidden_dropout_prob=settings.dropout,
            attention_probs_dropout_prob=settings.dropout,
        )
    return DistilBertConfig(
        vocab_size=settings.vocab_size,
        max_position_embeddings=settings.max_length,
        n_layers=settings.depth,
        n_heads=settings.heads,
        dim=settings.width,
        hidden_dim=settings.mlp_width,
        dropout=settings.dropout,
        attention_dropout=settings.dropout,
    )


def with_vocabulary(settings: TextEncoderSettings, vocab_size: int | None) -> TextEncoderSettings:
    """The settings with the tokenizer's vocabulary size filled in.

    Raises:
        InputError: neither names a size, or the tokenizer has more entries than the model.
    """
    size = settings.vocab_size or vocab_size
    if size is None:
        raise InputError("the size of the vocabulary is not known", "set model.text.vocab_size, or give a tokenizer")
    if vocab_size is not None and vocab_size > size:
        message = f"a tokenizer of {vocab_size} entries for a text encoder of {size}"
        raise InputError(message, "leave model.text.vocab_size out, or use the model's own tokenizer")
    return settings.model_copy(update={"vocab_size": size})
