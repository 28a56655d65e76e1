"""What region-word alignment costs, and what the public form of it does.

In: a device. Out: rows and ratios. Tokens are random and all of them count, since padding would be cut away. Everything
is measured in a process of its own: seconds of forward and backward of score and loss, and the highest memory in use
less what was in use before, the inputs among it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import platform
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from rich.console import Console
from torch import Tensor

from regionvlp.errors import NothingDoneError
from regionvlp.losses import REGION_WORD_PRESETS, RegionWordScores, RegionWordSettings, region_word_similarity
from regionvlp.losses.region_word.alignment import kl_row
from regionvlp.losses.region_word.fused import fused_scores
from regionvlp.losses.region_word.lean import lean_scores
from regionvlp.models import Encoded
from regionvlp.pipelines.bench.rwa_baseline import einsum_scores, expanded_scores
from regionvlp.video.pool import usable_cpus

T = TypeVar("T")
Form = Literal["expanded", "einsum", "lean", "fused"]
FORMS: dict[Form, Callable[[Encoded, Encoded, RegionWordSettings], RegionWordScores]] = {
    "expanded": expanded_scores,
    "einsum": einsum_scores,
    "lean": lean_scores,
    "fused": fused_scores,
}
ROUNDS = 4  # fewer where one of them takes long
SETTINGS = REGION_WORD_PRESETS["public"]


@dataclass(frozen=True)
class Size:
    """Videos (and as many captions), regions of a video, words of a caption, width of a token."""

    pairs: int
    regions: int
    words: int
    width: int = 256

    def flops(self) -> int:
        """Of the matrix products of one forward and backward pass, written out in full; making Gram matrices left out.

        The cosines are made twice and pulled back to either side; products with Gram matrices happen once forward
        and twice backward, for regions and for words, where half of what is symmetric could be spared.
        """
        cosines = self.pairs**2 * self.regions * self.words
        return 2 * cosines * (4 * self.width + 3 * (min(self.regions, self.width) + min(self.words, self.width)))


@dataclass(frozen=True)
class Cost:
    """Seconds (the best round's) and bytes beyond the inputs."""

    seconds: float
    memory: float


class RegionWordBench:
    """One run: fills ``rows`` and ``ratios``, and prints each as it is known."""

    def __init__(self, device: torch.device, console: Console) -> None:
        self.device, self.console = device, console
        self.rows: list[dict[str, Any]] = []
        self.ratios: dict[str, float] = {}
        cuda = device.type == "cuda"
        processor = platform.processor() or platform.machine()
        self.name = torch.cuda.get_device_name(device) if cuda else f"{processor} CPU, 1 thread"
        console.print(self.name)

    def run(self, full: bool) -> None:
        if self.device.type == "cuda":
            self.gpu(Size(128, 240, 32), Size(1024, 240, 32), Size(1024, 30, 20), Size(1000, 240, 32))
        else:
            self.cpu(Size(64, 240, 32), Size(128, 30, 20), Size(1000 if full else 250, 240, 32))

    def run_quick(self) -> None:
        if self.device.type == "cuda":
            self.gpu(Size(16, 240, 32), Size(64, 240, 32), Size(64, 30, 20), Size(64, 240, 32))
        else:
            self.cpu(Size(8, 60, 16), Size(16, 30, 10), Size(32, 60, 16))

    def cpu(self, fine_tuning: Size, pretraining: Size, gallery: Size) -> None:
        self.say(fine_tuning, "forward and backward")
        expanded, einsum, lean = (self.cost(form, fine_tuning) for form in ("expanded", "einsum", "lean"))
        self.compare("lean", lean, "", expanded)
        self.compare("lean", lean, "_einsum", einsum)
        self.say(pretraining, "forward and backward")
        einsum, lean = (self.cost(form, pretraining, "_pretrain") for form in ("einsum", "lean"))
        self.compare("lean", lean, "_pretrain_einsum", einsum)
        self.rank(gallery)

    def gpu(self, fine_tuning: Size, large: Size, pretraining: Size, gallery: Size) -> None:
        self.say(fine_tuning, "forward and backward")
        expanded, lean, fused = (self.cost(form, fine_tuning) for form in ("expanded", "lean", "fused"))
        self.compare("lean", lean, "", expanded)
        self.compare("fused", fused, "", expanded)
        self.compare("fused", fused, "_lean", lean)
        self.say(large, "forward and backward")
        fused = self.cost("fused", large, "_large")
        peak = _apart(partial(_peak_flops, self.device))
        self.row("peak", peak / 1e12, "TFLOP/s")
        self.row("share_of_peak", 100 * large.flops() / fused.seconds / peak, "%")
        self.say(pretraining, "forward and backward")
        self.cost("fused", pretraining, "_pretrain")
        self.rank(gallery)

    def cost(self, form: Form, size: Size, suffix: str = "") -> Cost:
        cost = _apart(partial(_cost, form, size, self.device))
        self.row(f"{form}{suffix}", cost.seconds, "s")
        self.row(f"{form}{suffix}_peak_memory", cost.memory / 1e6, "MB")
        return cost

    def compare(self, ours: str, cost: Cost, against: str, baseline: Cost) -> None:
        self.ratio(f"{ours}_speed{against}", baseline.seconds / cost.seconds)
        self.ratio(f"{ours}_memory{against}", baseline.memory / cost.memory)

    def rank(self, size: Size) -> None:
        """Every caption against every video, no gradient asked for."""
        self.say(size, "forward alone")
        cost = _apart(partial(_rank, size, self.device))
        self.row(f"ranking_{size.pairs}", cost.seconds, "s")
        self.row("ranking_peak_memory", cost.memory / 1e6, "MB")
        if self.device.type == "cpu":
            self.row("ranking_threads", usable_cpus(), "threads")

    def say(self, size: Size, passes: str) -> None:
        sides = f"{size.pairs} videos of {size.regions} regions, {size.pairs} captions of {size.words} words"
        self.console.print(f"{sides}, width {size.width}; {passes}")

    def row(self, name: str, value: float, unit: str) -> None:
        self.rows.append({"name": name, "value": float(value), "unit": unit})
        self.console.print(f"  {name:32} {value:>12,.4g} {unit}")

    def ratio(self, name: str, value: float) -> None:
        self.ratios[name] = value
        self.console.print(f"  {name:32} {value:>12,.2f} times")


def _apart(work: Callable[[], T]) -> T:
    """Runs ``work`` in a fresh process, whose memory nobody else has touched."""
    try:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            return process.submit(work).result()
    except BrokenProcessPool:
        hint = "probably for want of memory (the expanded form takes 10 GB); --quick needs little"
        raise NothingDoneError("a measurement was killed", hint) from None


def _cost(form: Form, size: Size, device: torch.device) -> Cost:
    torch.set_num_threads(1)
    scores = FORMS[form]

    def step(video: Encoded, text: Encoded) -> None:
        found = scores(video, text, SETTINGS)
        torch.autograd.backward(kl_row(found.v2l + found.l2v, SETTINGS.temperature, first=0))
        video.tokens.grad = text.tokens.grad = None

    step(*_sides(_few(size, device), device))
    video, text = _sides(size, device)
    watch = _Watch(device)
    seconds = watch.seconds(lambda: step(video, text))
    memory = watch.memory()
    while watch.rounds < ROUNDS and watch.elapsed() < 10:
        seconds = min(seconds, watch.seconds(lambda: step(video, text)))
    return Cost(seconds, memory)


def _few(size: Size, device: torch.device) -> Size:
    """A small batch to begin with: libraries make their buffers, a GPU compiles the kernels of a large batch."""
    return replace(size, pairs=2 if device.type == "cpu" else 32)


def _rank(size: Size, device: torch.device) -> Cost:
    torch.set_num_threads(usable_cpus())
    with torch.inference_mode():
        video, text = _sides(_few(size, device), device)
        region_word_similarity(video=video, text=text, settings=SETTINGS)
        video, text = _sides(size, device)
        watch = _Watch(device)
        seconds = watch.seconds(lambda: region_word_similarity(video=video, text=text, settings=SETTINGS))
        return Cost(seconds, watch.memory())


def _peak_flops(device: torch.device) -> float:
    """FLOP/s of a large bfloat16 matrix product, the best of 20."""
    side = 8192
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    watch = _Watch(device)
    return 2 * side**3 / min(watch.seconds(lambda: a @ a) for _ in range(20))


def _sides(size: Size, device: torch.device) -> tuple[Encoded, Encoded]:
    """Random tokens as a training step meets them: bfloat16 on a GPU, float32 on a CPU; all of them count."""
    generator = torch.Generator().manual_seed(0)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32

    def side(count: int) -> Encoded:
        tokens = torch.randn(size.pairs, count, size.width, generator=generator).to(device, dtype)
        mask = torch.ones(size.pairs, count, dtype=torch.bool, device=device)
        return Encoded(tokens[:, 0], tokens.requires_grad_(not torch.is_inference_mode_enabled()), mask)

    return side(size.regions), side(size.words)


class _Watch:
    """Time, and the highest memory since it was made beyond what was in use then."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._before = torch.cuda.memory_allocated(device)
        else:
            _forget_peak()
            self._before = _resident("VmRSS")
        self._started = time.perf_counter()
        self.rounds = 0

    def seconds(self, work: Callable[[], Tensor | None]) -> float:
        self._wait()
        started = time.perf_counter()
        work()
        self._wait()
        self.rounds += 1
        return time.perf_counter() - started

    def elapsed(self) -> float:
        return time.perf_counter() - self._started

    def memory(self) -> float:
        """Bytes; never less than a page, so that ratios exist where freed memory was enough."""
        highest = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else _resident("VmHWM")
        return max(highest - self._before, resource.getpagesize())

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _forget_peak() -> None:
    """From here on ``VmHWM`` is the highest from here on; where that is refused it stays the process's highest."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _resident(field: str) -> int:
    """Bytes of this process's memory, now (``VmRSS``) or at its highest (``VmHWM``; all that is known off Linux)."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lines = status.read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))
