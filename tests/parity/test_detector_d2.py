"""Family ``d2`` against MILVLG's mode d2 on detectron2."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from regionvlp.extract.detector.head import object_probabilities
from regionvlp.extract.detector.selection import select

from .detector_case import DetectorCase, Differences
from .detector_stages import ImageStages
from .discovery import Case, cases


@pytest.mark.parametrize("case", cases("detector", "d2_"))
def test_d2(case: Case, tmp_path: Path) -> None:
    # The README: the picture was resized as that code does in training; at most 100 detections.
    golden = DetectorCase(case, tmp_path, input={"resample": "pillow_uint8"}, selection={"regions": 100})
    found = Differences()
    with torch.inference_mode():
        for image in golden.images:
            D2Image(golden, image, False, found).check()
    found.conclude(case.stem)


class D2Image(ImageStages):
    """One picture: the shared stages, the detections, and the whole."""

    def check(self) -> None:
        selection = self.config.selection
        assert selection.score_above == float(self["score_thresh"])
        assert selection.nms == (float(self["nms_thresh"]),)
        res4 = self.check_res4()
        self.check_proposals(*self.check_rpn(res4))
        _, logits = self.check_head(res4)
        boxes = self.tensor("proposal_boxes")
        self.check_detections(boxes, logits, self.tensor("bbox_deltas").reshape(len(boxes), -1, 4))
        boxes, features, logits = self.run()
        self.check_detections(boxes, logits, self.head.box_deltas(features))
        self.check_detect()

    def check_detections(self, boxes: torch.Tensor, logits: torch.Tensor, deltas: torch.Tensor) -> None:
        height, width, _ = self.frame.shape
        probabilities = object_probabilities(logits, self.config)
        chosen = select(boxes / self.scale(), probabilities, deltas, height, width, self.config)
        self.found.equal("detections/index", chosen.index, self["detections/index"])
        self.found.within("detections/bbox", chosen.boxes * self.scale(), self["detections/bbox_resized"], 0.02)
        self.found.within("detections/objects_conf", chosen.scores, self["detections/objects_conf"], 1e-3)
        self.found.equal("detections/objects_id", chosen.class_ids, self["detections/objects_id"])

    def check_detect(self) -> None:
        ours, index = self.detector.detect([self.frame])[0], self["detections/index"]
        expected = self["detections/bbox_resized"] / self.scale().numpy()
        self.found.within("detect boxes", ours.boxes, expected, 0.05)
        self.found.within("detect scores", ours.scores, self["detections/objects_conf"], 1e-3)
        self.found.within("detect features", ours.features, self["pooled_features"][index], self.features_within)
        self.found.equal("detect class_ids", ours.class_ids, self["detections/objects_id"])
        attributes = self["attr_logits"][index].argmax(axis=1)
        self.found.equal("detect attribute_ids", ours.attribute_ids, attributes)
