"""A file as the public trainer writes it: its tensors, and the model that they make."""

from __future__ import annotations

import pytest
import torch

from regionvlp.checkpoints.public.demovlp import read_public_demovlp
from regionvlp.losses import REGION_WORD_PRESETS
from regionvlp.losses.settings import LossSettings
from regionvlp.systems.demovlp import DemoVLP
from regionvlp.systems.registry import build_system

from .demovlp_case import DemovlpCase, close, within_relative
from .discovery import Case, cases
from .test_model_step import our_name, public_batch


def same_weights(case: Case) -> DemovlpCase | None:
    """The case of the whole model whose weights the checkpoint holds, if it lies beside it."""
    step = Case(case.folder, case.stem.replace("legacy_checkpoint", "model_step"))
    return DemovlpCase(step) if step.path(".npz").exists() else None


@pytest.mark.parametrize("case", cases("demovlp", "legacy_checkpoint"))
def test_legacy_checkpoint(case: Case) -> None:
    golden = same_weights(case)
    heads = golden.config["video"]["heads"] if golden else 1
    found = read_public_demovlp(case.path(".pth"), heads=heads)
    losses = LossSettings(region_word=REGION_WORD_PRESETS["public"])
    task = build_system("demovlp", found.model, losses, pretrained=False).eval()
    task.load_state_dict(found.weights)
    if golden is None:
        return
    assert isinstance(task, DemoVLP)
    for name, tensor in golden.section("param/").items():
        close(found.weights["model." + our_name(name)], tensor.float(), 0)
    batch = public_batch(golden)
    with torch.no_grad():
        videos, texts, step = task.encode_video(batch), task.encode_text(batch), task(batch)
    for tokens, name in (
        (videos.pooled, "global_object_embeddings"), (videos.tokens, "local_object_embeddings"),
        (texts.pooled, "global_text_embeddings"), (texts.tokens, "local_text_embeddings"),
    ):  # fmt: skip
        close(tokens, golden[name], 1e-4 * float(golden[name].abs().max()))
    for name in ("global_loss", "local_loss"):
        close(step[name], golden[name], within_relative(golden[name]))
