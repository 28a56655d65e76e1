"""Which stage runs in which number format, and what happens where half precision is not enough."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from regionvlp.errors import ConfigError, WeightsError
from regionvlp.extract.detector import RegionDetector, precision
from regionvlp.extract.detector.precision import StageTypes, choose_types, overflowed
from regionvlp.regions import FrameRegions

Picture = Callable[..., NDArray[np.uint8]]
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
HALF, BF16 = torch.float16, torch.bfloat16


@pytest.mark.parametrize("in_hardware", [True, False])
def test_what_each_word_means(in_hardware: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_cpu_multiplies_bf16", lambda: in_hardware)
    assert choose_types("float32", CUDA, 2048) == choose_types("float32", CPU, 2048) == StageTypes()
    assert choose_types("auto", CUDA, 2048) == choose_types("fp16", CUDA, 256) == StageTypes(HALF, HALF)
    # A bf16 backbone would move the proposals, so bf16 is for res5 alone, on any device.
    assert choose_types("bf16", CUDA, 2048) == choose_types("bf16", CPU, 256) == StageTypes(res5=BF16)
    assert choose_types("fp16", CPU, 2048) == StageTypes(res5=HALF)
    assert choose_types("auto", CPU, 2048) == (StageTypes(res5=BF16) if in_hardware else StageTypes())
    assert choose_types("auto", CPU, 256) == StageTypes()


def test_an_unknown_precision_is_named(tiny_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown detector\.precision 'int8'"):
        RegionDetector.load(str(tiny_file), device="cpu", precision="int8")


def test_only_the_costly_stages_are_rounded(tiny_file: Path, picture: Picture) -> None:
    detector = RegionDetector.load(str(tiny_file), device="cpu", precision="bf16")
    types = {name: value.dtype for name, value in detector.network.named_parameters()}
    assert {name for name, dtype in types.items() if dtype == BF16} == {n for n in types if "roi_heads.res5" in n}
    assert detector.identity()["precision"] == {"backbone": "float32", "res5": "bf16"}
    assert detector.detect([picture()])[0].features.dtype == np.float32


def test_a_half_precision_backbone_leaves_float32_behind_it(tiny: RegionDetector, picture: Picture) -> None:
    exact = tiny.detect([picture()])[0]
    tiny.network.set_types(StageTypes(HALF, HALF))
    seen = []
    tiny.network.proposal_generator.rpn_head.objectness_logits.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].dtype)
    )
    found = tiny.regions_for_boxes([picture()], [exact.boxes])[0]
    assert len(tiny.detect([picture()])[0]) > 0
    assert seen == [torch.float32]
    cosine = (found.features * exact.features).sum(1)
    cosine /= np.linalg.norm(found.features, axis=1) * np.linalg.norm(exact.features, axis=1)
    assert cosine.min() > 0.99


def test_overflow_is_said_once_and_says_what_to_do(
    native_state: Callable[..., dict[str, torch.Tensor]], tmp_path: Path, picture: Picture
) -> None:
    state = native_state()
    state["roi_heads.res5.0.conv3.norm.weight"] *= 1e7
    path = tmp_path / "large.safetensors"
    save_file(state, path)
    with pytest.raises(WeightsError, match="overflow in half precision") as caught:
        RegionDetector.load(str(path), device="cpu", precision="fp16").detect([picture()])
    assert "detector.precision=float32" in caught.value.hint
    assert len(RegionDetector.load(str(path), device="cpu", precision="float32").detect([picture()])[0]) > 0


def same(one: FrameRegions, other: FrameRegions) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("features", "boxes", "scores", "class_ids")
    )


def test_frames_that_overflow_are_done_again_in_float32(
    tiny: RegionDetector, picture: Picture, caplog: pytest.LogCaptureFixture
) -> None:
    """In any batch, and without a change to the frames beside them."""
    frames = [picture() // 2, picture() // 2 + 127, picture() // 2]
    tiny.network.set_types(StageTypes(HALF, HALF))
    half = [tiny.detect([frame])[0] for frame in frames]
    tiny.network.set_types(StageTypes())
    exact = tiny.detect([frames[1]])[0]
    tiny.network.set_types(StageTypes(HALF, HALF))

    def overflow(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        bright = (inputs[0].float().mean((1, 2, 3)) > 20) & (output.dtype == HALF)
        return torch.where(bright[:, None, None, None], torch.inf, output)

    tiny.network.backbone.register_forward_hook(overflow)
    assert same(tiny.detect(frames[:1])[0], half[0])
    assert "overflow" not in caplog.text
    found = tiny.detect(frames)
    assert [same(one, other) for one, other in zip(found, [half[0], exact, half[2]], strict=True)] == [True] * 3
    assert not same(exact, half[1])
    assert tiny.network.types == StageTypes(HALF, HALF)
    assert caplog.text.count("1 of 3 frames overflow in half precision") == 1
    tiny.detect(frames)
    tiny.regions_for_boxes([frames[1]], [exact.boxes])
    assert caplog.text.count("overflow") == 1  # said once


def test_a_frame_overflows_by_its_map_or_by_any_of_its_regions() -> None:
    sums = torch.tensor([1.0, torch.inf, 2.0, 3.0, 0.5, 0.5, torch.nan, 1.0, 1.0])  # 5 maps, 4 regions
    assert overflowed(sums, [2, 0, 1, 1, 0]) == [0, 1]
    assert overflowed(torch.zeros(3), [0, 0, 0]) == []
