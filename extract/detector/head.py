"""The region head: a box becomes a feature, class scores, a regressed box and attributes.

Shape letters: K regions (of all images of a batch, one after another), C feature width, O object classes, T attribute
classes. In: res4 [B, C/2, h, w] and boxes in resized pixels. Out: features [K, C] and what is linear in them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision import ops

from regionvlp.extract.detector import boxes as box_ops
from regionvlp.extract.detector.config import DetectorConfig
from regionvlp.extract.detector.resnet import make_stage
from regionvlp.extract.detector.rpn import STRIDE


class BoxPredictor(nn.Module):
    """Features [K, C] to class logits [K, O + 1] and class-specific box regressions [K, 4O or 4(O + 1)]."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        head = config.head
        self.cls_score = nn.Linear(config.feature_width, head.classes + 1)
        self.bbox_pred = nn.Linear(config.feature_width, 4 * (head.classes + head.background_box))


class AttributeHead(nn.Module):
    """Features [K, C] and their best class column [K] to attribute logits [K, T (+ 1)]."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        head = config.head
        self.embedding = nn.Embedding(head.classes + 1, head.embedding)
        self.hidden = nn.Linear(config.feature_width + head.embedding, head.hidden)
        self.score = nn.Linear(head.hidden, head.attributes + (head.no_attribute != "absent"))

    def forward(self, features: Tensor, columns: Tensor) -> Tensor:
        joined = torch.cat((features, self.embedding(columns)), dim=1)
        logits: Tensor = self.score(functional.relu_(self.hidden(joined)))
        return logits


class RegionHead(nn.Module):
    """Everything that happens to a region after pooling; the attribute head is absent where there are no attributes."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        self.res5 = make_stage(config.backbone, 5)
        self.box_predictor = BoxPredictor(config)
        self.attribute_head = AttributeHead(config) if config.head.attributes else None
        self.res5_type = torch.float32
        self.compiled_res5: Callable[[Tensor], Tensor] | None = None

    def pool(self, res4: Tensor, rois: Tensor) -> Tensor:
        """Pools rois [K, 5] (image number, box in resized pixels) to [K, C/2, S, S]."""
        head = self.config.head
        size, scale = head.pool_size, 1.0 / STRIDE
        if head.pooler == "roi_pool":
            pooled: Tensor = ops.roi_pool(res4, rois, size, scale)
        else:
            pooled = ops.roi_align(res4, rois, size, scale, sampling_ratio=head.sampling_ratio, aligned=True)
        return pooled

    def features(self, res4: Tensor, boxes: Sequence[Tensor], chunk: int) -> Tensor:
        """The region features of all images, [K, C] float32 with K the boxes of all images together.

        Pooling reads float32 whatever res4 and res5 are in: its coordinates are rounded to cells.

        Args:
            res4: [B, C/2, h, w]; boxes: for each image [N, 4] in resized pixels.
            chunk: regions that are pooled and run at once; the pooled maps and res5's activations of 300 regions
                would take 2 to 3 GB at full size.
        """
        rois = torch.cat([functional.pad(b, (1, 0), value=image) for image, b in enumerate(boxes)])
        total = len(rois)
        if self.compiled_res5 is not None:  # it knows one shape: rows of zeros fill the last chunk
            rois = functional.pad(rois, (0, 0, 0, -total % chunk))
        found = res4.new_empty((len(rois), self.config.feature_width), dtype=torch.float32)
        # The pooler reads and writes channels first, the convolutions run faster channels last: res4 is copied once
        # instead of once a chunk, and what is pooled once instead of in each convolution that reads it.
        res4 = res4.float().contiguous()
        for start in range(0, len(rois), chunk):
            pooled = self.pool(res4, rois[start : start + chunk])
            pooled = pooled.to(self.res5_type, memory_format=torch.channels_last)
            maps = (self.compiled_res5 or self.res5)(pooled)
            found[start : start + chunk] = maps.mean(dim=(2, 3), dtype=torch.float32)
        return found[:total]

    def class_logits(self, features: Tensor) -> Tensor:
        """[K, O + 1], background included, in float32."""
        logits: Tensor = self.box_predictor.cls_score(features)
        return logits

    def box_deltas(self, features: Tensor) -> Tensor:
        """[K, O, 4], the regressions of the object classes (an unused background row is dropped)."""
        head = self.config.head
        rows: Tensor = self.box_predictor.bbox_pred(features)
        deltas = rows.reshape(len(rows), -1, 4)
        return deltas[:, head.first_class :] if head.background_box else deltas

    def attribute_probabilities(self, features: Tensor, logits: Tensor) -> Tensor:
        """[K, T]: probability of each attribute, "none" left out.

        The class that the attribute is asked for is the best column of ``logits`` [K, O + 1], background included, as
        in all the public code. Whether "none" takes its share of the probability is ``head.no_attribute_competes``.
        """
        assert self.attribute_head is not None, "this detector has no attributes"
        head = self.config.head
        scores: Tensor = self.attribute_head(features, logits.argmax(dim=1))
        real = {"first": slice(1, None), "last": slice(None, -1), "absent": slice(None)}[head.no_attribute]
        if head.no_attribute_competes:
            return scores.softmax(dim=1)[:, real]
        return scores[:, real].softmax(dim=1)


def object_probabilities(logits: Tensor, config: DetectorConfig) -> Tensor:
    """[K, O]: softmax over all columns of ``logits`` [K, O + 1], background left out (its share stays taken)."""
    first = config.head.first_class
    return logits.softmax(dim=1)[:, first : first + config.head.classes]


def regress(boxes: Tensor, deltas: Tensor, height: float, width: float, config: DetectorConfig) -> Tensor:
    """Boxes [..., 4] moved by class-specific ``deltas`` [..., 4] and clipped to a frame of ``height`` x ``width``."""
    moved = box_ops.decode(boxes, deltas, config.head.box_weights, config.boxes)
    return box_ops.clip(moved, height, width, config.boxes)
