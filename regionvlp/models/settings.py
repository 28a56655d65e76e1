"""Sizes and forms of the encoders: what a configuration's ``model`` section is made of. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from regionvlp.config import Config

Side = Annotated[int, Field(ge=1, le=4096)]
Deviation = Annotated[float, Field(gt=0)]
Inflation = Literal["zeros", "nearest", "interp", "bilinear"]
"""How the temporal embedding of a checkpoint becomes one of more frames: :mod:`regionvlp.models.inflation`.

``interp`` is what the public code calls ``nearest``."""


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


class SpaceTimeSettings(Config):
    """Sizes and form of the space-time transformer. The defaults are ViT-B/16 in Frozen's form.

    Attributes:
        image_size: side of a frame in pixels, or its height and width.
        patch_size: P, side of a patch.
        width, depth, heads, mlp_ratio: of the transformer.
        frames: M, rows of the temporal embedding, the most frames that can be read.
        attention: ``frozen`` and ``timesformer`` divide attention into time and space, each with the residual form of
            its paper; ``joint`` is one attention over all patches of a clip.
        time_init: where attention over time starts. ``zero_proj``: as a copy of attention over space whose output is
            zero. ``zeros``: as in the public code, where only rounding noise moves it at first. ``random``: drawn.
            TimeSformer knows one start without effect, and ``random``.
        mean, std: of red, green and blue, which pixels between 0 and 1 are normalised by; ImageNet's.
        joint_width: E.
        pretrained: a timm ViT to start from (see :attr:`RegionEncoderSettings.pretrained`), or null.
    """

    image_size: Side | tuple[Side, Side] = 224
    patch_size: int = Field(default=16, ge=1)
    width: int = Field(default=768, ge=1)
    depth: int = Field(default=12, ge=1)
    heads: int = Field(default=12, ge=1)
    mlp_ratio: float = Field(default=4.0, gt=0)
    frames: int = Field(default=1, ge=1)
    attention: Literal["frozen", "timesformer", "joint"] = "frozen"
    time_init: Literal["zero_proj", "zeros", "random"] = "zero_proj"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[Deviation, Deviation, Deviation] = (0.229, 0.224, 0.225)
    joint_width: int = Field(default=256, ge=1)
    pretrained: str | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a frame in pixels."""
        return self.image_size if isinstance(self.image_size, tuple) else (self.image_size, self.image_size)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        height, width = self.size
        return height // self.patch_size, width // self.patch_size

    @property
    def patches(self) -> int:
        """N, patches of a frame."""
        rows, columns = self.grid
        return rows * columns

    @model_validator(mode="after")
    def _sizes_fit(self) -> SpaceTimeSettings:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if not self.patches:
            raise ValueError(f"a frame of {self.size} holds no patch of {self.patch_size}")
        return self


class TextEncoderSettings(Config):
    """Sizes of the text encoder. The defaults are ``distilbert-base-uncased``.

    Attributes:
        architecture: ``distilbert``, or ``bert``, whose caption is its pooler's output instead of CLS's.
        pretrained: a folder or Hugging Face name of such a model of exactly these sizes, or null.
        vocab_size: entries of the vocabulary; null takes the tokenizer's.
        width, depth, heads, mlp_width, dropout: of the transformer (dropout also on attention weights).
        max_length: rows of the position table, the longest caption in tokens, CLS and SEP included.
        sep_is_word: whether SEP counts as a word in the losses (the paper does not say, its code counts it).
        joint_width: E.
    """

    architecture: Literal["distilbert", "bert"] = "distilbert"
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


class TowerSettings(Config):
    """Two towers, whose ``joint_width`` must agree; each system's own class says what they are."""

    video: Any
    text: TextEncoderSettings = TextEncoderSettings()

    @model_validator(mode="after")
    def _one_joint_space(self) -> Self:
        if self.video.joint_width != self.text.joint_width:
            widths = f"video.joint_width {self.video.joint_width} and text.joint_width {self.text.joint_width}"
            raise ValueError(f"{widths} must be the same")
        return self


class DualEncoderSettings(TowerSettings):
    """A region encoder and a text encoder."""

    video: RegionEncoderSettings = RegionEncoderSettings()


class PixelDualEncoderSettings(TowerSettings):
    """A space-time transformer and a text encoder."""

    video: SpaceTimeSettings = SpaceTimeSettings()


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
