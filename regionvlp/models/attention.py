"""Transformer blocks over the tokens of a clip: who may look at whom.

Shape letters: B batch, F frames, R tokens of a frame (its regions, or its patches), T = 1 + F*R tokens with CLS first
and frames one after another, D width. Tokens that may see each other form a *group*: G groups of S tokens,
(G, S) = (F, R) for frames, (R, F) for places.

Every mask here is over keys, and CLS is always a key. So a padded region is seen by nobody, a frame whose tokens are
all padding sees CLS alone, and no softmax is ever empty. Padding still asks (its outputs are computed), because the
public form of the region-word losses reads them.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Reach = Literal["all", "frame", "slot"]


class Attention(nn.Module):
    """Multi-head self-attention over CLS and the tokens of a clip (ViT's, with biases; names as in timm).

    Args:
        width: D.
        heads: number of heads, a divisor of D.
        reach: what a token attends to besides CLS. ``all``: every token of the clip (the text of the DemoVLP paper;
            joint space-time attention). ``frame``: those of its own frame, so that frames meet in CLS only (DemoVLP's
            public code; Frozen's attention over space). ``slot``: the same place of every frame (attention over time;
            for regions, places are ranks by confidence, not tracks). CLS attends to everything in all three.
    """

    def __init__(self, width: int, heads: int, reach: Reach) -> None:
        super().__init__()
        self.heads = heads
        self.reach = reach
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_BTD: Tensor, frames: int, mask_BFR: Tensor | None = None) -> Tensor:
        """Returns [B, T, D]; ``mask_BFR`` is bool, True = real token, None where all are (the faster kernels)."""
        query_BTD, key_value_BTE = self.qkv(x_BTD).split([x_BTD.shape[-1], 2 * x_BTD.shape[-1]], dim=-1)
        mask_BT = None if mask_BFR is None else functional.pad(mask_BFR.flatten(1), (1, 0), value=True)
        if self.reach == "all":
            return self._project(self._attend(query_BTD, key_value_BTE, mask_BT))
        cls_B1D = self._attend(query_BTD[:, :1], key_value_BTE, mask_BT)
        tokens_BMD = self._attend_within_groups(query_BTD[:, 1:], key_value_BTE, frames, mask_BFR)
        return self._project(torch.cat([cls_B1D, tokens_BMD], dim=1))

    def cls_weights(self, x_BTD: Tensor) -> Tensor:
        """[B, heads, T]: how much CLS attends to each token of a clip without padding, itself included; sums to 1."""
        query_BTD, key_BTD, _ = self.qkv(x_BTD).chunk(3, dim=-1)
        query_BHd = torch.unflatten(query_BTD[:, 0], -1, (self.heads, -1))
        key_BTHd = torch.unflatten(key_BTD, -1, (self.heads, -1))
        logits_BHT = torch.einsum("bhd,bthd->bht", query_BHd * query_BHd.shape[-1] ** -0.5, key_BTHd)
        return logits_BHT.softmax(-1)

    def _attend_within_groups(
        self, query_BMD: Tensor, key_value_BTE: Tensor, frames: int, mask_BFR: Tensor | None
    ) -> Tensor:
        """Each token over CLS and its group: 1 + S keys instead of T. [B, F*R, D]."""
        query_BGSD = torch.unflatten(query_BMD, 1, (frames, -1))
        groups_BGSE = torch.unflatten(key_value_BTE[:, 1:], 1, (frames, -1))
        mask_BGS = mask_BFR
        if self.reach == "slot":
            query_BGSD, groups_BGSE = query_BGSD.transpose(1, 2), groups_BGSE.transpose(1, 2)
            mask_BGS = None if mask_BFR is None else mask_BFR.transpose(1, 2)
        cls_BG1E = key_value_BTE[:, None, :1].expand(-1, groups_BGSE.shape[1], -1, -1)
        key_value_BGKE = torch.cat([cls_BG1E, groups_BGSE], dim=2)
        mask_NK = None if mask_BGS is None else functional.pad(mask_BGS, (1, 0), value=True).flatten(0, 1)
        out = self._attend(query_BGSD.flatten(0, 1), key_value_BGKE.flatten(0, 1), mask_NK)
        out_BGSD = out.reshape(query_BGSD.shape)
        return (out_BGSD.transpose(1, 2) if self.reach == "slot" else out_BGSD).flatten(1, 2)

    def _attend(self, query: Tensor, key_value: Tensor, mask: Tensor | None) -> Tensor:
        """Softmax attention of [n, Q, D] over [n, K, 2D] under a key mask [n, K]: [n, Q, D]."""
        split = (query, *key_value.chunk(2, dim=-1))
        query, key, value = (part.reshape(*part.shape[:2], self.heads, -1).transpose(1, 2) for part in split)
        if mask is not None:
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
    """A pre-norm transformer block, with attention over time before it where asked for: Frozen's divided attention.

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

    def forward(self, x_BTD: Tensor, frames: int, mask_BFR: Tensor | None = None) -> Tensor:
        """Returns [B, T, D]; ``mask_BFR`` is bool, True = real token, None where all are."""
        # The residual starts from x, not from what time attention made of it (as in Frozen in Time).
        x_BTD = x_BTD + self.attn(self.norm1(self.seen(x_BTD, frames, mask_BFR)), frames, mask_BFR)
        out: Tensor = x_BTD + self.mlp(self.norm2(x_BTD))
        return out

    def seen(self, x_BTD: Tensor, frames: int, mask_BFR: Tensor | None = None) -> Tensor:
        """[B, T, D]: what attention over space looks at, before its norm."""
        if self.timeattn is None:
            return x_BTD
        found: Tensor = x_BTD + self.timeattn(self.norm3(x_BTD), frames, mask_BFR)
        return found


class TimeSformerBlock(nn.Module):
    """Divided attention as TimeSformer has it (Bertasius et al., ICML 2021).

    What attention over time finds stays in the residual; CLS takes no part in it, and over space a copy of CLS looks at
    each frame alone, the copies being averaged. Parameters are named as those of :class:`Block` that do the same work;
    ``temporal_fc`` has no counterpart.
    """

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads, "all")
        self.timeattn = Attention(width, heads, "all")
        self.temporal_fc = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, hidden)
        self.norm3 = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x_BTD: Tensor, frames: int, mask_BFR: Tensor | None = None) -> Tensor:
        """Returns [B, T, D]; ``mask_BFR`` is bool, True = real token, and masks whole frames; None where all are."""
        cls_B1D, tokens_BFRD = x_BTD[:, :1], torch.unflatten(x_BTD[:, 1:], 1, (frames, -1))
        tokens_BFRD = tokens_BFRD + self.temporal_fc(self._over_time(tokens_BFRD, mask_BFR))
        found_BFSD = self._over_space(cls_B1D, tokens_BFRD)
        cls_BFD = found_BFSD[:, :, 0]
        if mask_BFR is None:
            cls_BD = cls_BFD.mean(1)
        else:
            real_BF = mask_BFR.any(-1).to(cls_BFD.dtype)
            cls_BD = torch.einsum("bfd,bf->bd", cls_BFD, real_BF) / real_BF.sum(1, keepdim=True)
        tokens_BMD = (tokens_BFRD + found_BFSD[:, :, 1:]).flatten(1, 2)
        x_BTD = torch.cat([cls_B1D + cls_BD[:, None], tokens_BMD], dim=1)
        out: Tensor = x_BTD + self.mlp(self.norm2(x_BTD))
        return out

    def _over_time(self, tokens_BFRD: Tensor, mask_BFR: Tensor | None) -> Tensor:
        """Each place over the frames. As if the first of the frames were CLS, which masks never hide."""
        batch, _, places, _ = tokens_BFRD.shape
        tokens_NFD = self.norm3(tokens_BFRD).transpose(1, 2).flatten(0, 1)
        mask_N1F = None
        if mask_BFR is not None:
            mask_N1F = mask_BFR.transpose(1, 2).flatten(0, 1)[:, None, 1:]
        found: Tensor = self.timeattn(tokens_NFD, 1, mask_N1F)
        return torch.unflatten(found, 0, (batch, places)).transpose(1, 2)

    def _over_space(self, cls_B1D: Tensor, tokens_BFRD: Tensor) -> Tensor:
        """[B, F, 1 + R, D]: each frame, with CLS, over itself."""
        batch, frames, _, _ = tokens_BFRD.shape
        cls_BF1D = cls_B1D[:, None].expand(-1, frames, -1, -1)
        frames_NSD = torch.cat([cls_BF1D, tokens_BFRD], dim=2).flatten(0, 1)
        found: Tensor = self.attn(self.norm1(frames_NSD), 1)
        return torch.unflatten(found, 0, (batch, frames))
