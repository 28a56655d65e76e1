"""detectron2 as the second backend: the same regions as the native one, where it is installed; one line where not."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from regionvlp.errors import ConfigError
from regionvlp.extract.detector import FAMILIES, RegionDetector
from regionvlp.extract.detector.config import DetectorConfig
from regionvlp.extract.detector.detectron2_backend import is_stock
from regionvlp.extract.detector.random_weights import random_state

Picture = Callable[..., NDArray[np.uint8]]
installed = pytest.mark.skipif(importlib.util.find_spec("detectron2") is None, reason="detectron2 is not installed")


@pytest.fixture
def load(tiny_config: Callable[..., DetectorConfig], tmp_path: Path) -> Callable[..., RegionDetector]:
    """A detector of any family with random weights, the blocks of a ResNet-50 and few channels."""

    def make(family: str, **how: object) -> RegionDetector:
        smallest = {"min_side": FAMILIES[family].rpn.min_side / 4}
        config = tiny_config(family, backbone={"blocks": [3, 4, 6, 3]}, rpn=smallest)
        state = {name: torch.from_numpy(value) for name, value in random_state(config, seed=3).items()}
        save_file(state, tmp_path / "model.safetensors")
        (tmp_path / "detector.yaml").write_text(f"family: {family}\n")
        return RegionDetector.load(str(tmp_path), device="cpu", overrides=config.model_dump(exclude={"name"}), **how)

    return make


@installed
@pytest.mark.parametrize("family", FAMILIES)
def test_both_backends_find_the_same(family: str, load: Callable[..., RegionDetector], picture: Picture) -> None:
    native, stock = (load(family, precision="float32", backend=backend) for backend in ("native", "detectron2"))
    assert native.identity() != stock.identity()
    assert is_stock(stock.config) == (family != "caffe")
    frames = [picture(0), picture(1)]
    found = native.detect(frames)
    for ours, theirs in zip(found, stock.detect(frames), strict=True):
        assert len(ours) > 5
        # A corner that rounds another way, or a score at a threshold, may change a rare region of a random network.
        distance = np.abs(theirs.boxes[None] - ours.boxes[:, None]).max(axis=2).min(axis=1)
        assert (distance < 0.05).mean() >= 0.8
    boxes = [frame.boxes for frame in found]
    described = zip(native.regions_for_boxes(frames, boxes), stock.regions_for_boxes(frames, boxes), strict=True)
    for ours, theirs in described:
        np.testing.assert_allclose(theirs.features, ours.features, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(theirs.scores, ours.scores, atol=1e-3)
        assert (theirs.class_ids == ours.class_ids).all()
        assert (theirs.attribute_ids == ours.attribute_ids).all()


@installed
def test_what_detectron2_cannot_do_is_said(tiny_file: Path, load: Callable[..., RegionDetector]) -> None:
    with pytest.raises(ConfigError, match="no ResNet with"):
        RegionDetector.load(str(tiny_file), device="cpu", backend="detectron2")
    with pytest.raises(ConfigError, match="float32 alone"):
        load("d2", backend="detectron2", precision="fp16")


def test_without_detectron2(tiny_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="detectron2 is not installed") as caught:
        RegionDetector.load(str(tiny_file), device="cpu", backend="detectron2")
    assert "docker/Dockerfile" in caught.value.hint


def test_an_unknown_backend_is_named(tiny_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown detector\.backend 'caffe2'"):
        RegionDetector.load(str(tiny_file), device="cpu", backend="caffe2")
