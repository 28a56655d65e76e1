"""Family ``d2`` against MILVLG's mode d2 on detectron2."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from regionvlp.extract.detector.head import object_probabilities
from regionvlp.extract.detector.selection import select
from regionvlp.regions import FrameRegions

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
        self.check_detect(self.check_detections(boxes, logits, self.head.box_deltas(features), end_to_end=True))

    def check_detections(
        self, boxes: torch.Tensor, logits: torch.Tensor, deltas: torch.Tensor, end_to_end: bool = False
    ) -> np.ndarray:
        """Compares the detections and returns their order: for each expected one, which of ours it is.

        End to end, float noise (which depends on the number of threads) may swap neighbours whose scores are closer
        than 1e-4, as the specification allows; fed the expected stage, the order must be the same.
        """
        height, width, _ = self.frame.shape
        probabilities = object_probabilities(logits, self.config)
        chosen = select(boxes / self.scale(), probabilities, deltas, height, width, self.config)
        order = np.arange(len(chosen.index))
        if end_to_end:
            ours = {
                pair: i for i, pair in enumerate(zip(chosen.index.tolist(), chosen.class_ids.tolist(), strict=True))
            }
            pairs = zip(self["detections/index"].tolist(), self["detections/objects_id"].tolist(), strict=True)
            order = np.array([ours.get(pair, i) for i, pair in enumerate(pairs)])
            scores = self["detections/objects_conf"]
            assert np.abs(scores[order] - scores).max() < 1e-4, "detections of unlike scores changed places"
        self.found.equal("detections/index", chosen.index[order], self["detections/index"])
        self.found.within(
            "detections/bbox", (chosen.boxes * self.scale())[order], self["detections/bbox_resized"], 0.02
        )
        self.found.within("detections/objects_conf", chosen.scores[order], self["detections/objects_conf"], 1e-3)
        self.found.equal("detections/objects_id", chosen.class_ids[order], self["detections/objects_id"])
        return order

    def check_detect(self, order: np.ndarray) -> None:
        found, index = self.detector.detect([self.frame])[0], self["detections/index"]
        ours = FrameRegions(**{field.name: getattr(found, field.name)[order] for field in fields(found)})
        expected = self["detections/bbox_resized"] / self.scale().numpy()
        self.found.within("detect boxes", ours.boxes, expected, 0.05)
        self.found.within("detect scores", ours.scores, self["detections/objects_conf"], 1e-3)
        self.found.within("detect features", ours.features, self["pooled_features"][index], self.features_within)
        self.found.equal("detect class_ids", ours.class_ids, self["detections/objects_id"])
        attributes = self["attr_logits"][index].argmax(axis=1)
        self.found.equal("detect attribute_ids", ours.attribute_ids, attributes)
