"""A task: what it returns for training, what retrieval ranks by, how it is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from regionvlp.config import load_config
from regionvlp.errors import ConfigError, InputError
from regionvlp.losses import (
    REGION_WORD_PRESETS,
    filip_similarity,
    global_similarity,
    region_word_similarity,
    taco_similarity,
)
from regionvlp.losses.settings import LossSettings
from regionvlp.models.settings import DualEncoderSettings
from regionvlp.systems.demovlp import DemoVLP
from regionvlp.systems.registry import build_system

MODEL: dict[str, Any] = {
    "video": {"feature_width": 12, "width": 16, "depth": 1, "heads": 4, "frames": 2, "regions": 4, "joint_width": 8},
    "text": {"width": 16, "depth": 1, "heads": 4, "mlp_width": 32, "max_length": 8, "joint_width": 8},
}


def small(**losses: Any) -> DemoVLP:
    torch.manual_seed(0)
    settings = LossSettings.model_validate(losses)
    task = build_system("demovlp", DualEncoderSettings.model_validate(MODEL), settings, vocab_size=30)
    assert isinstance(task, DemoVLP)
    return task.eval()


def batch(pairs: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "features": torch.randn(pairs, 2, 4, 12, generator=generator).half(),
        "location": torch.rand(pairs, 2, 4, 7, generator=generator),
        "region_mask": torch.rand(pairs, 2, 4, generator=generator) < 0.8,
        "input_ids": torch.randint(5, 30, (pairs, 6), generator=generator),
        "attention_mask": torch.ones(pairs, 6, dtype=torch.bool),
        "video_id": torch.arange(pairs),  # keys that the task does not read are let be
    }


@pytest.mark.parametrize(
    ("losses", "keys"),
    [
        ({}, {"global_loss", "local_v2l_loss", "local_l2v_loss"}),
        ({"use_local": False}, {"global_loss"}),
        ({"use_global": False, "local": "filip"}, {"local_v2l_loss", "local_l2v_loss"}),
        ({"use_global": False, "local": "taco"}, {"taco_token_loss"}),
        ({"region_word": {"form": "public", "local_loss": "kl_row"}}, {"global_loss", "local_loss"}),
    ],
)
def test_forward_returns_the_losses_in_use(losses: dict[str, Any], keys: set[str]) -> None:
    task = small(**losses)
    scalars = task(batch())
    assert set(scalars) == keys
    sum(scalars.values()).backward()
    assert all(parameter.grad is not None for parameter in task.parameters() if parameter.requires_grad)


def test_it_reads_no_other_keys_than_it_declares() -> None:
    task = small()
    task({key: batch()[key] for key in task.inputs})
    with pytest.raises(KeyError):
        task({key: batch()[key] for key in task.inputs[1:]})


def test_similarity_adds_the_parts_in_use_with_texts_as_rows() -> None:
    task = small()
    with torch.no_grad():
        video, text = task.encode_video(batch(3)), task.encode_text(batch(2))
    whole = global_similarity(video=video, text=text)
    local = region_word_similarity(video=video, text=text, settings=task.losses.region_word)
    filip = filip_similarity(video=video, text=text)
    assert whole.shape == (2, 3)
    assert torch.equal(task.similarity(video, text), whole + local)
    assert torch.equal(small(use_local=False).similarity(video, text), whole)
    assert torch.equal(small(use_global=False).similarity(video, text), local)
    assert torch.equal(small(local="filip").similarity(video, text), whole + filip)
    taco = taco_similarity(video=video, text=text)
    assert torch.equal(small(local="taco").similarity(video, text), whole + taco)


def test_the_same_seed_builds_the_same_task() -> None:
    for one, other in zip(small().parameters(), small().parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_checkpoint_needs_none_of_the_files_it_started_from(tmp_path: Path) -> None:
    sizes = {**MODEL, "text": {**MODEL["text"], "pretrained": str(tmp_path / "gone")}}
    settings = DualEncoderSettings.model_validate(sizes)
    with pytest.raises(InputError, match="no folder"):
        build_system("demovlp", settings, LossSettings(), vocab_size=30)
    build_system("demovlp", settings, LossSettings(), vocab_size=30, pretrained=False)


def test_users_mistakes() -> None:
    settings = DualEncoderSettings.model_validate(MODEL)
    with pytest.raises(ConfigError, match="did you mean 'demovlp'"):
        build_system("demo_vlp", settings, LossSettings(), vocab_size=30)
    with pytest.raises(InputError, match="vocabulary"):
        build_system("demovlp", settings, LossSettings())
    with pytest.raises(ValidationError, match="must be the same"):
        DualEncoderSettings.model_validate({"video": {"joint_width": 8}, "text": {"joint_width": 16}})
    with pytest.raises(ConfigError, match="nothing to learn"):
        load_config(LossSettings, {"use_global": False, "use_local": False})
    with pytest.raises(ConfigError, match="did you mean 'temperature'"):
        load_config(LossSettings, {"temprature": 0.1})
    for negatives in ("local", 128, {"groups": 128}, {"group": 0}, {"group": 2.5}, {"group": 2, "size": 3}):
        with pytest.raises(ConfigError, match=r"negatives.*it takes 'global' or \{group: N\}"):
            load_config(LossSettings, {"negatives": negatives})


def test_weights_of_words_are_read_where_they_are_asked_for() -> None:
    equal, weighed = small(local="taco"), small(local="taco", word_weight="idf")
    assert set(weighed.inputs) - set(equal.inputs) == {"word_weight"}
    weights = torch.zeros(3, 5)
    weights[:, 1] = 2.0
    with torch.no_grad():
        found, plain = weighed({**batch(), "word_weight": weights}), equal(batch())
        ones = weighed({**batch(), "word_weight": torch.ones(3, 5)})
    assert found["taco_token_loss"] != plain["taco_token_loss"]
    assert torch.equal(ones["taco_token_loss"], plain["taco_token_loss"])


@pytest.mark.parametrize("form", ["paper", "valid", "public"])
def test_a_clip_without_regions_has_a_score_that_rounding_does_not_move(form: str) -> None:
    task, given = small(region_word=REGION_WORD_PRESETS[form].model_dump()), batch()
    given["features"] = given["features"].float()
    for key in ("features", "location", "region_mask"):
        given[key][1] = 0
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        text = task.encode_text(given)
        still = task.similarity(task.encode_video(given), text)
        for _ in range(5):
            noise = 1e-7 * torch.randn(given["features"].shape, generator=draw)
            moved = task.similarity(task.encode_video({**given, "features": given["features"] + noise}), text)
            torch.testing.assert_close(moved, still, rtol=0, atol=1e-5)


def test_other_pairs_of_a_clip_or_a_caption_may_be_left_out() -> None:
    plain, masking = small(), small(duplicates="mask")
    assert set(masking.inputs) - set(plain.inputs) == {"clip_number", "text_hash"}
    unlike = {"clip_number": torch.arange(3), "text_hash": torch.arange(3)}
    with torch.no_grad():
        expected, found = plain(batch()), masking({**batch(), **unlike})
        some = masking({**batch(), **unlike, "clip_number": torch.tensor([4, 1, 4])})
    assert found.pop("duplicates") == 0
    assert found == expected
    assert some.pop("duplicates") == pytest.approx(2 / 3)
    assert all(some[name] < value for name, value in expected.items())


@pytest.mark.parametrize("losses", [{}, {"local": "filip"}, {"local": "taco"}, {"region_word": {"form": "public"}}])
def test_padded_slots_change_nothing(losses: dict[str, Any]) -> None:
    given = batch()
    given["region_mask"][:, :, 3] = False
    cut = {key: given[key][:, :, :3] for key in ("features", "location", "region_mask")}
    with torch.no_grad():
        whole, trimmed = small(**losses)(given), small(**losses)({**given, **cut})
    for name, value in whole.items():
        torch.testing.assert_close(trimmed[name], value)


def test_under_autocast_losses_get_tokens_in_half_precision() -> None:
    """What the fused region-word alignment is chosen for; pooled vectors and tokens of either encoder."""
    task = small()
    with torch.autocast("cpu", torch.bfloat16):
        sides = task.encode_video(batch()), task.encode_text(batch())
        losses = task(batch())
    assert all(side.tokens.dtype is side.pooled.dtype is torch.bfloat16 for side in sides)
    assert all(loss.dtype is torch.float32 for loss in losses.values())


@pytest.mark.slow
def test_compiled_it_is_one_graph_per_encoder() -> None:
    """And the losses are outside of both."""
    task, graphs = small(), []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Any:
        graphs.append(graph)
        return graph.forward

    expected = task(batch())
    task.compile(backend=backend)
    torch.testing.assert_close(task(batch()), expected)
    assert len(graphs) == 2
