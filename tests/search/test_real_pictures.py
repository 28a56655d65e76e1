"""What a search finds on real photos and clips, with real detectors and no training. The floors are the issue's."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import real_world

import regionvlp
from regionvlp.evaluation.grounding import overlaps
from regionvlp.pipelines.cli import run
from regionvlp.search.encoders.labels import LabelSentences
from regionvlp.search.index import Index

pytestmark = pytest.mark.slow
SPOKEN = {  # what people call a class of COCO, beside its name and plural
    "person": "man woman boy girl people child player men women rider skier surfer lady guy",
    "airplane": "plane jet jets planes",
    "bicycle": "bike bikes",
    "motorcycle": "motorbike",
    "couch": "sofa",
    "tv": "television",
    "cell phone": "phone cellphone",
    "dining table": "table tables",
}


@pytest.fixture(scope="module")
def models() -> Path:
    return real_world.models()


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, models: Path, sample_data: Path) -> Path:
    """Shards of photos and clips by both detectors, and tables of their captions."""
    work = tmp_path_factory.mktemp("real")
    spoken = json.loads((sample_data / "videos" / "captions.json").read_text())
    for name in spoken:  # of the others nobody says what they show
        (work / "videos").mkdir(exist_ok=True)
        (work / "videos" / name).symlink_to(sample_data / "videos" / name)
    for name, detector in (("centernet", "centernet"), ("ssd", "open_images")):
        for kind, videos in (("photos", sample_data / "images" / "coco"), ("clips", work / "videos")):
            arguments = ["--videos", videos, "--out", work / f"{kind}-{name}", "--frames", "4"]
            assert run(["extract", *map(str, arguments), "--detector", f"real_world:{detector}"]) == 0
    images = json.loads((sample_data / "images" / "coco_instances.json").read_text())["images"]
    names = {image["id"]: image["file_name"] for image in images}
    notes = json.loads((sample_data / "images" / "coco_captions.json").read_text())["annotations"]
    write_table(work / "photos.csv", [(names[note["image_id"]], note["caption"]) for note in notes])
    write_table(work / "clips.csv", [(name, caption) for name, captions in spoken.items() for caption in captions])
    return work


def write_table(path: Path, rows: list[tuple[str, str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("video_id", "caption"), *rows])


def recall(work: Path, models: Path, kind: str, *detectors: str) -> dict[str, float]:
    out = work / f"i-{kind}-{'-'.join(detectors)}"
    shards = [argument for name in detectors for argument in ("--shards", str(work / f"{kind}-{name}"))]
    assert run(["index", *shards, "--out", str(out), "--encoder", f"labels:{models / 'minilm'}"]) == 0
    report = work / "report.json"
    assert run(["eval", "index", str(out), "--queries", str(work / f"{kind}.csv"), "--json", str(report)]) == 0
    found: dict[str, float] = json.loads(report.read_text())["t2v"]
    return found


def test_sentences_find_photos(work: Path, models: Path) -> None:
    found = recall(work, models, "photos", "centernet")
    assert found["R1"] >= 57
    assert found["R5"] >= 85


def test_sentences_find_clips_and_two_detectors_find_more(work: Path, models: Path) -> None:
    one = recall(work, models, "clips", "centernet")
    assert one["R1"] >= 37
    assert one["R5"] >= 62
    both = recall(work, models, "clips", "centernet", "ssd")
    assert both["R5"] > one["R5"]


def test_the_dog_on_the_skateboard_comes_first(work: Path, models: Path) -> None:
    recall(work, models, "clips", "centernet", "ssd")
    best = regionvlp.open_index(work / "i-clips-centernet-ssd").search("a dog rides a skateboard").results[0]
    assert best.video_id == "skateboarding_dog.mp4"
    assert {box.label for word in best.words if word.word == "dog" for box in word.boxes} == {"dog"}


def test_nouns_point_at_their_objects(work: Path, models: Path, sample_data: Path) -> None:
    recall(work, models, "photos", "centernet", "ssd")
    index = regionvlp.open_index(work / "i-photos-centernet-ssd")
    hits = [hit for row in index.live.nonzero()[0] for hit in pointed(index, int(row), sample_data / "images")]
    assert len(hits) > 200
    assert np.mean(hits) >= 0.9


def pointed(index: Index, row: int, folder: Path) -> Iterator[bool]:
    """For each class that a caption of a photo names: whether the box of the word lies on such an object."""
    instances = json.loads((folder / "coco_instances.json").read_text())
    name = index.clip(row).video_id
    image = next(image["id"] for image in instances["images"] if image["file_name"] == name)
    classes = {category["id"]: category["name"] for category in instances["categories"]}
    true: dict[str, list[list[float]]] = {}
    for note in instances["annotations"]:
        if note["image_id"] == image:
            x, y, width, height = note["bbox"]
            true.setdefault(classes[note["category_id"]], []).append([x, y, x + width, y + height])
    encoder: Any = index.encoders[0]
    assert isinstance(encoder, LabelSentences)
    segment, inside = index._place(row)
    evidence = segment.evidence(inside)
    for note in json.loads((folder / "coco_captions.json").read_text())["annotations"]:
        if note["image_id"] != image:
            continue
        for noun, boxes in named(note["caption"], true):
            query = encoder.encode_queries([noun])[0]
            weights = encoder.word_weights(query, evidence, None)
            if weights is None:
                continue
            # A noun of two words has a row for each; together they mean one thing.
            best = evidence.boxes[int(np.nanmean(weights, 0).argmax())]
            yield any(overlaps(best[None, None], np.array([box]))[0, 0] >= 0.5 for box in boxes)


def named(caption: str, true: dict[str, list[list[float]]]) -> Iterator[tuple[str, list[list[float]]]]:
    """The classes of a photo that a caption names, each by the word that it uses, with their boxes."""
    text = caption.lower()
    words = re.findall("[a-z]+", text)
    for name, boxes in true.items():
        spoken = [name, f"{name}s", *SPOKEN.get(name, "").split()]
        used = [word for word in spoken if (" " in word and word in text) or word in words]
        if used:
            yield used[0], boxes
