"""The network: folding, batches, chunks, seeded weights."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch.nn import functional

from regionvlp.errors import ConfigError
from regionvlp.extract.detector import FAMILIES, RegionDetector
from regionvlp.extract.detector.config import DetectorConfig
from regionvlp.extract.detector.execution import compile_res5
from regionvlp.extract.detector.layout import parameter_shapes
from regionvlp.extract.detector.random_weights import random_state
from regionvlp.extract.detector.weights import canonical_state, state_hash

Picture = Callable[..., NDArray[np.uint8]]
State = dict[str, torch.Tensor]


def unfolded(state: State, name: str, x: torch.Tensor, **how: int) -> torch.Tensor:
    """A convolution and its norm, one after the other."""
    y = functional.conv2d(x, state[f"{name}.weight"], **how)
    mean, var = state[f"{name}.norm.running_mean"], state[f"{name}.norm.running_var"]
    return functional.batch_norm(y, mean, var, state[f"{name}.norm.weight"], state[f"{name}.norm.bias"], eps=1e-5)


def unfolded_stage(state: State, stage: str, x: torch.Tensor, stride: int, dilation: int) -> torch.Tensor:
    block = 0
    while f"{stage}.{block}.conv1.weight" in state:
        name, step = f"{stage}.{block}", stride if block == 0 else 1
        y = unfolded(state, f"{name}.conv1", x, stride=step).relu()
        y = unfolded(state, f"{name}.conv2", y, padding=dilation, dilation=dilation).relu()
        y = unfolded(state, f"{name}.conv3", y)
        x = (y + (unfolded(state, f"{name}.shortcut", x, stride=step) if block == 0 else x)).relu()
        block += 1
    return x


@pytest.mark.parametrize(("family", "pool", "res5"), [("caffe", (0, True), (1, 2)), ("d2", (1, False), (2, 1))])
def test_folded_norms_give_what_norms_give(
    family: str, pool: tuple[int, bool], res5: tuple[int, int], native_state: Callable[..., State], tmp_path: Path
) -> None:
    rng = torch.Generator().manual_seed(0)
    state = native_state(family)
    for name in state:
        if name.endswith(("running_mean", "running_var")):
            state[name] = (
                state[name] + 0.3 * state[name].std(correction=0) + torch.rand(state[name].shape, generator=rng)
            )
    path = tmp_path / "weights.pth"
    torch.save(state, path)
    network = RegionDetector.load(str(path), device="cpu", overrides={"rpn": {"width": 24}}).network
    images = torch.randn(2, 3, 97, 130, generator=rng) * 60
    with torch.inference_mode():
        x = unfolded(state, "backbone.stem.conv1", images, stride=2, padding=3).relu()
        x = functional.max_pool2d(x, 3, 2, padding=pool[0], ceil_mode=pool[1])
        for stage, stride in (("res2", 1), ("res3", 2), ("res4", 2)):
            x = unfolded_stage(state, f"backbone.{stage}", x, stride, 1)
        torch.testing.assert_close(network.res4(images), x, rtol=1e-4, atol=1e-4)
        regions = torch.randn(3, x.shape[1], 14, 14, generator=rng)
        expected = unfolded_stage(state, "roi_heads.res5", regions, *res5)
        torch.testing.assert_close(network.roi_heads.res5(regions), expected, rtol=1e-4, atol=1e-4)


def test_a_batch_finds_what_single_frames_find(tiny: RegionDetector, picture: Picture) -> None:
    frames = [picture(seed) for seed in range(4)]
    for together, frame in zip(tiny.detect(frames), frames, strict=True):
        alone = tiny.detect([frame])[0]
        np.testing.assert_allclose(together.boxes, alone.boxes, atol=1e-2)
        np.testing.assert_allclose(together.features, alone.features, rtol=1e-3, atol=1e-4)
        np.testing.assert_array_equal(together.class_ids, alone.class_ids)


def test_chunks_of_regions_change_nothing(tiny: RegionDetector, picture: Picture) -> None:
    frames = [picture(1), picture(2)]
    whole = tiny.detect(frames)
    tiny.chunk = 7
    for a, b in zip(whole, tiny.detect(frames), strict=True):
        np.testing.assert_array_equal(a.boxes, b.boxes)
        np.testing.assert_allclose(a.features, b.features, rtol=1e-4, atol=1e-5)


def test_a_compiled_res5_sees_one_shape(tiny: RegionDetector, picture: Picture) -> None:
    whole, head, seen = tiny.detect([picture(1)])[0], tiny.network.roi_heads, []
    tiny.chunk = 7

    def compiled(regions: torch.Tensor) -> torch.Tensor:
        seen.append(len(regions))
        return head.res5(regions)

    head.compiled_res5 = compiled
    found = tiny.detect([picture(1)])[0]
    assert set(seen) == {7}
    np.testing.assert_allclose(found.features, whole.features, rtol=1e-4, atol=1e-5)


def test_where_compiling_fails(
    tiny_file: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*args: object, **kwargs: object) -> Callable[..., torch.Tensor]:
        def run(regions: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no compiler\nand a long story")

        return run

    monkeypatch.setattr(torch, "compile", fails)
    with pytest.raises(ConfigError, match="fails here: no compiler") as caught:
        RegionDetector.load(str(tiny_file), device="cpu", compile=True)
    assert "detector.compile=off" in caught.value.hint
    detector = RegionDetector.load(str(tiny_file), device="cpu")
    with caplog.at_level(logging.WARNING):
        compile_res5(detector.network.roi_heads, detector.chunk, required=False)
    assert "going on without" in caplog.text
    assert len(detector.detect([picture()])[0]) > 0


def test_the_same_frame_twice_gives_the_same_bits(tiny: RegionDetector, picture: Picture) -> None:
    first, second = tiny.detect([picture()])[0], tiny.detect([picture()])[0]
    assert first.features.tobytes() == second.features.tobytes()
    assert first.boxes.tobytes() == second.boxes.tobytes()


def test_full_size_has_the_published_parameters() -> None:
    shapes = parameter_shapes(FAMILIES["caffe"])
    # 616 entries with the anchors and 80 counters, which are not kept.
    assert len(shapes) == 536
    learned = {name: shape for name, shape in shapes.items() if "running" not in name and "anchor_g" not in name}
    assert sum(int(np.prod(shape)) for shape in learned.values()) == pytest.approx(65.45e6, rel=2e-3)


def test_seeded_weights_are_the_same_bits_everywhere(tiny_config: Callable[..., DetectorConfig]) -> None:
    state = {name: torch.from_numpy(value) for name, value in random_state(tiny_config(), seed=5).items()}
    digest = hashlib.sha256(state_hash(state).encode()).hexdigest()[:16]
    assert digest == "87d7d0ccc7c742b7"


def test_formats_and_names_agree_on_the_hash(
    native_state: Callable[..., State], tiny_file: Path, tmp_path: Path
) -> None:
    pickled, ours = tmp_path / "tiny.pth", tmp_path / "ours.safetensors"
    torch.save({"model": native_state(), "iteration": 7}, pickled)
    save_file(canonical_state(native_state()), ours)
    detectors = [RegionDetector.load(str(path), device="cpu") for path in (tiny_file, pickled, ours)]
    assert detectors[0].identity() == detectors[1].identity() == detectors[2].identity()
    changed = load_file(tiny_file)
    changed["roi_heads.box_predictor.cls_score.bias"][0] += 1
    torch.save(changed, pickled)
    assert RegionDetector.load(str(pickled), device="cpu").identity() != detectors[0].identity()
