"""Family ``maxnms`` against airsplay's py-bottom-up-attention and the LXMERT example's selection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from regionvlp.config import load_config
from regionvlp.extract.detector.boxes import decode
from regionvlp.extract.detector.config import DetectorConfig
from regionvlp.extract.detector.head import object_probabilities
from regionvlp.extract.detector.selection import Selection, select

from .detector_case import DetectorCase, Differences
from .detector_stages import ImageStages
from .discovery import Case, cases


@pytest.mark.parametrize("case", cases("detector", "maxnms_"))
def test_maxnms(case: Case, tmp_path: Path) -> None:
    kept = len(np.load(case.path(".npz"))["img0/maxnms/index"])
    golden = DetectorCase(case, tmp_path, selection={"regions": kept})
    found = Differences()
    with torch.inference_mode():
        for image in golden.images:
            MaxnmsImage(golden, image, False, found).check()
    found.conclude(case.stem)


class MaxnmsImage(ImageStages):
    """One picture: the shared stages, both selections of that code, and the whole."""

    def check(self) -> None:
        res4 = self.check_res4()
        self.check_proposals(*self.check_rpn(res4))
        features, logits = self.check_head(res4)
        boxes = self.tensor("proposal_boxes")
        deltas = self.tensor("bbox_deltas").reshape(len(boxes), -1, 4)
        moved = decode(boxes[:, None], deltas, self.config.head.box_weights, self.config.boxes)
        self.found.within("pred_boxes_all", moved.flatten(1), self["pred_boxes_all"], 0.02)
        self.check_selections(boxes, features, logits, deltas)
        boxes, features, logits = self.run()
        self.check_selections(boxes, features, logits, self.head.box_deltas(features))
        self.check_detect()

    def check_selections(
        self, boxes: torch.Tensor, features: torch.Tensor, logits: torch.Tensor, deltas: torch.Tensor
    ) -> None:
        chosen = self.select(boxes, logits, deltas, {})
        self.compare("maxnms", chosen)
        attributes = self.head.attribute_probabilities(features[chosen.index], logits[chosen.index]).max(dim=1)
        self.found.within("attrs_conf", attributes.values, self["maxnms/attrs_conf"], 1e-3)
        self.found.equal("attrs_id", attributes.indices, self["maxnms/attrs_id"])
        self.found.within("maxnms/x", features[chosen.index], self["maxnms/x"], self.features_within)
        per_class = {"rule": "detections", "nms": (0.5, 0.6, 0.7, 0.8, 0.9), "score_above": 0.05}
        per_class["regions"] = len(self["classnms/index"])
        self.compare("classnms", self.select(boxes, logits, deltas, per_class))

    def select(
        self, boxes: torch.Tensor, logits: torch.Tensor, deltas: torch.Tensor, rule: dict[str, Any]
    ) -> Selection:
        config = load_config(DetectorConfig, self.config.model_dump(), {"selection": rule})
        probabilities = object_probabilities(logits, config)
        height, width, _ = self.frame.shape
        return select(boxes / self.scale(), probabilities, deltas, height, width, config)

    def compare(self, name: str, chosen: Selection) -> None:
        self.found.equal(f"{name}/index", chosen.index, self[f"{name}/index"])
        self.found.within(f"{name}/bbox", chosen.boxes, self[f"{name}/bbox"], 0.02)
        self.found.within(f"{name}/objects_conf", chosen.scores, self[f"{name}/objects_conf"], 1e-3)
        self.found.equal(f"{name}/objects_id", chosen.class_ids, self[f"{name}/objects_id"])

    def check_detect(self) -> None:
        ours = self.detector.detect([self.frame])[0]
        self.found.within("detect boxes", ours.boxes, self["maxnms/bbox"], 0.05)
        self.found.within("detect scores", ours.scores, self["maxnms/objects_conf"], 1e-3)
        self.found.within("detect features", ours.features, self["maxnms/x"], self.features_within)
        self.found.equal("detect class_ids", ours.class_ids, self["maxnms/objects_id"])
        self.found.equal("detect attribute_ids", ours.attribute_ids, self["maxnms/attrs_id"])
