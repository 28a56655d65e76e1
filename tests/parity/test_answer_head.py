"""The question-answering head against golden numbers of the public code: logits, attention, loss, gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from regionvlp.models import Encoded
from regionvlp.models.heads import AnswerHead
from regionvlp.models.settings import AnswerHeadSettings

from .demovlp_case import EXACT, DemovlpCase, close, gradients_close, within_relative
from .discovery import Case, cases


def with_cls(tokens: Tensor, mask: Tensor) -> Encoded:
    """Tokens whose first one is CLS."""
    return Encoded(tokens[:, 0], tokens[:, 1:], mask)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("case", cases("demovlp", "butd_head"))
def test_answer_head(case: Case, dtype: torch.dtype) -> None:
    golden = DemovlpCase(case)
    sizes = {"answers": golden.config["num_label"], "width": golden.config["q_dim"], "hidden": golden.config["hid_dim"]}
    head = AnswerHead(AnswerHeadSettings(**sizes)).to(dtype).eval()
    head.load_state_dict(golden.section("param/"))
    words = golden["text_tokens"].to(dtype).requires_grad_()
    regions = golden["object_tokens"].to(dtype).requires_grad_()
    sides = {
        "text": with_cls(words, torch.ones(words.shape[0], words.shape[1] - 1, dtype=torch.bool)),
        "video": with_cls(regions, golden["mask"].flatten(1) > 0),
    }
    double = dtype is torch.float64
    logits = head(**sides)
    close(logits, golden["logits"], EXACT if double else 1e-4 * float(golden["logits"].abs().max()))
    close(head.attention(**sides), golden["attention"], EXACT if double else 2e-5)
    loss = functional.cross_entropy(logits, golden["label"].long())
    close(loss, golden["loss"], EXACT if double else within_relative(golden["loss"]))
    loss.backward()
    within = EXACT if double else None
    gradients_close(words.grad, golden["grad_text_tokens"], within)
    gradients_close(regions.grad, golden["grad_object_tokens"], within)
    parameters = dict(head.named_parameters())
    for name, grad in golden.section("grad/").items():
        gradients_close(parameters[name].grad, grad, within)
