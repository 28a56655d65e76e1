"""Negatives from every process: what the queries of this process choose among.

In: the videos and captions of one process. Out: those of all processes, through which gradients flow back to the
process that encoded them. Each process computes the rows of its own queries only, as a mean over them; averaging
parameter gradients over processes (as DistributedDataParallel does) then gives exactly the gradient of the loss over
the joined batch.

Shape letters: B batch of one process, N tokens, D joint width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from regionvlp.errors import InputError
from regionvlp.losses.settings import Negatives
from regionvlp.models.encoded import Encoded


@dataclass(frozen=True)
class Candidates:
    """What queries choose among: item ``first + i`` is the partner of this process's item i.

    Attributes:
        video, text: all candidates of either side, paired row by row.
        first: where this process's own items start in them.
        processes: whose items they are; each holds the same candidates.
    """

    video: Encoded
    text: Encoded
    first: int = 0
    processes: int = 1

    def are(self, video: Encoded, text: Encoded) -> bool:
        """Whether they are this very batch, so that both directions may share one matrix of scores."""
        return self.video is video and self.text is text

    def mean_over_processes(self, value: Tensor) -> Tensor:
        """Of a tensor that no gradient flows through."""
        if self.processes == 1:
            return value
        total = value.detach().clone()
        dist.all_reduce(total)
        return total / self.processes


def candidates(video: Encoded, text: Encoded, negatives: Negatives = "local") -> Candidates:
    """The candidates of a paired batch.

    Args:
        video, text: B items each, paired row by row.
        negatives: ``local`` takes the batch of this process (what DemoVLP trains with), ``global`` gathers the
            batches of all processes, which must be of one size.

    Raises:
        InputError: the two sides are not paired, or batch sizes differ between processes.
    """
    if len(video) != len(text):
        raise InputError(f"{len(video)} videos against {len(text)} captions", "a training batch pairs them row by row")
    if negatives == "local" or not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return Candidates(video, text)
    first, processes = dist.get_rank() * len(video), dist.get_world_size()
    return Candidates(_gather(video), _gather(text), first, processes)


def _gather(encoded: Encoded) -> Encoded:
    """The items of all processes in order of rank, tokens padded to the widest of them."""
    size = torch.tensor(encoded.mask.shape, device=encoded.mask.device)
    sizes = [torch.empty_like(size) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, size)
    batches = [int(other[0]) for other in sizes]
    if len(set(batches)) > 1:
        hint = "drop the last, incomplete batch, or use local negatives"
        raise InputError(f"batches of different sizes on different processes: {batches}", hint)
    encoded = encoded.pad_to(max(int(other[1]) for other in sizes))
    # Booleans travel as bytes: not every backend moves bool.
    gather: Callable[[Tensor], Tensor] = _GatherRows.apply  # untyped before torch 2.14
    return Encoded(gather(encoded.pooled), gather(encoded.tokens), gather(encoded.mask.byte()).bool())


class _GatherRows(torch.autograd.Function):
    """Joins [B, ...] of all processes to [world * B, ...]; backward sums what every process sends to these rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].clone(memory_format=torch.contiguous_format)  # autograd may hand the same tensor to others
        dist.all_reduce(grad)
        return grad.chunk(dist.get_world_size())[dist.get_rank()]
