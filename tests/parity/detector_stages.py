"""The stages that all families share, each compared with what the reference made of the same input.

Each stage gets the expected output of the stage before it, so that errors do not add up. A full-size case holds
summaries of some arrays (means, the first channels, the five best classes); then those are compared.
Shape letters: N proposals, C feature width, O object classes.
"""

from __future__ import annotations

import numpy as np
import torch

from regionvlp.extract.detector.preprocess import preprocess
from regionvlp.extract.detector.rpn import propose

from .detector_case import Array, DetectorCase, Differences


class ImageStages:
    """The comparison of one picture of a case."""

    def __init__(self, golden: DetectorCase, image: int, full: bool, found: Differences) -> None:
        self.golden, self.prefix, self.full, self.found = golden, f"img{image}/", full, found
        self.detector, self.config = golden.detector, golden.detector.config
        self.network, self.head = self.detector.network, self.detector.network.roi_heads
        self.frame, self.resize = golden.frame(image), golden.resize(image)
        # Whole grey levels minus the mean leave no room for differences.
        self.input_within = 0.02 if self.config.input.resample == "opencv_float" else 0.0
        self.maps_within, self.features_within = (5e-3, 2e-3) if full else (1e-3, 5e-4)

    def __getitem__(self, name: str) -> Array:
        return self.golden[self.prefix + name]

    def has(self, name: str) -> bool:
        return self.prefix + name in self.golden

    def tensor(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self[name])

    def check_res4(self) -> torch.Tensor:
        """The input and res4; returns the expected res4, or ours where the file has only a summary."""
        ours = preprocess(torch.from_numpy(self.frame[None]), self.resize, self.config.input)[0]
        self.found.equal("net_input_shape", ours.shape, self["net_input_shape"])
        if self.full:
            self.found.within("net_input", ours[:, ::8, ::8], self["net_input_ds8"], 0.02)
            res4 = self.network.res4(ours[None])
            self.found.within("res4", res4[0, :8], self["res4_ch0_8"], self.maps_within)
            self.found.within("res4_mean", res4[0].mean(dim=(1, 2)), self["res4_mean"], self.maps_within)
            return res4
        self.found.within("net_input", ours, self["net_input"], self.input_within)
        res4 = self.network.res4(self.tensor("net_input")[None])
        self.found.within("res4", res4[0], self["res4"], self.maps_within)
        return self.tensor("res4")[None]

    def check_rpn(self, res4: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        objectness, deltas = self.network.rpn(res4)
        if self.full:
            return objectness, deltas
        self.found.within("rpn_objectness", objectness[0], self["rpn_objectness"], 2e-3)
        self.found.within("rpn_deltas", deltas[0], self["rpn_deltas"], 1e-3)
        return self.tensor("rpn_objectness")[None], self.tensor("rpn_deltas")[None]

    def check_proposals(self, objectness: torch.Tensor, deltas: torch.Tensor) -> None:
        boxes, scores = self.propose(objectness, deltas)
        if self.full:
            self.check_matched("proposal_boxes", boxes.numpy(), self["proposal_boxes"], exceptions=3)
        else:
            self.found.within("proposal_boxes", boxes, self["proposal_boxes"], 0.05)
            self.found.within("proposal_scores", scores, self["proposal_scores"], 1e-3)

    def check_matched(self, stage: str, ours: Array, expected: Array, exceptions: int) -> Array:
        """Every expected box has one of ours within 0.1 px, but for a few; returns which of ours is nearest."""
        distance = np.abs(ours[None] - expected[:, None]).max(axis=2)
        matched = distance.min(axis=1) <= 0.1
        self.found.largest[stage] = float(distance.min(axis=1)[matched].max())
        if (~matched).sum() > exceptions:
            self.found.complaints.append(f"{stage}: {(~matched).sum()} of {len(expected)} boxes have no match")
        return np.where(matched, distance.argmin(axis=1), -1)

    def check_head(self, res4: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Everything from pooling to the linear heads; returns features and class logits, expected ones if stored."""
        boxes = self.tensor("proposal_boxes")
        features = self.head.features(res4, [boxes], chunk=64)
        logits = self.head.class_logits(features)
        if self.full:
            self.found.within("pooled_features_mean", features.mean(dim=1), self["pooled_features_mean"], 2e-3)
            top = logits.softmax(dim=1).topk(5)
            self.found.within("cls_top5_prob", top.values, self["cls_top5_prob"], 1e-3)
            clear = np.abs(np.diff(self["cls_top5_prob"][:, :2], axis=1))[:, 0] > 1e-3
            self.found.equal("cls_top1_index", top.indices[clear, 0], self["cls_top5_index"][clear, 0])
            return features, logits
        rois = torch.nn.functional.pad(boxes[:3], (1, 0))
        self.found.within("roi_pool_first3", self.head.pool(res4, rois), self["roi_pool_first3"], self.maps_within)
        res5 = self.head.res5(self.tensor("roi_pool_first3")[:2])
        self.found.within("res5_first2", res5, self["res5_first2"], self.maps_within)
        self.found.within("pooled_features", features, self["pooled_features"], self.features_within)
        features = self.tensor("pooled_features")
        self.found.within("cls_logits", self.head.class_logits(features), self["cls_logits"], 5e-3)
        rows = self.head.box_predictor.bbox_pred(features)
        self.found.within("bbox_deltas", rows, self["bbox_deltas"], 5e-3)
        logits = self.tensor("cls_logits")
        if self.has("attr_logits"):
            scores = self.head.attribute_head(features, logits.argmax(dim=1))
            self.found.within("attr_logits", scores, self["attr_logits"], 5e-3)
        else:
            attributes = self.head.attribute_probabilities(features, logits)
            self.found.within("attr_probs", attributes, self["attr_probs"][:, 1:], 1e-3)
        return features, logits

    def propose(self, objectness: torch.Tensor, deltas: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Boxes [N, 4] in resized pixels and scores [N] from the raw outputs of the RPN."""
        return propose(objectness, deltas, self.detector.anchors, self.resize, self.config)[0]

    def run(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Picture in; proposals [N, 4] in resized pixels, features [N, C] and class logits [N, O + 1] out."""
        images = preprocess(torch.from_numpy(self.frame[None]), self.resize, self.config.input)
        res4 = self.network.res4(images)
        boxes, _ = self.propose(*self.network.rpn(res4))
        features = self.head.features(res4, [boxes], chunk=64)
        return boxes, features, self.head.class_logits(features)

    def scale(self) -> torch.Tensor:
        """Resized pixels per original pixel, for x1 y1 x2 y2."""
        return torch.tensor([self.resize.scale_x, self.resize.scale_y] * 2, dtype=torch.float32)
