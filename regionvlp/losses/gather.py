"""What queries choose among: the pairs of all processes, whole or in fixed groups, whatever their number.

In: the videos and captions of one process. Out: those of all processes, through which gradients flow back to the
process that encoded them. Each process computes the rows of its own queries only, as a mean over them; averaging
parameter gradients over processes (as DistributedDataParallel does) then gives exactly the gradient of the loss over
the joined batch. The joined batch is that of the processes in order of rank, which is the order of the global batch;
its groups are slices of it. So a group is the same pairs on one process, which then computes several groups, and on
many, several of which may share one.

Shape letters: B batch of one process, P pairs of all processes, N tokens, D joint width, Q queries, C candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from regionvlp.errors import InputError
from regionvlp.models.encoded import Encoded


@dataclass(frozen=True)
class Contrast:
    """Some queries of this process and what they choose among: candidate ``first + i`` is the partner of query i.

    Attributes:
        video, text: the queries of either side, Q items paired row by row.
        among_video, among_text: C candidates of either side, paired row by row.
        first: where the queries' own items start among the candidates.
        same: [Q, C] bool, candidates that are no negatives of a query, being its clip or its caption over again; None
            where all are.
        rows: which items of the process's batch the queries are.
    """

    video: Encoded
    text: Encoded
    among_video: Encoded
    among_text: Encoded
    first: int
    same: Tensor | None
    rows: slice

    @property
    def closed(self) -> bool:
        """Whether the queries are the candidates, so that both directions may share one matrix of scores."""
        return self.among_video is self.video and self.among_text is self.text


@dataclass(frozen=True)
class Candidates:
    """What the queries of a process choose among: item ``first + i`` is the partner of the process's item i.

    Attributes:
        video, text: P candidates of either side, paired row by row; only those of the same group are a query's own.
        first: where this process's own items start in them.
        processes: whose items they are; each holds the same candidates.
        group: candidates of a query, which are slices of this size; None for all.
        same: [B, P] bool, candidates that are no negatives of a query; None where all others are.
        even: whether tokens came in one width from all processes, so that nothing was padded to join them.
    """

    video: Encoded
    text: Encoded
    first: int = 0
    processes: int = 1
    group: int | None = None
    same: Tensor | None = None
    even: bool = True

    def groups(self, video: Encoded, text: Encoded) -> Iterator[Contrast]:
        """The process's batch group by group: its queries and their candidates.

        Args:
            video, text: the batch that the candidates were made of.
        """
        size, end = self.group or len(self.video), self.first + len(video)
        at = self.first
        while at < end:
            start = at // size * size
            stop = min(start + size, end)
            rows, candidates = slice(at - self.first, stop - self.first), slice(start, start + size)
            ours = _take(video, rows), _take(text, rows)
            # A group that this process holds alone needs nobody else's items.
            theirs = ours if stop - at == size else (_take(self.video, candidates), _take(self.text, candidates))
            same = None if self.same is None else self.same[rows, candidates]
            yield Contrast(*ours, *theirs, at - start, same, rows)
            at = stop

    def mean(self, loss: Callable[[Contrast], dict[str, Tensor]], video: Encoded, text: Encoded) -> dict[str, Tensor]:
        """The mean over the process's queries of what ``loss`` returns, each a mean over the queries of one group.

        Args:
            loss: scalars by name, of one group.
            video, text: the batch that the candidates were made of.
        """
        means: dict[str, Tensor] = {}
        for group in self.groups(video, text):
            share = len(group.video) / len(video)
            for name, value in loss(group).items():
                means[name] = means[name] + share * value if name in means else share * value
        return means

    def totals(self, values_B: Tensor) -> list[Tensor]:
        """For each group that this process has queries in, the sum of a value over all pairs of that group.

        Every process must call it. No gradient flows through the sums.

        Args:
            values_B: [B], one number of each pair of this process.
        """
        values_P = values_B.detach()
        if self.processes > 1:
            values_P = torch.cat(_all_gather(values_P))
        size, end = self.group or len(self.video), self.first + len(values_B)
        return [values_P[start : start + size].sum() for start in range(self.first // size * size, end, size)]

    def left_out(self) -> Tensor:
        """How many candidates of a query are no negatives of it, averaged over the process's queries."""
        assert self.same is not None
        group = self.group or self.same.shape[1]
        place_B = torch.arange(self.first, self.first + len(self.same), device=self.same.device) // group
        place_P = torch.arange(self.same.shape[1], device=self.same.device) // group
        return (self.same & (place_B[:, None] == place_P)).sum() / len(self.same)


def candidates(
    video: Encoded, text: Encoded, negatives: Literal["global"] | int = "global", *, keys: Sequence[Tensor] = ()
) -> Candidates:
    """The candidates of a paired batch, from all processes of the run.

    Args:
        video, text: B items each, paired row by row; B is the same on every process.
        negatives: ``global``, all pairs of all processes; a number, groups of so many. With groups a process holds
            whole, nothing travels.
        keys: [B] int64 each, such as the number of the clip. Pairs that agree in one of them are no negatives of each
            other.

    Raises:
        InputError: the two sides are not paired, batch sizes differ between processes, or the pairs of all processes
            do not divide into such groups.
    """
    alone = this_batch(video, text)
    group = None if negatives == "global" else negatives
    joined = dist.is_available() and dist.is_initialized()
    processes, rank = (dist.get_world_size(), dist.get_rank()) if joined else (1, 0)
    if group is not None and (group < 1 or len(video) * processes % group):
        raise InputError(
            f"{len(video) * processes} pairs do not divide into groups of {group}",
            "loss.negatives.group must divide what train.batch_size / train.accumulate is",
        )
    own_keys = torch.stack(list(keys), 1) if keys else None
    if processes == 1 or (group is not None and len(video) % group == 0):
        same = None if own_keys is None else _same(own_keys, own_keys, 0)
        return replace(alone, group=group, same=same)
    first = rank * len(video)
    all_video, all_text, even = _gather(video, text)
    same = None if own_keys is None else _same(own_keys, torch.cat(_all_gather(own_keys)), first)
    return Candidates(all_video, all_text, first, processes, group, same, even)


def this_batch(video: Encoded, text: Encoded) -> Candidates:
    """The candidates of a paired batch that are in it, whatever other processes there are.

    Raises:
        InputError: the two sides are not paired.
    """
    if len(video) != len(text):
        raise InputError(f"{len(video)} videos against {len(text)} captions", "a training batch pairs them row by row")
    return Candidates(video, text)


def _take(encoded: Encoded, rows: slice) -> Encoded:
    """The items of a slice; the very same object where that is all of them."""
    return encoded if rows == slice(0, len(encoded)) else encoded[rows]


def _same(keys_BK: Tensor, keys_PK: Tensor, first: int) -> Tensor:
    """[B, P] bool: where any key agrees, but for each pair with itself."""
    same_BP = (keys_BK[:, None] == keys_PK).any(-1)
    same_BP.diagonal(first).fill_(False)
    return same_BP


def _gather(video: Encoded, text: Encoded) -> tuple[Encoded, Encoded, bool]:
    """The items of all processes in order of rank, tokens padded to the widest; whether there was nothing to pad."""
    size = torch.tensor([*video.mask.shape, text.mask.shape[1]], device=video.mask.device)
    batches, regions, words = (column.tolist() for column in torch.stack(_all_gather(size)).cpu().unbind(1))
    if len(set(batches)) > 1:
        raise InputError(
            f"batches of different sizes on different processes: {batches}", "drop the last, incomplete batch"
        )
    even = len(set(regions)) == len(set(words)) == 1
    return _gather_side(video.pad_to(max(regions))), _gather_side(text.pad_to(max(words))), even


def _gather_side(encoded: Encoded) -> Encoded:
    # Booleans travel as bytes: not every backend moves bool.
    gather: Callable[[Tensor], Tensor] = _GatherRows.apply  # untyped before torch 2.14
    mask = torch.cat(_all_gather(encoded.mask.byte())).bool()
    return Encoded(gather(encoded.pooled), gather(encoded.tokens), mask)


def _all_gather(rows: Tensor) -> list[Tensor]:
    """Every process's tensor, all of one shape, by rank."""
    parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, rows.contiguous())
    return parts


class _GatherRows(torch.autograd.Function):
    """Joins [B, ...] of all processes to [P, ...]; backward sums what every process sends to these rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.dtype = rows.dtype
        return torch.cat(_all_gather(rows))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        # Summed in float32 at least: halves would be rounded once more for every process. Always a copy, since
        # autograd may hand the same tensor to others.
        wide = torch.promote_types(ctx.dtype, torch.float32)
        grad = grads[0].to(wide, copy=True, memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        return grad.chunk(dist.get_world_size())[dist.get_rank()].to(ctx.dtype)
