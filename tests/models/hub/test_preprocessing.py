"""What each kind of model wants of pictures and sentences, fact by fact, written out beside what is done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hub_models
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from regionvlp.models.hub.base import JointModel
from regionvlp.models.hub.framing import Framing
from regionvlp.models.hub.opening import open_joint_model

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
MAKERS: dict[str, Callable[[Path], Any]] = {
    "pe": hub_models.pe_core,
    "open_clip": hub_models.open_clip_vit,
    "clip": hub_models.clip,
    "siglip": lambda folder: hub_models.siglip(folder, second=False),
    "siglip2": lambda folder: hub_models.siglip(folder, second=True),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, JointModel]:
    root = tmp_path_factory.mktemp("models")
    opened = {}
    for name, make in MAKERS.items():
        make(root / name)
        opened[name] = open_joint_model(str(root / name))[0]
    return opened


def resized(frame: NDArray[np.uint8], width: int, height: int, how: Image.Resampling) -> NDArray[np.float32]:
    return np.asarray(Image.fromarray(frame).resize((width, height), how), np.float32) / 255


@pytest.mark.parametrize(("name", "side"), [("pe", 384), ("siglip", 64), ("siglip2", 64)])
def test_pe_core_and_siglip_squash_bilinearly_to_between_minus_one_and_one(
    models: dict[str, JointModel], name: str, side: int
) -> None:
    (frame,) = hub_models.frames(1, 90, 120)
    expected = (resized(frame, side, side, Image.Resampling.BILINEAR) - 0.5) / 0.5
    prepared = models[name].prepare(frame).numpy()
    assert prepared.shape == (3, side, side)
    assert np.abs(prepared - expected.transpose(2, 0, 1)).max() < 0.02  # a grey level and a half
    assert models[name].framing.mode == "squash"


@pytest.mark.parametrize("name", ["open_clip", "clip"])
def test_clip_resizes_the_short_side_bicubically_and_crops_the_centre(models: dict[str, JointModel], name: str) -> None:
    (frame,) = hub_models.frames(1, 90, 180)
    wide = resized(frame, 128, 64, Image.Resampling.BICUBIC)[:, 32:96]
    expected = (wide - np.array(CLIP_MEAN)) / np.array(CLIP_STD)
    prepared = models[name].prepare(frame).numpy()
    assert prepared.shape == (3, 64, 64)
    assert np.abs(prepared - expected.transpose(2, 0, 1)).max() < 0.04
    assert models[name].framing.mode == "shortest"


def test_contexts_are_those_of_the_models(models: dict[str, JointModel]) -> None:
    longest = {name: model.longest for name, model in models.items()}
    assert longest == {"pe": 32, "open_clip": 77, "clip": 77, "siglip": 64, "siglip2": 64}


def asked(model: Any, texts: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[torch.Tensor, bool]:
    """The token ids that a model of transformers is given, and whether with a mask."""
    given: dict[str, Any] = {}
    read = model._model.get_text_features
    monkeypatch.setattr(model._model, "get_text_features", lambda **named: (given.update(named), read(**named))[1])
    model.read(texts)
    return given["input_ids"], "attention_mask" in given


def test_siglip_2_is_given_64_tokens_always_lower_case_with_eos_and_pads_and_no_mask(
    models: dict[str, JointModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, masked = asked(models["siglip2"], ["a dog", "A DOG", "dog " * 100], monkeypatch)
    assert not masked
    assert ids.shape == (3, 64)
    assert torch.equal(ids[0], ids[1])
    end = int((ids[0] == 1).nonzero()[0])
    assert ids[0, end:].tolist() == [1] + [0] * (63 - end)  # <eos> is 1, <pad> 0
    assert int(ids[2, -1]) == 1
    assert 0 not in ids[2]


def test_clip_is_given_a_mask_and_its_end_survives_the_cut(
    models: dict[str, JointModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, masked = asked(models["clip"], ["dog", "dog " * 200], monkeypatch)
    assert masked
    assert ids.shape == (2, 77)
    assert ids[:, 0].tolist() == [0, 0]  # <|startoftext|>
    assert int(ids[1, -1]) == 1
    assert 1 not in ids[1, :-1]


def test_open_clip_lower_cases_and_cuts_at_32(models: dict[str, JointModel]) -> None:
    model = models["pe"]
    vectors = model.read(["A Dog", "a dog", "dog " * 31, "dog " * 60, "dog " * 30 + "cat"])
    assert np.array_equal(vectors[0], vectors[1])
    # 32 tokens are 30 words between begin and end.
    assert np.array_equal(vectors[2], vectors[3])
    assert np.array_equal(vectors[3], vectors[4])
    assert [model.tokens_of(text) for text in ("dog " * 30, "dog " * 31)] == [32, 33]


def test_what_a_model_reads_to_its_end_is_said(models: dict[str, JointModel]) -> None:
    for name in ("siglip", "siglip2", "clip"):
        model = models[name]
        count = next(n for n in range(200) if model.tokens_of("dog " * n) > model.longest)
        vectors = model.read(["dog " * (count - 1), "dog " * count, "dog " * (count + 1)])
        assert np.abs(vectors[1] - vectors[2]).max() < 1e-6, name
        assert model.tokens_of("dog " * (count - 1)) <= model.longest


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (2, 3)])
def test_pictures_of_hardly_a_pixel_are_seen(models: dict[str, JointModel], size: tuple[int, int]) -> None:
    frame = np.full((*size, 3), 128, np.uint8)
    for name in ("open_clip", "clip", "siglip2"):
        model = models[name]
        prepared = model.prepare(frame)
        assert prepared.shape == (3, model.framing.height, model.framing.width)
        seen = model.see(prepared[None])
        assert torch.isfinite(seen.pooled).all()
        boxes, visible = model.framing.place(np.array([[0, 0, size[1], size[0]]], np.float32), size)
        assert visible.all()
        assert np.isfinite(model.box_vectors(seen, [boxes])).all()


def test_boxes_lie_where_the_picture_went() -> None:
    """Against a picture with one white box, prepared and looked at."""
    size = (90, 180)
    white = np.array([[60, 30, 90, 60], [0, 0, 30, 30], [150, 60, 180, 90]], np.float32)
    for framing in (Framing(64, 64, "squash"), Framing(64, 64, "shortest", 64), Framing(64, 64, "longest")):
        placed, seen = framing.place(white, size)
        assert seen.tolist() == ([True, False, False] if framing.mode == "shortest" else [True] * 3)
        for box, where, visible in zip(white, placed, seen, strict=True):
            if not visible:
                continue
            x1, y1, x2, y2 = box.astype(int)
            frame = np.zeros((*size, 3), np.uint8)
            frame[y1:y2, x1:x2] = 255
            shown = _shown(frame, framing)
            rows, columns = np.nonzero(shown > 127)
            found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert np.abs(np.array(found) - where).max() <= 1


def _shown(frame: NDArray[np.uint8], framing: Framing) -> NDArray[np.uint8]:
    """The picture that open_clip makes of a frame in a mode, as grey values."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    config = PreprocessCfg(size=64, mean=(0.0,) * 3, std=(1.0,) * 3, resize_mode=framing.mode, interpolation="bilinear")
    return (image_transform_v2(config, is_train=False)(Image.fromarray(frame))[0].numpy() * 255).astype(np.uint8)
