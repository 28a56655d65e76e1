"""Frozen in Time as a whole against what its public code computes: checkpoints, losses, metrics, frames, cost."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from regionvlp.checkpoints.public.frozen import OURS, read_public_frozen
from regionvlp.data.clips.frame_choice import FrameChoice, window_starts
from regionvlp.data.draws import Draws
from regionvlp.errors import ConfigError
from regionvlp.evaluation.metrics import retrieval_metrics
from regionvlp.losses import global_contrast, global_similarity, max_margin
from regionvlp.losses.settings import GlobalLossSettings
from regionvlp.models import Encoded
from regionvlp.models.cost import parameters, space_time_macs
from regionvlp.models.settings import PixelDualEncoderSettings, SpaceTimeSettings
from regionvlp.models.space_time import SpaceTimeEncoder
from regionvlp.systems.base import System
from regionvlp.systems.registry import build_system

from .demovlp_case import close, gradients_close
from .discovery import Case, cases
from .end_to_end_case import EndToEndCase
from .table import record


def our_name(public: str) -> str:
    """Our name of a parameter of the public state dict."""
    prefix = next(prefix for prefix in OURS if public.startswith(prefix))
    return OURS[prefix] + public.removeprefix(prefix)


def pooled(vectors: torch.Tensor) -> Encoded:
    """An :class:`Encoded` for the losses that read nothing but the pooled vectors."""
    return Encoded(vectors, vectors[:, None], torch.ones(len(vectors), 1, dtype=torch.bool))


@pytest.mark.parametrize("case", cases("end_to_end", "frozen_ckpt_"))
def test_public_checkpoint(case: Case) -> None:
    if not case.path(".npz").exists():  # the file itself, which the numbers beside it are about
        assert read_public_frozen(case.path(".pth.tar"), heads=4).model.video.frames >= 1
        return
    golden = EndToEndCase(case)
    file = Case(case.folder, case.stem.removesuffix("_expected")).path(".pth.tar")
    found = read_public_frozen(file, heads=golden.meta["video_cfg"]["num_heads"])
    assert found.model.video.frames == golden.meta["checkpoint_frames"]
    for run in golden.meta["runs"]:
        check_run(golden, found, run)


def check_run(golden: EndToEndCase, found: Any, run: dict[str, Any]) -> None:
    """A checkpoint at another number of frames."""
    meta, prefix = golden.meta, f"{run['tag']}/"
    weights, model = found.with_frames(run["frames"], run["load_temporal_fix"])
    system = build_system("frozen", model, GlobalLossSettings(), pretrained=False).eval()
    system.load_state_dict(weights)
    system.double()
    within = 1e-6 if run["load_temporal_fix"] != "zeros" else 1e-9
    close(weights["model.video.temporal_embed"], golden[f"{prefix}temporal_embed"], 1e-6)
    side = meta["video_cfg"]["img_size"]
    video = golden.given(run["video_name"], (meta["batch"], run["frames"], 3, side, side))
    batch = {
        "pixels": video, "frame_mask": torch.ones(video.shape[:2], dtype=torch.bool),
        "input_ids": golden["input_ids"], "attention_mask": golden["attention_mask"],
    }  # fmt: skip
    with torch.no_grad():
        videos, texts = system.encode_video(batch).pooled, system.encode_text(batch).pooled
    close(videos, golden[f"{prefix}video_embeds"], within)
    close(texts, golden[f"{prefix}text_embeds"], within)
    video_side, text_side = videos.requires_grad_(), texts.requires_grad_()
    close(global_similarity(video=pooled(video_side), text=pooled(text_side)), golden[f"{prefix}sims"], within)
    losses = global_contrast(video=pooled(video_side), text=pooled(text_side), temperature=meta["temperature"])
    close(losses["global_loss"], golden[f"{prefix}loss"], 10 * within)
    losses["global_loss"].backward()
    for side_of, name in ((video_side, "video"), (text_side, "text")):
        grad = golden[f"{prefix}grad_{name}_embeds"]
        gradients_close(side_of.grad, grad, max(1e-8, 10 * within) * float(grad.abs().max()))


@pytest.mark.parametrize("case", cases("end_to_end", "frozen_base", slow=lambda case: True))
def test_base_size(case: Case) -> None:
    golden = EndToEndCase(case)
    settings = PixelDualEncoderSettings.model_validate(
        {"video": {"frames": golden.meta["num_frames"], "time_init": "zeros"}, "text": {"vocab_size": 30522}}
    )
    system = build_system("frozen", settings, GlobalLossSettings(), pretrained=False).eval()
    system.load_state_dict({our_name(name): tensor for name, tensor in golden.state().items()})
    with torch.no_grad():
        check_base(system, golden)


def check_base(system: System, golden: EndToEndCase) -> None:
    texts = {name: golden[name] for name in ("input_ids", "attention_mask")}
    within = 5e-5
    close(system.encode_text(texts).pooled, golden["text_embeds"], within)
    encoder = system.model.video
    assert isinstance(encoder, SpaceTimeEncoder)
    for frames in golden.meta["frames"]:
        shape = tuple(
            frames if part == "F" else int(part) for part in golden.meta["video_shape"].strip("()").split(", ")
        )
        video = golden.given(golden.meta["video_name"].replace("<F>", str(frames)), shape).float()
        found = encoder.encode(encoder.place(encoder.patches(video)), frames)[:, 0]
        close(found, golden[f"F{frames}/video_feature"], within)
        close(encoder.proj(found), golden[f"F{frames}/video_embeds"], within)


@pytest.mark.parametrize("case", cases("end_to_end", "frozen_checkpoint_layout"))
def test_checkpoint_layout(case: Case) -> None:
    golden = json.loads(case.path(".json").read_text())
    shapes = {our_name(name): (tuple(shape), dtype) for name, shape, dtype in golden["entries"]}
    frames = shapes["model.video.temporal_embed"][0][1]
    words = shapes["model.text.model.embeddings.word_embeddings.weight"][0][0]
    settings = PixelDualEncoderSettings.model_validate({"video": {"frames": frames}, "text": {"vocab_size": words}})
    with torch.device("meta"):
        system = build_system("frozen", settings, GlobalLossSettings(), pretrained=False)
    own = {name: (tuple(x.shape), str(x.dtype).removeprefix("torch.")) for name, x in system.state_dict().items()}
    assert own == shapes
    groups = golden["elements_per_group"]
    assert sum(groups.values()) == parameters(system)
    for public, count in groups.items():
        ours = next(OURS[prefix] for prefix in OURS if prefix.startswith(f"{public}."))
        beside = [
            name for prefix, name in OURS.items() if not prefix.startswith(f"{public}.") and name.startswith(ours)
        ]
        held = [name for name in own if name.startswith(ours) and not name.startswith(tuple(beside))]
        assert sum(system.state_dict()[name].numel() for name in held) == count


@pytest.mark.parametrize("case", cases("end_to_end", "losses"))
def test_losses(case: Case) -> None:
    golden = EndToEndCase(case)
    for row in golden.meta["cases"]:
        prefix = f"{row['index']}/"
        a, b = (golden[prefix + side].clone().requires_grad_() for side in "ab")
        similarity = global_similarity(video=pooled(b), text=pooled(a))
        close(similarity, golden[f"{prefix}sims"])
        loss = global_contrast(video=pooled(b), text=pooled(a), temperature=row["temperature"])["global_loss"]
        close(loss, golden[f"{prefix}norm_softmax"])
        close(max_margin(similarity, row["margin"]), golden[f"{prefix}max_margin_fix_norm"])
        close(max_margin(similarity, row["margin"], with_truth=True), golden[f"{prefix}max_margin_raw"])
        loss.backward()
        for side, name in ((a, "a"), (b, "b")):
            grad = golden[f"{prefix}grad_{name}"]
            gradients_close(side.grad, grad, 1e-8 * float(grad.abs().max()))
    if "zero_rows/sims" in golden:
        check_zero_rows(golden)


def check_zero_rows(golden: EndToEndCase) -> None:
    """The inputs are not in the file: of those that give these numbers, a zero row is similar to nothing."""
    sims = golden["zero_rows/sims"]
    assert bool((sims == 0).all(0).any() | (sims == 0).all(1).any())
    vectors = torch.eye(len(sims), dtype=torch.float64)
    vectors[0] = 0
    assert not global_similarity(video=pooled(vectors), text=pooled(vectors))[0].any()


@pytest.mark.parametrize("case", cases("end_to_end", "metrics"))
def test_metrics(case: Case) -> None:
    golden = EndToEndCase(case)
    for row in golden.meta["cases"]:
        similarity = golden[f"{row['index']}/sims"].numpy()
        target = np.repeat(np.arange(row["videos"]), row["captions_per_video"])
        masks = f"{row['index']}/query_masks"
        kept = golden[masks].numpy().ravel() > 0 if masks in golden else np.ones(len(target), bool)
        found = retrieval_metrics(similarity[kept], target[kept], ties="public")
        for direction in ("t2v", "v2t"):
            for name, value in row["expected"][f"{direction}_metrics"].items():
                ours = found[direction][name]  # type: ignore[literal-required]
                record(abs(ours - value), 1e-8)
                assert ours == pytest.approx(value, abs=1e-8)


@pytest.mark.parametrize("case", cases("end_to_end", "frame_sampling"))
def test_frame_sampling_of_frozen(case: Case) -> None:
    for row in json.loads(case.path(".json").read_text())["cases"]:
        length, choice = row["vlen"], FrameChoice(row["num_frames"], "legacy")
        (middle,), (real,) = choice.slots([length])
        record(float(middle[real].tolist() != row["uniform"]), 0)
        assert middle[real].tolist() == row["uniform"]
        for start, frames in row["fix_start"].items():
            (slots,), _ = choice.slots([length], starts=[int(start)])
            # The public code goes past the end of short videos.
            assert slots[real].tolist() == np.minimum(frames, length - 1).tolist()
        for stride, starts in row["window_starts"].items():
            assert window_starts(length, row["num_frames"], int(stride)) == (starts or [0])
        check_draws(row, choice, real)


def check_draws(row: dict[str, Any], choice: FrameChoice, real: np.ndarray) -> None:
    """The public draws come from Python's generator: ours reach the same frames, and fail on the same videos."""
    length, count = row["vlen"], 1000
    if any(draw == "IndexError" for draw in row["rand"].values()):
        with pytest.raises(ConfigError):
            choice.slots([length], Draws((0,), [0]))
    else:
        reachable = [set(range(low, high - 1)) for low, high in row["segments"]]
        drawn, _ = choice.slots([length] * count, Draws((0,), np.arange(count)))
        for frames, column, own in zip(
            zip(*row["rand"].values(), strict=True), drawn[:, real].T, reachable, strict=True
        ):
            assert set(frames) <= own
            assert set(column.tolist()) == own if len(own) < 40 else set(column.tolist()) <= own
    whole, _ = FrameChoice(choice.frames).slots([length] * count, Draws((0,), np.arange(count)))
    for column, (low, high) in zip(whole[:, real].T, row["segments"], strict=True):
        found = set(column.tolist())
        assert found == set(range(low, high)) if high - low < 40 else found <= set(range(low, high))


@pytest.mark.parametrize("case", cases("end_to_end", "cost"))
def test_cost_of_a_clip(case: Case) -> None:
    for row in json.loads(case.path(".json").read_text())["rows"]:
        frames = row["frames"]
        for form in ("frozen", "timesformer"):
            settings = SpaceTimeSettings(frames=frames, attention=form)  # type: ignore[arg-type]
            macs = space_time_macs(settings, frames)
            assert {**macs, "total": sum(macs.values())} == row[form]
        with torch.device("meta"):
            encoder = SpaceTimeEncoder(SpaceTimeSettings(frames=frames))
        assert parameters(encoder) - parameters(encoder.proj) == row["params"]
        counted = row.get("counted_by_tool")
        if counted:  # the tool's own counts of sums over attention differ by CLS's few
            macs = space_time_macs(SpaceTimeSettings(frames=frames), frames)
            assert macs["patch"] == counted["conv"]
            assert macs["linear"] == counted["linear"]
            assert macs["attention"] == pytest.approx(counted["einsum"], rel=1e-3)
