"""Heads on top of a dual encoder: answers to open-ended questions (DemoVLP, appendix A.3; spec section 8.1).

Shape letters: B pairs of a video and a question, N regions of a clip, W words, D joint width, H hidden width,
A answers.

The head is "bottom-up and top-down" attention: the question decides which regions matter, and what they show together
with what is asked decides the answer. Parameter names are those of the public state dict below ``head.``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from regionvlp.models.encoded import Encoded
from regionvlp.models.settings import AnswerHeadSettings


class NormedLinear(nn.Module):
    """A linear layer whose whole weight matrix is divided by its norm and scaled by one learnt number."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        plain = nn.Linear(inputs, outputs)
        self.weight_v = nn.Parameter(plain.weight.detach().clone())
        self.weight_g = nn.Parameter(plain.weight.detach().norm())
        self.bias = nn.Parameter(plain.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] to [..., outputs]."""
        return functional.linear(x, self.weight_v * (self.weight_g / self.weight_v.norm()), self.bias)


class _Rectified(nn.Module):
    """:class:`NormedLinear`, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.main = nn.Sequential(NormedLinear(inputs, outputs), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.main(x)
        return out


class _RegionAttention(nn.Module):
    """Which regions a question is about."""

    def __init__(self, settings: AnswerHeadSettings) -> None:
        super().__init__()
        self.v_proj = _Rectified(settings.width, settings.hidden)
        self.q_proj = _Rectified(settings.width, settings.hidden)
        self.dropout = nn.Dropout(settings.dropout)
        self.linear = NormedLinear(settings.hidden, 1)

    def forward(self, regions_BND: Tensor, question_BD: Tensor) -> Tensor:
        """[B, N] logits."""
        joint_BNH = self.v_proj(regions_BND) * self.q_proj(question_BD)[:, None]
        logits_BN1: Tensor = self.linear(self.dropout(joint_BNH))
        return logits_BN1.squeeze(-1)


class _Classifier(nn.Module):
    """Question and attended regions to answers."""

    def __init__(self, settings: AnswerHeadSettings) -> None:
        super().__init__()
        hidden = settings.hidden
        self.q_net = _Rectified(settings.width, hidden)
        self.v_net = _Rectified(settings.width, hidden)
        # The third is the public code's dropout of 0, which holds a number in the state dict's names.
        layers = nn.Linear(hidden, 2 * hidden), nn.ReLU(), nn.Identity(), nn.Linear(2 * hidden, settings.answers)
        self.main = nn.Sequential(*layers)

    def forward(self, question_BD: Tensor, regions_BD: Tensor) -> Tensor:
        logits_BA: Tensor = self.main(self.q_net(question_BD) * self.v_net(regions_BD))
        return logits_BA


class AnswerHead(nn.Module):
    """Scores every answer of a vocabulary for a video and a question about it."""

    def __init__(self, settings: AnswerHeadSettings) -> None:
        super().__init__()
        self.settings = settings
        self.v_att = _RegionAttention(settings)
        self.classifier = _Classifier(settings)

    def forward(self, *, video: Encoded, text: Encoded) -> Tensor:
        """[B, A] logits; train with cross-entropy over the index of the one right answer.

        Args:
            video: tokens [B, N, D] are the regions. A clip without valid regions is answered from the mean of its
                padding in either form.
            text: of the questions; all of it, pooled vector included, may be read (see ``text_pool``).
        """
        attention_BN = self.attention(video=video, text=text)
        regions_BD = torch.einsum("bn,bnd->bd", attention_BN, video.tokens)
        answers_BA: Tensor = self.classifier(self._question(text), regions_BD)
        return answers_BA

    def attention(self, *, video: Encoded, text: Encoded) -> Tensor:
        """[B, N]: how much each region counts for the answer; sums to 1 over N."""
        logits_BN = self.v_att(video.tokens, self._question(text))
        # The lowest finite number rather than -inf: a softmax over nothing is then uniform instead of NaN.
        padding = 0.0 if self.settings.padding == "zero" else torch.finfo(logits_BN.dtype).min
        attention_BN: Tensor = logits_BN.masked_fill(~video.mask, padding).softmax(-1)
        return attention_BN

    def _question(self, text: Encoded) -> Tensor:
        """[B, D]"""
        if self.settings.text_pool == "cls":
            return text.pooled
        words_BWD = text.tokens
        if self.settings.text_pool == "valid":
            words_BWD = words_BWD.masked_fill(~text.mask[..., None], torch.finfo(words_BWD.dtype).min)
        return torch.cat([text.pooled[:, None], words_BWD], dim=1).amax(1)
