"""Family ``caffe`` against MILVLG's bottom-up-attention, stage by stage and end to end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from regionvlp.extract.detector.head import object_probabilities, regress
from regionvlp.extract.detector.selection import stored_by_milvlg, suppressed_scores

from .detector_case import Array, DetectorCase, Differences, is_full_size
from .detector_stages import ImageStages
from .discovery import Case, cases

# (min_boxes, max_boxes, threshold) of the selection settings in the files.
SETTINGS = {
    "dyn10_100": (10, 100, 0.2),
    "fix36": (36, 36, 0.2),
    "fix30": (30, 30, 0.2),
    "dyn5_12": (5, 12, 0.2),
    "dyn40_100": (40, 100, 0.6),
}


@pytest.mark.parametrize("case", cases("detector", "caffe_", slow=is_full_size))
def test_caffe(case: Case, tmp_path: Path) -> None:
    golden = DetectorCase(case, tmp_path)
    found = Differences()
    with torch.inference_mode():
        for image in golden.images:
            CaffeImage(golden, image, is_full_size(case), found).check()
    found.conclude(case.stem)


class CaffeImage(ImageStages):
    """One picture: the shared stages, MILVLG's selections, its two passes, and the whole."""

    def im_scale(self) -> float:
        return float(self["im_scale"])

    def check(self) -> None:
        assert self.resize.scale_x == self.resize.scale_y == self.im_scale()
        res4 = self.check_res4()
        objectness, deltas = self.check_rpn(res4)
        self.check_proposals(objectness, deltas)
        features, logits = self.check_head(res4)
        self.check_selections(features, logits, self.proposals_original())
        if self.has("regressed/bbox"):
            self.check_regressed_and_given(res4)
        if self.full:
            self.check_end_to_end_by_box()
        else:
            self.check_end_to_end()

    def proposals_original(self) -> Array:
        return self["proposal_boxes"] / np.float32(self.im_scale())

    def check_selections(
        self, features: torch.Tensor, logits: torch.Tensor, boxes: Array, boxes_within: float = 1e-3
    ) -> None:
        probabilities = object_probabilities(logits, self.config).numpy()
        nms, convention = self.config.selection.nms[0], self.config.boxes
        order, scores = suppressed_scores(boxes, probabilities, nms, convention, enough=len(boxes))
        max_conf = np.zeros(len(boxes), np.float32)
        max_conf[order] = scores
        self.found.within("max_conf", max_conf, self["max_conf"], 1e-3)
        attributes = self.head.attribute_probabilities(features, logits)
        for name, setting in SETTINGS.items():
            if not self.has(f"{name}/index"):
                continue
            index = stored_by_milvlg(boxes, probabilities, nms, convention, *setting)
            self.found.equal(f"{name}/index", index, self[f"{name}/index"])
            if not np.array_equal(index, self[f"{name}/index"]):
                continue
            self.found.within("*/bbox", boxes[index], self[f"{name}/bbox"], boxes_within)
            self.found.within("objects_conf", probabilities[index].max(axis=1), self[f"{name}/objects_conf"], 1e-3)
            self.found.equal("objects_id", probabilities[index].argmax(axis=1), self[f"{name}/objects_id"])
            self.found.within("attrs_conf", attributes[index].max(dim=1).values, self[f"{name}/attrs_conf"], 1e-3)
            self.found.equal("attrs_id", attributes[index].argmax(dim=1), self[f"{name}/attrs_id"])
            if self.has(f"{name}/x"):
                self.found.within("*/x", features[index], self[f"{name}/x"], self.features_within)

    def check_regressed_and_given(self, res4: torch.Tensor) -> None:
        """MILVLG's two passes: boxes of the best classes, then the features of these boxes."""
        probabilities = object_probabilities(self.tensor("cls_logits"), self.config)
        classes = probabilities.argmax(dim=1)
        deltas = self.tensor("bbox_deltas").reshape(len(classes), -1, 4)[torch.arange(len(classes)), classes + 1]
        height, width = self.resize.new_height / self.im_scale(), self.resize.new_width / self.im_scale()
        boxes = regress(torch.from_numpy(self.proposals_original()), deltas, height, width, self.config).numpy()
        nms = self.config.selection.nms[0]
        index = stored_by_milvlg(
            boxes, probabilities.numpy(), nms, self.config.boxes, 0, len(self["regressed/bbox"]), 0.2
        )
        self.found.within("regressed/bbox", boxes[index], self["regressed/bbox"], 0.02)

        given = self.tensor("regressed/bbox")
        features = self.head.features(res4, [given * self.im_scale()], chunk=64)
        self.found.within("given/x", features, self["given/x"], self.features_within)
        logits = self.head.class_logits(features)
        self.found.within("given/cls_probs", logits.softmax(dim=1), self["given/cls_probs"], 1e-3)
        attributes = self.head.attribute_probabilities(features, logits)
        self.found.within("given/attr_probs", attributes, self["given/attr_probs"][:, 1:], 1e-3)
        public = self.detector.regions_for_boxes([self.frame], [given.numpy()])[0]
        self.found.within("given/x end to end", public.features, self["given/x"], self.features_within)
        self.found.equal("given class_ids", public.class_ids, self["given/cls_probs"][:, 1:].argmax(axis=1))

    def check_end_to_end(self) -> None:
        """Picture in, regions out: the same proposals are chosen in every setting."""
        boxes, features, logits = self.run()
        self.check_selections(features, logits, boxes.numpy() / np.float32(self.im_scale()), boxes_within=0.05)
        ours, order = self.detector.detect([self.frame])[0], self.public_order()
        self.found.within("detect boxes", ours.boxes, self["dyn10_100/bbox"][order], 0.05)
        self.found.within("detect scores", ours.scores, self["dyn10_100/objects_conf"][order], 1e-3)
        self.found.within("detect features", ours.features, self["dyn10_100/x"][order], self.features_within)
        self.found.equal("detect class_ids", ours.class_ids, self["dyn10_100/objects_id"][order])
        self.found.equal("detect attribute_ids", ours.attribute_ids, self["dyn10_100/attrs_id"][order])

    def check_end_to_end_by_box(self) -> None:
        """At full size near ties swap proposals and a corner may round another way: a rare region may differ."""
        ours, order = self.detector.detect([self.frame])[0], self.public_order()
        matched = self.check_matched("detect boxes", ours.boxes, self["dyn10_100/bbox"][order], exceptions=1)
        both = matched >= 0
        scores = np.abs(ours.scores[matched[both]] - self["dyn10_100/objects_conf"][order][both])
        self.found.largest["detect scores"] = float(scores.max())
        if (scores > 1e-3).sum() > 1:
            self.found.complaints.append(f"detect scores: {(scores > 1e-3).sum()} regions differ")
        fixed = self.detector.regions_for_boxes([self.frame], [self["fix30/bbox"]])[0]
        error = np.linalg.norm(fixed.features - self["fix30/x"], axis=1) / np.linalg.norm(self["fix30/x"], axis=1)
        self.found.largest["detect features, relative"] = float(np.sort(error)[-2])
        if (error > 1e-3).sum() > 1:
            self.found.complaints.append(f"detect features: {(error > 1e-3).sum()} of 30 are off by more than 0.1 %")

    def public_order(self) -> Array:
        """DemoVLP's reading of a stored frame: the 30 best by raw probability, ties to the lower proposal."""
        return np.lexsort((self["dyn10_100/index"], -self["dyn10_100/objects_conf"]))[:30]
