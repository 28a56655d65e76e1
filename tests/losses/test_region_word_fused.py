"""The fused region-word alignment: in Triton's interpreter, compiled for Hopper without a GPU, and on a GPU."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from regionvlp.errors import ConfigError
from regionvlp.losses import REGION_WORD_PRESETS, RegionWordSettings, region_word_loss
from regionvlp.losses.region_word.alignment import region_word_scores
from regionvlp.losses.region_word.fused import Plan, fused_is_better, fused_obstacle, fused_scores
from regionvlp.losses.region_word.lean import lean_scores
from regionvlp.models import Encoded

not_interpreting = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="Triton is told to interpret")
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
HOPPER_SHARED_MEMORY = 227 * 1024
# Regions, words and width: pre-training, the public width of captions, fine-tuning on 8 frames, patches as regions.
SHAPES = [
    (30, 20, 256),
    (30, 100, 256),
    (240, 32, 256),
    (240, 100, 256),
    (784, 32, 256),
    (784, 128, 256),
    (60, 60, 256),
    (50, 40, 512),
    (240, 32, 512),
]


def side(items: int, tokens: int, seed: int, device: str = "cpu", width: int = 256) -> Encoded:
    """Tokens as an encoder makes them: something in common, of many lengths, a fifth of them padding."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(items, tokens, width, generator=generator) + torch.randn(width, generator=generator)
    vectors *= torch.rand(items, tokens, 1, generator=generator) + 0.5
    mask = torch.rand(items, tokens, generator=generator) < 0.8
    mask[:, 0] = True
    vectors = vectors.to(device, torch.bfloat16 if device == "cuda" else torch.float32)
    return Encoded(vectors[:, 0], vectors.requires_grad_(), mask.to(device))


@needs_triton
@pytest.mark.parametrize("which", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_the_kernels_in_tritons_interpreter(which: str) -> None:
    """Triton has to know before it is imported, hence the other process."""
    file = Path(__file__).with_name("interpreted_region_word.py")
    command = [sys.executable, "-W", "ignore", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", which, str(file)]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


@not_interpreting
def test_elsewhere_the_lean_form_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    video, text = side(2, 5, seed=1), side(2, 3, seed=2)
    settings = REGION_WORD_PRESETS["valid"]
    assert not fused_is_better(video, text, settings)
    obstacle = fused_obstacle(video, text)
    assert obstacle is not None
    lean = lean_scores(video, text, settings)
    assert torch.equal(region_word_scores(video=video, text=text, settings=settings).v2l, lean.v2l)
    monkeypatch.setenv("REGIONVLP_RWA", "fused")
    with pytest.raises(ConfigError, match=re.escape(obstacle)):
        region_word_scores(video=video, text=text, settings=settings)
    monkeypatch.setenv("REGIONVLP_RWA", "quick")
    with pytest.raises(ConfigError, match="quick"):
        region_word_scores(video=video, text=text, settings=settings)


def test_either_switch_of_torch_shortens_float32() -> None:
    """After the newer one torch refuses to answer by the older; in a process of its own, since that stays."""
    asked = (
        "from regionvlp.losses.region_word.fused import _may_shorten as asked; import torch; print(asked(), end=' ')"
    )
    newer = "torch.backends.cuda.matmul.fp32_precision = 'tf32'; print(asked())"
    if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        pytest.skip("this torch has one switch")
    done = subprocess.run([sys.executable, "-P", "-c", f"{asked}; {newer}"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def compiled(
    kernel: str, shape: tuple[int, int, int], settings: RegionWordSettings, folder: Path, asking: str = "both"
) -> dict[str, Any]:
    """What a kernel takes of a Hopper multiprocessor: bytes of shared memory, registers and stack of a thread."""
    import triton
    from triton.backends.compiler import GPUTarget

    from regionvlp.losses.region_word import kernels as region_word_kernels

    function = getattr(region_word_kernels, kernel)
    plan = Plan.of(max(shape[:2]), min(shape[:2]), shape[2])
    constants = {
        "GROUP": plan.group, "ROWS": plan.rows, "COLS": plan.cols, "WIDTH": plan.depth, "BLOCKS": plan.blocks,
        "GRAM": plan.gram, "PUBLIC": settings.form == "public", "REFINE": settings.refine,
        "ROWS_ASK": asking != "cols", "COLS_ASK": asking != "rows",
    }  # fmt: skip
    types = dict.fromkeys(function.arg_names, "*fp32") | dict.fromkeys(constants, "constexpr") | {"sharpness": "fp32"}
    types |= dict.fromkeys(("x", "y", "x_gram", "y_gram"), "*fp16")
    types |= dict.fromkeys(("items", "rows", "octets", "width"), "i32")
    if kernel == "gradients_kernel":
        types |= dict.fromkeys(("dots", "cols_read", "rows_read", "attended"), "*bf16")
    aligned = ("x", "y", "y_gram", "dots", "cols_read", "rows_read", "attended", "width")
    source = triton.compiler.ASTSource(
        fn=function,
        signature=types,
        constexprs={(function.arg_names.index(name),): value for name, value in constants.items()},
        attrs={(i,): [["tt.divisibility", 16]] for i, name in enumerate(function.arg_names) if name in aligned},
    )
    options = {"num_warps": plan.warps, "num_stages": plan.stages}
    binary = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    usage = {"shared": binary.metadata.shared}
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if tool.exists():
        file = folder / "kernel.cubin"
        file.write_bytes(binary.asm["cubin"])
        found = subprocess.run([tool, "-res-usage", file], capture_output=True, text=True, check=True).stdout
        usage |= {name.lower(): int(value) for name, value in re.findall(r"(REG|STACK):(\d+)", found)}
    return usage


@needs_triton
@not_interpreting
@pytest.mark.parametrize("kernel", ["scores_kernel", "gradients_kernel"])
@pytest.mark.parametrize("name", [pytest.param("paper", marks=pytest.mark.slow), "valid"])
@pytest.mark.parametrize(
    "shape",
    [pytest.param(shape, marks=() if shape == (30, 20, 256) else pytest.mark.slow) for shape in SHAPES],
    ids=str,
)
def test_the_kernels_compile_for_hopper_and_fit(
    kernel: str, name: str, shape: tuple[int, int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    usage = compiled(kernel, shape, REGION_WORD_PRESETS[name], tmp_path)
    planned = Plan.of(max(shape[:2]), min(shape[:2]), shape[2]).shared_memory
    assert usage["shared"] <= planned <= HOPPER_SHARED_MEMORY
    # A tile's worth of spilt registers is paid for in the first-level cache; more says that the plan is wrong.
    assert usage.get("stack", 0) <= 2048


@needs_triton
@not_interpreting
@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["scores_kernel", "gradients_kernel"])
@pytest.mark.parametrize("shape", [(30, 20, 256), (784, 32, 256)], ids=str)
@pytest.mark.parametrize("asking", ["rows", "cols"])
def test_they_compile_for_one_direction_too(
    kernel: str, shape: tuple[int, int, int], asking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the paper's losses need where negatives come from other processes."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    assert compiled(kernel, shape, REGION_WORD_PRESETS["paper"], tmp_path, asking)["shared"] <= HOPPER_SHARED_MEMORY


@pytest.mark.gpu
@pytest.mark.parametrize("name", REGION_WORD_PRESETS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_on_a_gpu_scores_and_gradients_are_those_of_the_lean_form(name: str, shape: tuple[int, int, int]) -> None:
    regions, words, width = shape
    video, text = side(24, regions, 1, "cuda", width), side(40, words, 2, "cuda", width)
    assert fused_is_better(video, text, REGION_WORD_PRESETS[name]), fused_obstacle(video, text)
    probe = torch.randn(2, 24, 40, generator=torch.Generator().manual_seed(3)).cuda()
    found, expected = [], []
    for results, form, dtype in ((found, fused_scores, torch.bfloat16), (expected, lean_scores, torch.float64)):
        scores = form(video.to(dtype), text.to(dtype), REGION_WORD_PRESETS[name])
        loss = (scores.v2l * probe[0] + scores.l2v * probe[1]).sum()
        results += [*scores, *torch.autograd.grad(loss, (video.tokens, text.tokens))]
    for ours, theirs in zip(found[:2], expected[:2], strict=True):
        torch.testing.assert_close(ours.double(), theirs.double(), rtol=0, atol=5e-4)
    for ours, theirs in zip(found[2:], expected[2:], strict=True):
        assert ours.dtype is torch.bfloat16
        assert (ours.double() - theirs.double()).norm() <= 2e-2 * theirs.double().norm()


@pytest.mark.gpu
def test_on_a_gpu_every_run_gives_the_same() -> None:
    video, text = side(64, 240, 1, "cuda"), side(64, 32, 2, "cuda")
    runs = []
    for _ in range(3):
        losses = region_word_loss(video=video, text=text, settings=REGION_WORD_PRESETS["valid"])
        runs.append(torch.autograd.grad(sum(losses.values()), (video.tokens, text.tokens)))
    for run in runs[1:]:
        assert all(torch.equal(grad, first) for grad, first in zip(run, runs[0], strict=True))


@pytest.mark.gpu
def test_on_a_gpu_a_thousand_videos_and_captions_take_less_than_a_gigabyte() -> None:
    video, text = side(1024, 240, 1, "cuda"), side(1024, 32, 2, "cuda")
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    losses = region_word_loss(video=video, text=text, settings=REGION_WORD_PRESETS["valid"])
    sum(losses.values()).backward()
    assert torch.cuda.max_memory_allocated() - before < 1 << 30
    assert video.tokens.grad.isfinite().all()
