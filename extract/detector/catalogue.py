"""The detectors that have a name: what each is, under which licence, and how its weights are come by. Free of torch.

Most of the places that handed these files out have gone, so every entry also says under which file names its weights
are recognised, and a local file always works. Source: the READMEs of peteanderson80/bottom-up-attention,
MILVLG/bottom-up-attention.pytorch and airsplay/py-bottom-up-attention, and the Hugging Face hub.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

VG_CAFFE, VG_HUB, TOY = "vg-caffe", "vg-hub", "toy"


@dataclass(frozen=True)
class HubRepository:
    """Files of a repository on the Hugging Face hub.

    Attributes:
        repo_id, revision: which state of which repository.
        weights: the file with the tensors. config: the file with the sizes and thresholds that belong to them.
    """

    repo_id: str
    revision: str
    weights: str
    config: str


@dataclass(frozen=True)
class Entry:
    """One named detector.

    Attributes:
        name: what ``--detector`` calls it. family: whose conventions it follows. what: one line for people.
        licence: of the weights, as far as their authors say. where: where the file was handed out, as text.
        file_names: what its weights are called in the weights folder, besides ``NAME`` and ``NAME.pth`` and the like.
        hub: where the file can be fetched by name; None where it has to be found by hand.
        settings: keys of ``DetectorConfig`` in which it differs from its family.
        sha256: of the weights file, where it is known; otherwise it is recorded when the file is converted.
        refused: why a known file cannot be used here; empty where it can.
    """

    name: str
    family: str
    what: str
    licence: str
    where: str
    file_names: tuple[str, ...] = ()
    hub: HubRepository | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    sha256: str | None = None
    refused: str = ""


@dataclass(frozen=True)
class Vocabulary:
    """A list of class names that lies at a stable address.

    Attributes:
        url: one class a line. count: how many. sha256: of the file there.
    """

    url: str
    count: int
    sha256: str


_MILVLG = "linked (SharePoint) from the README of github.com/MILVLG/bottom-up-attention.pytorch"
_UNC = "was at http://nlp.cs.unc.edu/models/; see the README of github.com/airsplay/py-bottom-up-attention"
_MILVLG_LICENCE = (
    "none stated for the file; MILVLG's code is Apache-2.0, the Caffe original MIT, Visual Genome CC BY 4.0"
)
_UNC_LICENCE = (
    "none stated for the file; airsplay's code is Apache-2.0, the Caffe original MIT, Visual Genome CC BY 4.0"
)
_THIRTY_SIX = {"selection": {"min_boxes": 36, "max_boxes": 36}}

_ENTRIES = (
    Entry(
        TOY,
        "caffe",
        "a tiny detector of painted shapes that comes with the package",
        "MIT, as the package",
        "comes with the package",
    ),
    Entry(
        VG_CAFFE,
        "caffe",
        "Visual Genome Faster R-CNN ResNet-101, 10 to 100 boxes (MILVLG, from Caffe): what DemoVLP used",
        _MILVLG_LICENCE,
        _MILVLG,
        ("bua-caffe-frcn-r101-k10-100.pth", "bua-caffe-frcn-r101_with_attributes.pth"),
    ),
    Entry(
        "vg-caffe-k36",
        "caffe",
        "the same network after 320,000 of 380,000 iterations, 36 boxes (MILVLG, from Caffe)",
        _MILVLG_LICENCE,
        _MILVLG,
        ("bua-caffe-frcn-r101-k36.pth",),
        settings=_THIRTY_SIX,
    ),
    Entry(
        VG_HUB,
        "maxnms",
        "Visual Genome Faster R-CNN ResNet-101 from the Hugging Face hub (LXMERT, VisualBERT)",
        "none stated for the file; the code beside it is Apache-2.0, the Caffe original MIT, Visual Genome CC BY 4.0",
        "huggingface.co/unc-nlp/frcnn-vg-finetuned",
        hub=HubRepository("unc-nlp/frcnn-vg-finetuned", "main", "pytorch_model.bin", "config.yaml"),
        # The transformers example resizes floats; sizes and thresholds are read from the repository's config.yaml.
        settings={"input": {"resample": "torch_float"}},
    ),
    Entry(
        "vg-maxnms",
        "maxnms",
        "Visual Genome Faster R-CNN ResNet-101, 10 to 100 boxes (airsplay, from Caffe)",
        _UNC_LICENCE,
        _UNC,
        ("faster_rcnn_from_caffe_attr_original.pkl",),
    ),
    Entry(
        "vg-maxnms-k36",
        "maxnms",
        "the 36-box snapshot of the same network (airsplay, from Caffe): LXMERT's features",
        _UNC_LICENCE,
        _UNC,
        ("faster_rcnn_from_caffe_attr.pkl",),
    ),
    Entry(
        "vg-maxnms-objects",
        "maxnms",
        "the same network without its attribute head (airsplay, from Caffe)",
        _UNC_LICENCE,
        _UNC,
        ("faster_rcnn_from_caffe.pkl",),
    ),
    Entry(
        "vg-d2",
        "d2",
        "Visual Genome Faster R-CNN ResNet-101, trained in detectron2 (MILVLG)",
        _MILVLG_LICENCE,
        _MILVLG,
        ("bua-d2-frcn-r101.pth",),
    ),
    Entry(
        "vg-d2-r50",
        "d2",
        "the same with ResNet-50 (MILVLG)",
        _MILVLG_LICENCE,
        _MILVLG,
        ("bua-d2-frcn-r50.pth",),
    ),
    Entry(
        "vg-caffe-r152",
        "caffe",
        "pre-activation ResNet-152 (MILVLG, from Caffe)",
        _MILVLG_LICENCE,
        _MILVLG,
        ("bua-caffe-frcn-r152.pth",),
        refused="a pre-activation ResNet-152 is another network, which is not built here",
    ),
    Entry(
        "vg-d2-x152",
        "d2",
        "ResNeXt-152 (MILVLG)",
        _MILVLG_LICENCE,
        _MILVLG,
        ("bua-d2-frcn-x152.pth",),
        refused="a ResNeXt with grouped convolutions is another network, which is not built here",
    ),
)
ENTRIES: dict[str, Entry] = {entry.name: entry for entry in _ENTRIES}

# All public Visual Genome detectors share these classes. The addresses follow a branch; the hashes hold the contents.
_GENOME = "https://raw.githubusercontent.com/peteanderson80/bottom-up-attention/master/data/genome/1600-400-20"
VISUAL_GENOME: dict[str, Vocabulary] = {
    "objects": Vocabulary(
        f"{_GENOME}/objects_vocab.txt", 1600, "d985096938db111f585a311ff0a2ee9092fbc325c3a619ac9622e57e5389722f"
    ),
    "attributes": Vocabulary(
        f"{_GENOME}/attributes_vocab.txt", 400, "19981b5a288f284c576545a21de78634f1a78c26b6949f7acf12b924739fdc66"
    ),
}
