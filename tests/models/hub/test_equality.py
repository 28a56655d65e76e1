"""Pictures and sentences get the vectors that open_clip and transformers themselves give them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hub_models
import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from regionvlp.models.hub.opening import open_joint_model

MAKERS: dict[str, Callable[[Path], Any]] = {
    "PE-Core": hub_models.pe_core,
    "open_clip": hub_models.open_clip_vit,
    "CLIP": hub_models.clip,
    "SigLIP": lambda folder: hub_models.siglip(folder, second=False),
    "SigLIP 2": lambda folder: hub_models.siglip(folder, second=True),
}
TOLERANCE = 1e-5


@pytest.fixture(scope="module", params=MAKERS)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Any]:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    folder.mkdir()
    return request.param, folder, MAKERS[request.param](folder)


def theirs(kind: str, folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures and sentences by the library alone, opened from the same folder."""
    pictures = [Image.fromarray(frame) for frame in hub_models.frames()]
    sentences = list(hub_models.SENTENCES)
    with torch.inference_mode():
        if kind in ("PE-Core", "open_clip"):
            import open_clip

            model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
            model.eval()
            pixels = torch.stack([preprocess(picture) for picture in pictures])
            tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(sentences)
            return model.encode_image(pixels, normalize=True), model.encode_text(tokens, normalize=True)
        from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

        model = AutoModel.from_pretrained(folder).eval()
        inputs = AutoImageProcessor.from_pretrained(folder)(images=pictures, return_tensors="pt")
        padded = {"padding": "max_length", "max_length": 64} if "SigLIP" in kind else {"padding": True}
        lower = [sentence.lower() for sentence in sentences] if "SigLIP" in kind else sentences
        tokens = AutoTokenizer.from_pretrained(folder)(lower, return_tensors="pt", **padded)
        names = ("input_ids",) if "SigLIP" in kind else ("input_ids", "attention_mask")
        seen = model.get_image_features(pixel_values=inputs["pixel_values"]).pooler_output
        read = model.get_text_features(**{name: tokens[name] for name in names}).pooler_output
        return functional.normalize(seen, dim=-1), functional.normalize(read, dim=-1)


def test_vectors_are_those_of_the_library(saved: tuple[str, Path, Any]) -> None:
    kind, folder, _ = saved
    model, _ = open_joint_model(str(folder))
    pictures, sentences = theirs(kind, folder)
    pixels = torch.stack([model.prepare(frame) for frame in hub_models.frames()])
    ours = model.see(pixels)
    assert ours.pooled.shape == (3, model.width)
    assert float((ours.pooled - pictures).abs().max()) < TOLERANCE
    read = model.read(hub_models.SENTENCES)
    assert np.abs(read - sentences.numpy()).max() < TOLERANCE
    # Pictures and sentences that differ have vectors that differ, or the above would say little.
    assert float((pictures[0] - pictures[1]).abs().max()) > 1e-3
    assert float((sentences[0] - sentences[1]).abs().max()) > 1e-3
    assert torch.equal(model.see(pixels, boxes=False).pooled, ours.pooled)


def test_boxes_lie_in_the_space_of_pictures(saved: tuple[str, Path, Any]) -> None:
    """A box that is the whole picture: the pool over all patches; of CLIP, the mean of what its patches become."""
    kind, folder, original = saved
    model, _ = open_joint_model(str(folder))
    pixels = torch.stack([model.prepare(frame) for frame in hub_models.frames()])
    seen = model.see(pixels)
    whole = np.array([[0, 0, model.framing.width, model.framing.height]], np.float32)
    boxes = model.box_vectors(seen, [whole] * 3)
    if kind == "PE-Core":  # its pool looks at a class token too, which lies nowhere
        trunk = original.visual.trunk
        with torch.inference_mode():
            patches = trunk.forward_features(pixels)[:, trunk.num_prefix_tokens :]
            expected = functional.normalize(original.visual.head(trunk.forward_head(patches)), dim=-1)
    elif kind in ("CLIP", "open_clip"):
        assert seen.maps is not None
        expected = functional.normalize(seen.maps.mean((2, 3)), dim=-1)
    else:
        expected = seen.pooled
    assert np.abs(boxes - expected.numpy()).max() < TOLERANCE


def test_a_patch_is_what_the_tower_makes_of_it_alone(saved: tuple[str, Path, Any]) -> None:
    """Patch by patch, with the tower's own modules: the pool on one token, or the last layer's value path."""
    kind, folder, original = saved
    model, _ = open_joint_model(str(folder))
    pixels = model.prepare(hub_models.frames(1)[0])[None]
    states: list[torch.Tensor] = []
    if kind == "PE-Core":
        trunk = original.visual.trunk
        states.append(trunk.forward_features(pixels))
        after = lambda token: original.visual.head(trunk.forward_head(token))  # noqa: E731
    elif kind == "open_clip":
        last = original.visual.transformer.resblocks[-1]
        last.register_forward_pre_hook(lambda module, given: states.append(given[0]))
        original.encode_image(pixels)
        weight, bias = last.attn.in_proj_weight[-32:], last.attn.in_proj_bias[-32:]
        value = lambda token: last.ln_1(token) @ weight.T + bias  # noqa: E731
        after = lambda token: original.visual.ln_post(last.attn.out_proj(value(token)))[:, 0] @ original.visual.proj  # noqa: E731
    elif kind == "CLIP":
        tower = original.vision_model
        last = tower.encoder.layers[-1]
        last.register_forward_pre_hook(
            lambda module, given, named: states.append(given[0] if given else named["hidden_states"]), with_kwargs=True
        )
        original.get_image_features(pixel_values=pixels)
        attention = last.self_attn
        after = lambda token: original.visual_projection(  # noqa: E731
            tower.post_layernorm(attention.out_proj(attention.v_proj(last.layer_norm1(token))))
        )[:, 0]
    else:
        states.append(original.vision_model(pixel_values=pixels).last_hidden_state)
        after = original.vision_model.head
    assert model.path is not None
    rows, columns = model.path.grid
    patches = states[0][:, -rows * columns :]
    side = model.framing.width // columns
    seen = model.see(pixels)
    rng = np.random.default_rng(0)
    for row, column in rng.integers(0, rows, (5, 2)).tolist():
        box = np.array([[column * side, row * side, (column + 1) * side, (row + 1) * side]], np.float32)
        token = patches[:, row * columns + column][:, None]
        with torch.inference_mode():
            expected = functional.normalize(after(token), dim=-1).numpy()
        assert np.abs(model.box_vectors(seen, [box]) - expected).max() < 5e-5


def test_a_box_of_an_attention_pool_is_the_pool_over_its_tokens(tmp_path: Path) -> None:
    original = hub_models.siglip(tmp_path, second=True)
    model, _ = open_joint_model(str(tmp_path))
    pixels = model.prepare(hub_models.frames(1)[0])[None]
    states = original.vision_model(pixel_values=pixels).last_hidden_state.unflatten(1, (8, 8))
    box = np.array([[16, 8, 48, 40]], np.float32)  # columns 2 to 5, rows 1 to 4
    with torch.inference_mode():
        inside = original.vision_model.head(states[:, 1:5, 2:6].flatten(1, 2))
        expected = functional.normalize(inside, dim=-1).numpy()
    assert np.abs(model.box_vectors(model.see(pixels), [box]) - expected).max() < TOLERANCE
