"""The scores of region-word alignment by Triton kernels: what exists per pair of tokens stays on the chip.

The forward writes [V, T] scores and nothing else. The backward makes every pair anew and works through the pairs a
block at a time, so that its working memory is bounded whatever the batch (what the kernel writes about a block, and
why, is explained in :mod:`regionvlp.losses.region_word.kernels`). Scores and gradients are the same at every run.

Tokens of half precision are not multiplied as they come: raw tokens are made unit vectors in float32 and handed to the
kernels as float16. The components of a unit vector need none of bfloat16's range and have use for float16's three
more bits (cosines to about 1e-5).

Shape letters: V items of N tokens on the wider side (regions, as a rule: rows), T items of M tokens on the narrower
(words: columns), D width.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import cache, partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from regionvlp.losses.region_word.lean import lean_scores
from regionvlp.losses.region_word.settings import RegionWordScores, RegionWordSettings
from regionvlp.losses.token_pairs import full_precision, refuse_second_derivative
from regionvlp.models.encoded import Encoded

_log = logging.getLogger(__name__)

MOST_ROWS = 1024
MOST_COLS = 128
MOST_WIDTH = 512  # beyond 256 with at most 64 columns, or shared memory does not do

_EPSILON = 1e-8  # what the public code adds to every norm
_ZERO = 1e-8  # a token this short has no direction
_WORKSPACE = 256 << 20  # bytes that the backward works in
_AT_ONCE = 1 << 24  # numbers that are held in float32 at a time while tokens are made units


def fused_scores(
    video: Encoded, text: Encoded, settings: RegionWordSettings, *, v2l: bool = True, l2v: bool = True
) -> RegionWordScores:
    """Both scores of every pair, [videos, texts] float32, differentiable once in the tokens of both sides.

    Args:
        video, text: of one width, neither empty, all that is read of them finite; :func:`fused_obstacle` is None.
        v2l, l2v: False for a score that nobody asks for; it is then left as zeros.
    """
    if text.tokens.shape[1] > video.tokens.shape[1]:
        mirrored = fused_scores(text, video, settings, v2l=l2v, l2v=v2l)
        return RegionWordScores(mirrored.l2v.T, mirrored.v2l.T)
    call = _Call(settings, Plan.of(*_sizes(video, text)), rows_ask=v2l, cols_ask=l2v)
    apply: Callable[..., tuple[Tensor, Tensor]] = _Fused.apply  # untyped before torch 2.14
    return RegionWordScores(*apply(video.tokens, video.mask, text.tokens, text.mask, call))


def fused_obstacle(video: Encoded, text: Encoded) -> str | None:
    """Why :func:`fused_scores` cannot take these tokens; None if it can."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if video.tokens.device.type != "cuda" and not _interpreting():
        return f"the tokens are on the {video.tokens.device.type}, not on a CUDA device"
    # Triton's interpreter is for a CPU, where products of bfloat16 are not summed in float32.
    possible = {torch.float16, torch.float32} | (set() if _interpreting() else {torch.bfloat16})
    if {video.tokens.dtype, text.tokens.dtype} - possible:
        return f"tokens of dtype {video.tokens.dtype} and {text.tokens.dtype}"
    wide, narrow = (video, text) if video.tokens.shape[1] >= text.tokens.shape[1] else (text, video)
    rows, cols, width = _sizes(wide, narrow)
    if not cols or rows > MOST_ROWS or cols > MOST_COLS or not 0 < width <= MOST_WIDTH:
        most = f"{MOST_ROWS} tokens against {MOST_COLS}, width {MOST_WIDTH}"
        return f"{rows} tokens against {cols} of width {width}, where none or more than {most} cannot be"
    if video.tokens.device.type == "cuda":
        if torch.cuda.get_device_capability(video.tokens.device) < (8, 0):
            return "the device is older than compute capability 8.0"
        needed, offered = Plan.of(rows, cols, width).shared_memory, _shared_memory(video.tokens.device)
        if needed > offered:
            return f"the kernel needs {needed} bytes of shared memory, the device has {offered} per block"
    return None


def fused_is_better(
    video: Encoded, text: Encoded, settings: RegionWordSettings, *, v2l: bool = True, l2v: bool = True
) -> bool:
    """Whether to take the fused form where nobody said which.

    Tokens in half precision: always. Float32 tokens: where torch may shorten float32 products too. In either case
    only if the kernels, tried once per device and kind, can be built there and agree with the lean form.
    """
    if fused_obstacle(video, text) is not None:
        return False
    halves = {video.tokens.dtype, text.tokens.dtype} <= {torch.bfloat16, torch.float16}
    if not halves and not _may_shorten():
        return False
    sizes = video.tokens.shape[1], text.tokens.shape[1], video.tokens.shape[2]
    kind = settings.form, settings.refine, v2l, l2v
    trained = torch.is_grad_enabled() and (video.tokens.requires_grad or text.tokens.requires_grad)
    # Tokens share a kernel with those of the next power of two; where an item takes several tiles, one like theirs.
    rounded = tuple(max(16, 1 << (size - 1).bit_length()) for size in sizes)
    return _passes(video.tokens.device, video.tokens.dtype, rounded, kind, trained)


@cache
def _passes(
    device: torch.device,
    dtype: torch.dtype,
    sizes: tuple[int, int, int],
    kind: tuple[Literal["paper", "public"], bool, bool, bool],
    trained: bool,
) -> bool:
    """Tries the kernels on a few random tokens; says so where they fail, once."""
    form, refine, v2l, l2v = kind
    settings = RegionWordSettings(form=form, refine=refine)
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode(False), torch.set_grad_enabled(trained):

        def side(tokens: int) -> Encoded:
            drawn = torch.randn(3, tokens, sizes[2], generator=generator) + torch.randn(sizes[2], generator=generator)
            drawn = drawn.to(device, dtype).requires_grad_(trained)
            return Encoded(drawn[:, 0], drawn, torch.ones(3, tokens, dtype=torch.bool, device=device))

        video, text = side(sizes[0]), side(sizes[1])
        results: list[list[Tensor]] = []
        try:
            for scores in (fused_scores, lean_scores):
                found = scores(video, text, settings, v2l=v2l, l2v=l2v)
                result = list(found)
                if trained:
                    loss = found.v2l.diagonal().sum() + found.l2v.diagonal().sum()
                    result += torch.autograd.grad(loss, (video.tokens, text.tokens))
                results.append([tensor.detach().double() for tensor in result])
            errors = [(a - b).norm() / b.norm().clamp_min(1e-6) for a, b in zip(*results, strict=True)]
            wrong = float(torch.stack(errors).max())  # NaN if any is
        except Exception as error:  # no compiler, too old a driver, too small a device: Triton has a name for each
            _log.warning("region-word alignment takes the lean form, the fused one fails here: %s", error)
            return False
    if not wrong < 0.05:
        _log.warning("region-word alignment takes the lean form, the fused one is off by %.2g here", wrong)
        return False
    return True


@dataclass(frozen=True)
class Plan:
    """How the pairs are laid over the device.

    Attributes:
        rows, cols, depth: the tile [rows, columns] and the width of tokens, powers of two.
        blocks: tiles that an item's rows fill; with one, the item stays in shared memory.
        gram: lengths of what columns attend to come through the Gram matrix of the rows, not by summing the attended
            vectors: N products per weight instead of D, but the matrix and its gradient must be at hand.
        group: column items per program.
        warps, stages: of Triton.
    """

    rows: int
    cols: int
    depth: int
    blocks: int
    gram: bool
    group: int
    warps: int
    stages: int = 2

    @staticmethod
    def of(rows: int, cols: int, width: int) -> Plan:
        """The plan for items of so many tokens on the wider and on the narrower side."""
        whole, cols, depth = (max(16, 1 << (size - 1).bit_length()) for size in (rows, cols, width))
        if whole * cols <= 8192 and (whole + 2 * cols) * depth <= 81920:
            tile, blocks = whole, 1
        else:
            tile = 64 if cols < 128 and depth <= 256 else 32
            blocks = math.ceil(rows / tile)
        small = blocks == 1 and tile * cols <= 2048
        gram = blocks == 1 and tile <= 64 and tile < depth
        return Plan(tile, cols, depth, blocks, gram, group=32 if small else 16, warps=4 if small else 8)

    @property
    def shared_memory(self) -> int:
        """Bytes of shared memory that the larger kernel takes, roughly and rather too many; tests compile it."""
        wide = self.rows * self.depth * (1 if self.blocks == 1 else self.stages)
        narrow = self.cols * self.depth * (self.stages if self.blocks == 1 else 1)
        grams = self.cols**2 + self.gram * (self.rows**2 + 2 * self.rows * self.cols)
        attended = 0 if self.gram else self.cols * self.depth
        return 2 * (wide + narrow + grams + attended + 2 * self.rows * self.cols)


@dataclass(frozen=True)
class _Call:
    """What is asked for, and how it is laid over the device."""

    settings: RegionWordSettings
    plan: Plan
    rows_ask: bool
    cols_ask: bool

    @property
    def paper(self) -> bool:
        return self.settings.form == "paper"

    @property
    def constants(self) -> dict[str, Any]:
        """Of both kernels, by name."""
        plan = self.plan
        return {
            "GROUP": plan.group,
            "ROWS": plan.rows, "COLS": plan.cols, "WIDTH": plan.depth, "BLOCKS": plan.blocks, "GRAM": plan.gram,
            "PUBLIC": not self.paper, "REFINE": self.settings.refine,
            "ROWS_ASK": self.rows_ask, "COLS_ASK": self.cols_ask,
            "num_warps": plan.warps, "num_stages": plan.stages,
        }  # fmt: skip

    def grid(self, wide: _Side, narrow: _Side) -> tuple[int]:
        return (len(wide) * math.ceil(len(narrow) / self.plan.group),)

    def sides(self, rows: Tensor, row_mask: Tensor, cols: Tensor, col_mask: Tensor) -> tuple[_Side, _Side]:
        """Both as the kernels read them; columns padded so that matrix products over them find aligned rows."""
        wide = _side(rows, row_mask, self, gram=self.plan.gram and self.cols_ask)
        return wide, _side(cols, col_mask, self, gram=self.rows_ask, extra=-cols.shape[1] % 8)

    def inputs(self, wide: _Side, narrow: _Side) -> tuple[Tensor, ...]:
        """The first arguments of both kernels."""
        return (
            wide.unit, narrow.unit, wide.notes, narrow.notes, wide.count, narrow.count, wide.gram, narrow.gram
        )  # fmt: skip

    def sizes(self, wide: _Side, narrow: _Side) -> tuple[float, ...]:
        """The last arguments of both kernels."""
        return (
            len(narrow), wide.width, narrow.width // 8, wide.unit.shape[2], 1 / self.settings.temperature
        )  # fmt: skip

    def read(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """The tokens, zero where nobody may look."""
        return tokens if self.settings.reads_padding else tokens.masked_fill(~mask[..., None], 0)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, row_mask: Tensor, cols: Tensor, col_mask: Tensor, call: _Call
    ) -> tuple[Tensor, Tensor]:
        from regionvlp.losses.region_word.kernels import scores_kernel

        ctx.save_for_backward(rows, row_mask, cols, col_mask)
        ctx.call = call
        with full_precision(rows), _on(rows.device):
            wide, narrow = call.sides(rows, row_mask, cols, col_mask)
            sums = torch.zeros(2, len(wide), len(narrow), dtype=torch.float32, device=rows.device)
            scores_kernel[call.grid(wide, narrow)](
                *call.inputs(wide, narrow), *sums, *call.sizes(wide, narrow), **call.constants
            )
            return sums[0] / wide.askers[:, None], sums[1] / narrow.askers

    @staticmethod
    def backward(ctx: Any, rows_grad: Tensor, cols_grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        rows, row_mask, cols, col_mask = ctx.saved_tensors
        call: _Call = ctx.call
        with full_precision(rows), _on(rows.device):
            wide, narrow = call.sides(rows, row_mask, cols, col_mask)
            grads = rows_grad / wide.askers[:, None], cols_grad / narrow.askers
            # Gradients of bfloat16 tokens are summed from bfloat16 products, all others from float32 ones.
            dtype = torch.bfloat16 if rows.dtype == cols.dtype == torch.bfloat16 else torch.float32
            raw_cols = functional.pad(call.read(cols, col_mask).to(dtype), (0, 0, 0, narrow.width - cols.shape[1]))
            col_sums = _Sums.zeros(raw_cols, squares=True)
            d_rows = torch.empty_like(rows)
            for V, T_blocks in _blocks(wide, narrow, dtype.itemsize):
                raw_rows = call.read(rows[V], row_mask[V]).to(dtype)
                row_sums = _Sums.zeros(raw_rows, squares=call.plan.gram)
                for T in T_blocks:
                    block = _Block.of(wide[V], narrow[T], call, dtype, grads[0][V, T], grads[1][V, T])
                    block.add_to_rows(row_sums, raw_cols[T])
                    block.add_to_cols(col_sums[T], raw_rows)
                d_rows[V] = row_sums.derivative(raw_rows, wide[V])
            d_cols = col_sums.derivative(raw_cols, narrow)
            return d_rows, None, d_cols[:, : cols.shape[1]].to(cols.dtype), None, None


@dataclass(frozen=True)
class _Sums:
    """Of one side, summed over all pairs so far, in float32.

    Attributes:
        raw: [B, N, D], the derivative by raw tokens that came through dot products.
        squares: [B, N, N], what times the unit tokens is to be subtracted from that by unit tokens.
        loud: [B, N], the derivative by the loudness times loudness.
    """

    raw: Tensor
    squares: Tensor | None
    loud: Tensor

    @staticmethod
    def zeros(tokens: Tensor, *, squares: bool) -> _Sums:
        B, N, _ = tokens.shape
        zeros = partial(torch.zeros, dtype=torch.float32, device=tokens.device)
        return _Sums(zeros(tokens.shape), zeros(B, N, N) if squares else None, zeros(B, N))

    def __getitem__(self, items: slice) -> _Sums:
        """Of some items; what is added there is added here."""
        return _Sums(self.raw[items], None if self.squares is None else self.squares[items], self.loud[items])

    def derivative(self, raw: Tensor, side: _Side) -> Tensor:
        """[B, N, D], by the raw tokens.

        With u = x / (|x| + e) it is du/dx = (1 - x x' / (|x| (|x| + e))) / (|x| + e), and d|x|/dx = x / |x|.
        """
        whole = self.raw
        if self.squares is not None:
            whole = whole - side.inverse[..., None] * torch.bmm(self.squares, side.unit.float())
        length = side.length.where(side.length > _ZERO, torch.inf)
        along = (raw * whole).sum(-1) * side.inverse / length - self.loud / length.square()
        return whole - raw * along[..., None]


@dataclass(frozen=True)
class _Block:
    """What the gradient kernel writes about a block of pairs, each by the name that it has there."""

    call: _Call
    dots: Tensor
    cols_read: Tensor
    rows_read: Tensor
    attended: Tensor
    rows_square: Tensor
    cols_loud: Tensor
    rows_loud: Tensor

    @staticmethod
    def of(wide: _Side, narrow: _Side, call: _Call, dtype: torch.dtype, rows_grad: Tensor, cols_grad: Tensor) -> _Block:
        from regionvlp.losses.region_word.kernels import gradients_kernel

        def empty(wanted: bool, dtype: torch.dtype, *shape: int) -> Tensor:
            return torch.empty(shape if wanted else 1, dtype=dtype, device=rows_grad.device)

        V, N, T, M, D = len(wide), wide.width, len(narrow), narrow.width, wide.unit.shape[2]
        gram, summed = call.cols_ask and call.plan.gram, call.cols_ask and not call.plan.gram
        written = (
            empty(True, dtype, V, N, T, M),
            empty(call.rows_ask, dtype, V, T, M, M),
            empty(summed, dtype, V, N, T, M),
            empty(summed, dtype, V, T, M, D),
            empty(gram, torch.float32, V, math.ceil(T / call.plan.group), N, N),
            empty(call.rows_ask and call.paper, torch.float32, V, T, M),
            empty(call.cols_ask and call.paper, torch.float32, V, T, N),
        )
        gradients_kernel[call.grid(wide, narrow)](
            *call.inputs(wide, narrow), rows_grad.contiguous(), cols_grad.contiguous(), *written,
            *call.sizes(wide, narrow), **call.constants,
        )  # fmt: skip
        return _Block(call, *written)

    def add_to_rows(self, sums: _Sums, raw_cols: Tensor) -> None:
        V, N, D = sums.raw.shape
        sums.raw.add_(_product(self.dots.view(V * N, -1), raw_cols.flatten(0, 1)).view_as(sums.raw))
        if self.call.cols_ask and sums.squares is not None:
            sums.squares.add_(self.rows_square.sum(1))
        elif self.call.cols_ask:
            sums.raw.sub_(_product(self.rows_read.view(V, N, -1), self.attended.view(V, -1, D)))
        if self.call.cols_ask and self.call.paper:
            sums.loud.add_(self.rows_loud.sum(1))

    def add_to_cols(self, sums: _Sums, raw_rows: Tensor) -> None:
        V, N, _ = raw_rows.shape
        sums.raw.add_(_product(self.dots.view(V * N, -1).T, raw_rows.flatten(0, 1)).view_as(sums.raw))
        if self.call.rows_ask and sums.squares is not None:
            sums.squares.add_(self.cols_read.sum(0, dtype=torch.float32))
        if self.call.rows_ask and self.call.paper:
            sums.loud.add_(self.cols_loud.sum(0))


def _blocks(wide: _Side, narrow: _Side, itemsize: int) -> Iterator[tuple[slice, list[slice]]]:
    """The pairs in blocks that fit the workspace: for some items of the wider side, blocks of the narrower."""
    N, M, D = wide.width, narrow.width // 8, wide.unit.shape[2]
    pairs = max(1, _WORKSPACE // (itemsize * (2 * N * M + M * (M + D))))
    T = min(len(narrow), pairs)
    V = max(1, pairs // T)
    narrow_blocks = [slice(first, first + T) for first in range(0, len(narrow), T)]
    for first in range(0, len(wide), V):
        yield slice(first, first + V), narrow_blocks


@dataclass(frozen=True)
class _Side:
    """The tokens of one side as the kernels read them.

    Attributes:
        unit: [B, N, D] unit tokens.
        notes: [B, 5, N] float32, see the kernels.
        length: [B, N] float32.
        count: [B] float32, contexts that the focusing threshold counts.
        askers: [B] float32, queries that the mean is over.
        gram: [B, N, N], or [B, 1, 1] where nobody wants it.
    """

    unit: Tensor
    notes: Tensor
    length: Tensor
    count: Tensor
    askers: Tensor
    gram: Tensor

    def __len__(self) -> int:
        return len(self.unit)

    def __getitem__(self, rows: slice) -> _Side:
        return _Side(*(getattr(self, field.name)[rows] for field in fields(self)))

    @property
    def width(self) -> int:
        return self.unit.shape[1]

    @property
    def inverse(self) -> Tensor:
        """[B, N]: what raw tokens are multiplied with to be units."""
        return self.notes[:, 4]


def _side(tokens: Tensor, mask: Tensor, call: _Call, *, gram: bool, extra: int = 0) -> _Side:
    """Takes tokens [B, N, D] apart, in float32, and widens N by so many that count for nothing."""
    settings, width = call.settings, tokens.shape[1]
    unit = tokens.new_zeros(len(tokens), width + extra, tokens.shape[2], dtype=_unit_dtype(tokens.device))
    length = torch.empty(mask.shape, dtype=torch.float32, device=tokens.device)
    inverse = torch.empty_like(length)
    some = max(1, _AT_ONCE // max(1, width * tokens.shape[2]))
    for rows in (slice(first, first + some) for first in range(0, len(tokens), some)):
        wide = call.read(tokens[rows], mask[rows]).float()
        length[rows] = torch.linalg.vector_norm(wide, dim=-1)
        added = 0.0 if call.paper else _EPSILON
        inverse[rows] = torch.where(length[rows] > _ZERO, 1 / (length[rows] + added).clamp_min(_ZERO), 0)
        unit[rows, :width] = wide * inverse[rows][..., None]
    real, everything = mask, torch.ones_like(mask)
    if settings.query_mean == "padded":
        # A mask that is the same everywhere cancels in the public code's softmax: none valid means all are.
        real = mask | ~mask.any(1, keepdim=True)
    counted = real if settings.threshold_count == "valid" else everything
    asks = mask if settings.query_mean == "valid" else everything
    normed = real if settings.query_norm == "valid" else everything
    if call.paper:
        # The paper reads contexts as they are, long ones louder. Only their proportions matter, and fit any dtype.
        loud, agreement = length / length.amax(1, keepdim=True).clamp_min(_ZERO), torch.ones_like(length)
    else:
        # The public code compares the raw query with what it read, not the query divided by (length + epsilon).
        loud, agreement = torch.ones_like(length), (length + _EPSILON) / length.clamp_min(_EPSILON)
    notes = torch.stack((real.float(), loud, normed.float(), asks * agreement, inverse), 1)
    squares = torch.bmm(unit, unit.transpose(1, 2)) if gram else unit.new_zeros(len(unit), 1, 1)
    return _Side(
        unit,
        functional.pad(notes, (0, extra)),
        functional.pad(length, (0, extra)),
        counted.sum(1).float(),
        asks.sum(1).clamp_min(1).float(),
        squares,
    )


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Matrix product, or a batch of them, in float32 whatever the factors are stored in."""
    if left.dtype is torch.float32:
        return left @ right
    multiply = torch.mm if left.ndim == 2 else torch.bmm
    return multiply(left, right, out_dtype=torch.float32)


def _sizes(wide: Encoded, narrow: Encoded) -> tuple[int, int, int]:
    return wide.tokens.shape[1], narrow.tokens.shape[1], wide.tokens.shape[2]


def _on(device: torch.device) -> torch.cuda.device:
    """Triton launches on the current device, whatever its tensors are on."""
    return torch.cuda.device(device if device.type == "cuda" else -1)


def _may_shorten() -> bool:
    """Whether torch may multiply float32 in less than full precision, by either of its two switches."""
    try:
        return torch.get_float32_matmul_precision() != "highest"
    except RuntimeError:  # the newer switch was used, after which torch refuses to answer by the older one
        return str(torch.backends.cuda.matmul.fp32_precision) == "tf32"


def _unit_dtype(device: torch.device) -> torch.dtype:  # on a CPU only the interpreter runs this, in float32
    return torch.float16 if device.type == "cuda" else torch.float32


def _interpreting() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def _shared_memory(device: torch.device) -> int:
    found = torch.cuda.get_device_properties(device)  # builds for AMD do not say what a block may ask for
    return int(getattr(found, "shared_memory_per_block_optin", found.shared_memory_per_block))
