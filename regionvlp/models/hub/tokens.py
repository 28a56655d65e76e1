"""How the patch tokens of a picture tower come into the space that its pooled vector lies in.

Two kinds of tower end differently. CLIP reads its class token: there a patch reaches the joint space through the value
path of the last layer and the projection, without the attention that would mix it with the others (Zhou, Loy and Dai,
2022, "Extract free dense labels from CLIP", section 3.2). PE-Core and SigLIP end in an attention pool with one learnt
query: there a patch's place is that pool applied to it alone, and a box's is the pool over what lies in the box.

Both come as a map over the patches that may be averaged over any box (RoIAlign), and a function that finishes the
average: for the attention pool, the map carries numerator and denominator of its softmax.

Shape letters: B pictures, N patches in h rows and w columns, C channels of the tower, H heads, M of the map, D of the
joint space, n boxes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import roi_align

Finish = Callable[[Tensor], Tensor]


class TokenPath(Protocol):
    """From a tower's states to vectors of boxes."""

    @property
    def tap(self) -> nn.Module:
        """The module whose first input the states are."""

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w)."""

    def maps(self, states: Tensor) -> Tensor:
        """[B, prefix + N, C] states to a map [B, M, h, w]."""

    def finish(self, averages: Tensor) -> Tensor:
        """[n, M] averages of the map to [n, D] vectors of the joint space."""


def box_vectors(path: TokenPath, maps: Tensor, boxes: list[Tensor], side: tuple[int, int]) -> Tensor:
    """The vectors of boxes.

    Args:
        maps: [B, M, h, w]. boxes: of each picture [n_b, 4], ``x1 y1 x2 y2`` in pixels of the input.
        side: (height, width) of the input.

    Returns:
        [sum of n_b, D] float32, of length 1, picture by picture.
    """
    rows, columns = path.grid
    scale = torch.tensor([columns / side[1], rows / side[0]] * 2, device=maps.device)
    averages = roi_align(maps.float(), [part.to(maps.device) * scale for part in boxes], 1, aligned=True)
    return functional.normalize(path.finish(averages.flatten(1)).float(), dim=-1)


def _as_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    return tokens.transpose(1, 2).reshape(len(tokens), -1, *grid)


@dataclass(frozen=True)
class ValuePath:
    """CLIP's: patches through the last layer's norm, value and output, then through what pooling ends with.

    Attributes:
        tap: the last layer. norm, value, output: of that layer. after: the last norm and the projection.
    """

    tap: nn.Module
    grid: tuple[int, int]
    norm: nn.Module
    value: Finish
    output: nn.Module
    after: Finish

    def maps(self, states: Tensor) -> Tensor:
        patches = states[:, states.shape[1] - self.grid[0] * self.grid[1] :]
        return _as_map(self.after(self.output(self.value(self.norm(patches)))), self.grid)

    def finish(self, averages: Tensor) -> Tensor:
        return averages


@dataclass(frozen=True)
class AttentionPool:
    """PE-Core's and SigLIP's: one learnt query over the patches of a box.

    Attributes:
        tap: the pool. query: [H, C / H], scaled. key, value: of states, to [..., C].
        key_norm: of a key [..., C / H]. after: what follows the weighted sum, [n, C] to [n, D].
    """

    tap: nn.Module
    grid: tuple[int, int]
    query: Tensor
    key: Finish
    value: Finish
    key_norm: nn.Module
    after: Finish

    def maps(self, states: Tensor) -> Tensor:
        patches = states[:, states.shape[1] - self.grid[0] * self.grid[1] :]
        heads, width = self.query.shape
        keys = self.key_norm(self.key(patches).reshape(*patches.shape[:2], heads, width))
        logits = torch.einsum("bnhd,hd->bnh", keys.float(), self.query.float())
        # The largest of a picture goes out of the exponent: it cancels in the quotient.
        weights = (logits - logits.amax(1, keepdim=True)).exp()
        weighted = self.value(patches).float().reshape(keys.shape) * weights[..., None]
        return _as_map(torch.cat([weighted.flatten(2), weights], 2), self.grid)

    def finish(self, averages: Tensor) -> Tensor:
        heads, width = self.query.shape
        summed, weights = averages[:, : heads * width], averages[:, heads * width :]
        # Far from what a picture's query looks at, weights may be too small for float32.
        shares = summed.reshape(-1, heads, width) / weights.clamp_min(torch.finfo(torch.float32).tiny)[..., None]
        return self.after(shares.flatten(1).to(self.query.dtype))


class Tap:
    """Keeps the first input of a module while it is open."""

    def __init__(self, module: nn.Module | None) -> None:
        self._module = module
        self.states: Tensor | None = None

    def __enter__(self) -> Tap:
        if self._module is not None:
            self._hook = self._module.register_forward_pre_hook(self._keep, with_kwargs=True)
        return self

    def __exit__(self, *error: object) -> None:
        if self._module is not None:
            self._hook.remove()

    def _keep(self, module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        self.states = arguments[0] if arguments else named["hidden_states"]


def multihead_pool(
    tap: nn.Module, attention: nn.MultiheadAttention, probe: Tensor, grid: tuple[int, int], after: Finish
) -> AttentionPool:
    """The pool of a :class:`torch.nn.MultiheadAttention` whose query is ``probe`` [C]."""
    width, heads = attention.embed_dim, attention.num_heads
    query_w, key_w, value_w = attention.in_proj_weight.chunk(3)
    query_b, key_b, value_b = attention.in_proj_bias.chunk(3)
    query = functional.linear(probe, query_w, query_b).reshape(heads, width // heads)
    return AttentionPool(
        tap=tap,
        grid=grid,
        query=query.detach() * (width // heads) ** -0.5,
        key=lambda states: functional.linear(states, key_w, key_b),
        value=lambda states: functional.linear(states, value_w, value_b),
        key_norm=nn.Identity(),
        after=lambda summed: after(attention.out_proj(summed)),
    )
