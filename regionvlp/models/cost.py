"""What the encoders cost: multiply-adds by closed form, parameters, and torch's own count (spec section 9).

Only matrix products count, as in every published figure; FLOPs are twice the multiply-adds. Shape letters: F frames,
R regions of a frame, M = F*R, T = M + 1 tokens with CLS, L tokens of a caption, D width, H width of the MLP, E joint
width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from regionvlp.models.settings import RegionEncoderSettings, SpaceTimeSettings, TextEncoderSettings


def video_macs(settings: RegionEncoderSettings, frames: int, regions: int, *, attention_products: bool = True) -> int:
    """Multiply-adds of one clip of F ``frames`` with R ``regions`` each.

    Args:
        settings: the encoder's sizes and form.
        frames, regions: F and R.
        attention_products: False leaves out queries times keys and weights times values, as the figure of the DemoVLP
            paper does.
    """
    width, hidden = settings.width, int(settings.width * settings.mlp_ratio)
    m = frames * regions
    tokens = m + 1
    layer = tokens * (4 * width * width + 2 * width * hidden)
    products = _attention(width, m, tokens if settings.attention == "all" else regions + 1)
    if settings.time_attention:
        layer += tokens * 4 * width * width
        products += _attention(width, m, frames + 1)
    if attention_products:
        layer += products
    ends = m * (settings.feature_width + settings.loc_dim) * width + tokens * width * settings.joint_width
    return ends + settings.depth * layer


def space_time_macs(settings: SpaceTimeSettings, frames: int) -> dict[str, int]:
    """Multiply-adds of one clip of F ``frames`` through the space-time transformer, projection not included.

    Returns:
        ``patch``, ``linear`` and ``attention`` (queries times keys, and weights times values), which add up to it.
    """
    width, places = settings.width, settings.patches
    m = frames * places
    tokens, mlp = m + 1, 2 * width * int(settings.width * settings.mlp_ratio)
    if settings.attention == "timesformer":
        copies = frames * (places + 1)  # CLS goes with each frame by itself
        linear = 4 * width * width * copies + 5 * width * width * m + mlp * tokens
        products = 2 * width * (m * frames + copies * (places + 1))
    elif settings.attention == "frozen":
        linear = (8 * width * width + mlp) * tokens
        products = _attention(width, m, places + 1) + _attention(width, m, frames + 1)
    else:
        linear = (4 * width * width + mlp) * tokens
        products = _attention(width, m, tokens)
    return {
        "patch": m * width * 3 * settings.patch_size**2,
        "linear": settings.depth * linear,
        "attention": settings.depth * products,
    }


def text_macs(settings: TextEncoderSettings, tokens: int, *, attention_products: bool = True) -> int:
    """Multiply-adds of one caption of L ``tokens``, CLS and SEP included; padding is computed like any other."""
    width = settings.width
    layer = tokens * (4 * width * width + 2 * width * settings.mlp_width)
    if attention_products:
        layer += 2 * tokens * tokens * width
    return settings.depth * layer + tokens * width * settings.joint_width


def alignment_macs(regions: int, words: int, width: int) -> int:
    """Multiply-adds of one pair's two region-word scores as the public code writes them out.

    Cosines and attended vectors, for each direction: what :mod:`regionvlp.losses` computes takes fewer.

    Args:
        regions: M of the clip. words: L - 1 of the caption. width: E.
    """
    return 4 * regions * words * width


def counted_flops(run: Callable[[], Any]) -> int:
    """FLOPs of what ``run`` does, by torch's counter."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return int(counter.get_total_flops())


def parameters(module: nn.Module) -> int:
    """How many numbers a module learns or carries, frozen ones included."""
    return sum(parameter.numel() for parameter in module.parameters())


def _attention(width: int, m: int, keys: int) -> int:
    """Of CLS over all tokens, and of M regions over ``keys`` tokens each: logits and weighted values."""
    return 2 * width * ((m + 1) + m * keys)
