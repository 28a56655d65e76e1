"""The bottleneck ResNet of Faster R-CNN "C4": res4 for the proposals, res5 for each region.

Shape letters: B images, H, W input size, K regions. Normalisation is folded into the convolutions when weights are
loaded (``weights.fold_norms``), so every convolution has a bias and nothing else stands between it and the ReLU.
Module names follow detectron2's, because the checkpoints do.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from regionvlp.extract.detector.config import BackboneConfig


class Stem(nn.Module):
    """[B, 3, H, W] to [B, stem, about H/4, about W/4]."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, config.stem, 7, stride=2, padding=3)
        self.pool = nn.MaxPool2d(3, stride=2, padding=config.pool_padding, ceil_mode=config.pool_ceil)

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.pool(functional.relu_(self.conv1(x)))
        return pooled


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 and a shortcut; a stride sits in the first 1x1 (Caffe's ResNet), a dilation in the 3x3."""

    def __init__(self, channels: int, width: int, out: int, stride: int, dilation: int, project: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, stride=stride)
        self.conv2 = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)
        self.conv3 = nn.Conv2d(width, out, 1)
        self.shortcut = nn.Conv2d(channels, out, 1, stride=stride) if project else None

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu_(self.conv1(x))
        y = functional.relu_(self.conv2(y))
        y = self.conv3(y)
        y += x if self.shortcut is None else self.shortcut(x)
        return functional.relu_(y)


def make_stage(config: BackboneConfig, stage: int) -> nn.Sequential:
    """res2, res3, res4 or res5 (``stage`` 2 to 5)."""
    grown = 2 ** (stage - 2)
    width, out = config.bottleneck * grown, config.channels * grown
    channels = config.stem if stage == 2 else out // 2
    stride = {2: 1, 5: config.res5_stride}.get(stage, 2)
    dilation = config.res5_dilation if stage == 5 else 1
    blocks = [Bottleneck(channels, width, out, stride, dilation, project=True)]
    for _ in range(config.blocks[stage - 2] - 1):
        blocks.append(Bottleneck(out, width, out, 1, dilation, project=False))
    return nn.Sequential(*blocks)


class Backbone(nn.Module):
    """[B, 3, H, W] to res4, [B, 4 * channels, about H/16, about W/16]."""

    # The stem needs two rows for an unpadded pool of three in ceil mode, and makes them of three.
    SMALLEST_SIDE = 3

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.stem = Stem(config)
        self.res2 = make_stage(config, 2)
        self.res3 = make_stage(config, 3)
        self.res4 = make_stage(config, 4)

    def forward(self, x: Tensor) -> Tensor:
        res4: Tensor = self.res4(self.res3(self.res2(self.stem(x))))
        return res4
