"""A whole dual encoder against golden numbers: embeddings, similarity, losses, the gradient of every parameter."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from regionvlp.losses import REGION_WORD_PRESETS, global_similarity
from regionvlp.models import DualEncoder, TextEncoder, TextEncoderSettings
from regionvlp.systems.demovlp import DemoVLP, LossSettings

from .demovlp_case import EXACT, DemovlpCase, close, gradients_close
from .discovery import Case, cases
from .test_encoder import public_encoder

OUR_NAMES = {"object_model.": "video.", "text_model.": "text.model.", "txt_proj.1.": "text.projection."}


def our_name(public: str) -> str:
    """Our name of a parameter of the public state dict."""
    prefix = next(prefix for prefix in OUR_NAMES if public.startswith(prefix))
    return OUR_NAMES[prefix] + public.removeprefix(prefix)


def public_task(golden: DemovlpCase) -> DemoVLP:
    text = golden.config["text"]
    settings = TextEncoderSettings(
        vocab_size=text["vocab_size"],
        width=text["dim"],
        depth=text["n_layers"],
        heads=text["n_heads"],
        mlp_width=text["hidden_dim"],
        max_length=text["max_position_embeddings"],
        joint_width=golden.config["video"]["out_dim"],
    )
    model = DualEncoder(public_encoder(golden.config["video"]), TextEncoder(settings)).double().eval()
    model.load_state_dict({our_name(name): tensor for name, tensor in golden.section("param/").items()})
    return DemoVLP(model, LossSettings(region_word=REGION_WORD_PRESETS["public"]))


def public_batch(golden: DemovlpCase) -> dict[str, Tensor]:
    """The inputs of a case under the keys of our batches."""
    video = golden.config["video"]
    features, location = golden["regions"].split([video["feat_dim"], video["pos_dim"]], dim=-1)
    return {
        "features": features,
        "location": location,
        "region_mask": golden["region_mask"] > 0,
        "input_ids": golden["input_ids"],
        "attention_mask": golden["attention_mask"],
    }


@pytest.mark.parametrize("case", cases("demovlp", "model_step"))
def test_model_step(case: Case) -> None:
    golden = DemovlpCase(case)
    task = public_task(golden)
    batch = public_batch(golden)
    videos, texts = task.encode_video(batch), task.encode_text(batch)
    close(videos.pooled, golden["global_object_embeddings"])
    close(videos.tokens, golden["local_object_embeddings"])
    close(texts.pooled, golden["global_text_embeddings"])
    close(texts.tokens, golden["local_text_embeddings"])  # at padding too
    assert torch.equal(videos.mask, golden["object_mask"] == 0)
    close(global_similarity(video=videos, text=texts), golden["global_sim"])

    losses = task(batch)
    close(losses["global_loss"], golden["global_loss"])
    close(losses["local_loss"], golden["local_loss"])
    total = losses["global_loss"] + losses["local_loss"]
    close(total, golden["loss"])
    total.backward()
    parameters = dict(task.model.named_parameters())
    for name, grad in golden.section("grad/").items():
        gradients_close(parameters[our_name(name)].grad, grad, EXACT)
    untouched = {name for name, parameter in parameters.items() if parameter.grad is None}
    assert untouched == {our_name(name) for name in golden.config["params_without_grad"]}
