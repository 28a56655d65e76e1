"""Sizes and forms of the encoders: what a configuration's ``model`` section is made of. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from regionvlp.config import Config

Inflation = Literal["zeros", "interp", "bilinear"]
"""How the temporal embedding of a checkpoint becomes one of more frames: :mod:`regionvlp.models.inflation`."""


class RegionEncoderSettings(Config):
    """Sizes and form of the region encoder. The defaults are ViT-B/16 over the public detectors' features.

    Attributes:
        feature_width: C, what the detector gives per region.
        loc_dim: P, 7 (paper: ``x1 y1 x2 y2 w h area``) or 6 (public code: no area).
        width, depth, heads, mlp_ratio: of the transformer.
        frames: rows of the temporal embedding, the most frames that can be read.
        regions: rows of the position embedding, less one. Only CLS's row is ever used, so a clip may have any number
            of regions.
        attention: a region sees ``all`` regions (paper) or those of its own ``frame`` (public code).
        time_attention: attention over time in every block (paper, table 12).
        final_norm: LayerNorm after the last block. The public code has one and never applies it.
        joint_width: E.
        pretrained: a timm ViT (``.pth``, ``.safetensors``, or a Hugging Face name such as
            ``timm/vit_base_patch16_224.orig_in21k_ft_in1k``) to start the blocks from, or null.
    """

    feature_width: int = Field(default=2048, ge=1)
    loc_dim: Literal[6, 7] = 7
    width: int = Field(default=768, ge=1)
    depth: int = Field(default=12, ge=1)
    heads: int = Field(default=12, ge=1)
    mlp_ratio: float = Field(default=4.0, gt=0)
    frames: int = Field(default=1, ge=1)
    regions: int = Field(default=30, ge=1)
    attention: Literal["all", "frame"] = "all"
    time_attention: bool = False
    final_norm: bool = True
    joint_width: int = Field(default=256, ge=1)
    pretrained: str | None = None

    @model_validator(mode="after")
    def _heads_divide_width(self) -> RegionEncoderSettings:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class TextEncoderSettings(Config):
    """Sizes of the text encoder. The defaults are ``distilbert-base-uncased``.

    Attributes:
        pretrained: a folder or Hugging Face name of a DistilBERT of exactly these sizes, or null.
        vocab_size: entries of the vocabulary; null takes the tokenizer's.
        width, depth, heads, mlp_width, dropout: of the transformer (dropout also on attention weights).
        max_length: rows of the position table, the longest caption in tokens, CLS and SEP included.
        sep_is_word: whether SEP counts as a word in the losses (the paper does not say, its code counts it).
        joint_width: E.
    """

    pretrained: str | None = None
    vocab_size: int | None = Field(default=None, ge=1)
    width: int = Field(default=768, ge=1)
    depth: int = Field(default=6, ge=1)
    heads: int = Field(default=12, ge=1)
    mlp_width: int = Field(default=3072, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    max_length: int = Field(default=512, ge=2)
    sep_is_word: bool = True
    joint_width: int = Field(default=256, ge=1)

    @model_validator(mode="after")
    def _heads_divide_width(self) -> TextEncoderSettings:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class DualEncoderSettings(Config):
    """Both towers. Their ``joint_width`` must agree."""

    video: RegionEncoderSettings = RegionEncoderSettings()
    text: TextEncoderSettings = TextEncoderSettings()

    @model_validator(mode="after")
    def _one_joint_space(self) -> DualEncoderSettings:
        if self.video.joint_width != self.text.joint_width:
            widths = f"video.joint_width {self.video.joint_width} and text.joint_width {self.text.joint_width}"
            raise ValueError(f"{widths} must be the same")
        return self


class AnswerHeadSettings(Config):
    """Sizes and form of the head. The defaults are the public code's, but for the number of answers.

    Attributes:
        answers: A, entries of the answer vocabulary.
        width: D, of the encoders' tokens.
        hidden: H.
        dropout: on the joint vectors that attention is computed from.
        text_pool: what the question is to the head: the largest value of each dimension over ``all`` tokens, CLS, SEP
            and padding included (public code), over the ``valid`` ones, or ``cls`` (the paper's text).
        padding: a padded region's attention logit is ``zero`` (public code: it keeps some weight), or it is
            ``excluded``.
    """

    answers: int = Field(ge=1)
    width: int = Field(default=256, ge=1)
    hidden: int = Field(default=256, ge=1)
    dropout: float = Field(default=0.2, ge=0, lt=1)
    text_pool: Literal["all", "valid", "cls"] = "all"
    padding: Literal["zero", "excluded"] = "zero"
