"""The transformer block of the region encoder: who may look at whom.

Shape letters: B batch, F frames, R region slots of a frame, T = 1 + F*R tokens with CLS first, D width.
Regions that may see each other form a *group*: G groups of S regions, (G, S) = (F, R) for frames, (R, F) for slots.

Every mask here is over keys, and CLS is always a key. So a padded region is seen by nobody, a frame whose regions
are all padding sees CLS alone, and no softmax is ever empty. Padded regions still ask (their outputs are computed),
because the public form of the losses reads them.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Reach = Literal["all", "frame", "slot"]


class Attention(nn.Module):
    """Multi-head self-attention over CLS and the regions of a clip (ViT's, with biases; names as in timm).

    Args:
        width: D.
        heads: number of heads, a divisor of D.
        reach: what a region attends to besides CLS. ``all``: every region of the clip (the text of the DemoVLP
            paper). ``frame``: the regions of its own frame, so that frames meet in CLS only (its public code).
            ``slot``: the same slot of every frame (the public code's attention over time; slots are ranks by
            confidence, not tracks). CLS attends to everything in all three.
    """

    def __init__(self, width: int, heads: int, reach: Reach) -> None:
        super().__init__()
        self.heads = heads
        self.reach = reach
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_BTD: Tensor, mask_BFR: Tensor) -> Tensor:
        """Returns [B, T, D]; ``mask_BFR`` is bool, True = real region."""
        query_BTD, key_value_BTE = self.qkv(x_BTD).split([x_BTD.shape[-1], 2 * x_BTD.shape[-1]], dim=-1)
        mask_BT = functional.pad(mask_BFR.flatten(1), (1, 0), value=True)
        if self.reach == "all":
            return self._project(self._attend(query_BTD, key_value_BTE, mask_BT))
        cls_B1D = self._attend(query_BTD[:, :1], key_value_BTE, mask_BT)
        regions_BMD = self._attend_within_groups(query_BTD[:, 1:], key_value_BTE, mask_BFR)
        return self._project(torch.cat([cls_B1D, regions_BMD], dim=1))

    def _attend_within_groups(self, query_BMD: Tensor, key_value_BTE: Tensor, mask_BFR: Tensor) -> Tensor:
        """Each region over CLS and its group: 1 + S keys instead of T. [B, F*R, D]."""
        batch, frames, slots = mask_BFR.shape
        query_BGSD = query_BMD.reshape(batch, frames, slots, -1)
        groups_BGSE = key_value_BTE[:, 1:].reshape(batch, frames, slots, -1)
        mask_BGS = mask_BFR
        if self.reach == "slot":
            query_BGSD, groups_BGSE, mask_BGS = (x.transpose(1, 2) for x in (query_BGSD, groups_BGSE, mask_BGS))
        cls_BG1E = key_value_BTE[:, None, :1].expand(-1, mask_BGS.shape[1], -1, -1)
        key_value_BGKE = torch.cat([cls_BG1E, groups_BGSE], dim=2)
        mask_BGK = functional.pad(mask_BGS, (1, 0), value=True)
        out = self._attend(query_BGSD.flatten(0, 1), key_value_BGKE.flatten(0, 1), mask_BGK.flatten(0, 1))
        out_BGSD = out.reshape(query_BGSD.shape)
        return (out_BGSD.transpose(1, 2) if self.reach == "slot" else out_BGSD).flatten(1, 2)

    def _attend(self, query: Tensor, key_value: Tensor, mask: Tensor) -> Tensor:
        """Softmax attention of [n, Q, D] over [n, K, 2D] under a key mask [n, K]: [n, Q, D]."""
        split = (query, *key_value.chunk(2, dim=-1))
        query, key, value = (part.reshape(*part.shape[:2], self.heads, -1).transpose(1, 2) for part in split)
        # Spread over the queries by hand: the fused kernels take a mask per query.
        mask = mask[:, None, None, :].expand(-1, 1, query.shape[2], -1)
        out = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return out.transpose(1, 2).flatten(2)

    def _project(self, x_BTD: Tensor) -> Tensor:
        projected: Tensor = self.proj(x_BTD)
        return projected


class Mlp(nn.Module):
    """Linear, GELU (exact), Linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] to [..., D]."""
        out: Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return out


class Block(nn.Module):
    """A pre-norm transformer block, with attention over time before it where asked for.

    ``norm3`` belongs to the attention over time. Public checkpoints hold it either way, so it always exists; where
    nothing reads it, it is frozen, so that distributed training waits for no gradient of it.
    """

    def __init__(self, width: int, heads: int, hidden: int, reach: Reach, time_attention: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads, reach)
        self.timeattn = Attention(width, heads, "slot") if time_attention else None
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, hidden)
        self.norm3 = nn.LayerNorm(width, eps=1e-6).requires_grad_(time_attention)

    def forward(self, x_BTD: Tensor, mask_BFR: Tensor) -> Tensor:
        """Returns [B, T, D]; ``mask_BFR`` is bool, True = real region."""
        seen_BTD = x_BTD
        if self.timeattn is not None:
            seen_BTD = x_BTD + self.timeattn(self.norm3(x_BTD), mask_BFR)
        # The residual starts from x, not from what time attention made of it (as in Frozen in Time).
        x_BTD = x_BTD + self.attn(self.norm1(seen_BTD), mask_BFR)
        out: Tensor = x_BTD + self.mlp(self.norm2(x_BTD))
        return out
