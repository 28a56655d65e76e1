from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import regionvlp
from regionvlp.pipelines.cli import run
from regionvlp.shards.interop import boxes
from regionvlp.shards.vocabulary import read_vocabulary

ROW = {"video_id": "a.mp4", "frame": 3, "time": 0.5, "height": 40, "width": 60}
DOG = {**ROW, "x1": 1.0, "y1": 2.0, "x2": 30.0, "y2": 20.0, "label": "dog", "score": 0.5}
CAT = {**ROW, "x1": 5.0, "y1": 5.0, "x2": 70.0, "y2": 35.0, "label": "cat", "score": 0.9}
EMPTY = {**ROW, "frame": 9, "time": 1.5, "x1": None, "y1": None, "x2": None, "y2": None, "label": None, "score": None}


def table(path: Path, *rows: dict[str, Any]) -> Path:
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def test_the_documented_example_is_found_by_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert boxes.__doc__ is not None
    example = textwrap.dedent(boxes.__doc__.split("::\n\n")[-1])
    assert len(example.splitlines()) <= 30
    exec(compile(example, "example", "exec"), {})
    assert run(["shards", "import-boxes", "boxes.parquet", "SHARDS"]) == 0
    assert run(["index", "--shards", "SHARDS", "--out", "INDEX"]) == 0
    capsys.readouterr()
    assert run(["search", "INDEX", "a dog by the sea"]) == 0
    said = capsys.readouterr().out
    assert "beach.mp4" in said
    assert "dog [10 20 200 300]" in said


def test_a_table_of_boxes(tmp_path: Path) -> None:
    rows = [{**row, "features": [1.0, 2.0], "attribute": name} for row, name in ((DOG, "wet"), (CAT, None))]
    file = table(tmp_path / "b.parquet", *rows, {**EMPTY, "features": None, "attribute": None})
    assert run(["shards", "import-boxes", str(file), str(tmp_path / "s"), "--dtype", "float32"]) == 0
    shards = regionvlp.open_shards(tmp_path / "s")
    regions = shards["a.mp4"]
    names = read_vocabulary(tmp_path / "s")
    assert names is not None
    assert [names.object_name(i) for i in regions.class_ids[0, :2]] == ["cat", "dog"]
    assert [names.attribute_name(i) for i in regions.attribute_ids[0, :2]] == ["", "wet"]
    assert regions.boxes[0, 0].tolist() == [5, 5, 60, 35]  # clipped
    assert regions.num_regions.tolist() == [2, 0]
    assert regions.frame_index.tolist() == [3, 9]
    assert regions.image_size.tolist() == [[40, 60]] * 2
    assert regions.features[0, :2].tolist() == [[1, 2]] * 2
    assert run(["shards", "import-boxes", str(file), str(tmp_path / "s")]) == 0  # there is nothing left to do


def test_coco_and_npz(tmp_path: Path) -> None:
    coco = {
        "images": [{"id": i, "file_name": f, "width": 60, "height": 40} for i, f in ((7, "x.jpg"), (8, "y.jpg"))],
        "annotations": [{"image_id": 7, "category_id": 2, "bbox": [5, 6, 10, 12], "score": 0.7}],
        "categories": [{"id": 2, "name": "dog"}, {"id": 3, "name": "cat"}],
    }  # fmt: skip
    (tmp_path / "c.json").write_text(json.dumps(coco))
    assert run(["shards", "import-boxes", str(tmp_path / "c.json"), str(tmp_path / "coco")]) == 0
    photo = regionvlp.open_shards(tmp_path / "coco")["x.jpg"]
    assert photo.boxes[0, 0].tolist() == [5, 6, 15, 18]
    assert photo.scores[0, 0] == pytest.approx(0.7)
    assert regionvlp.open_shards(tmp_path / "coco")["y.jpg"].num_regions.tolist() == [0]
    (tmp_path / "npz").mkdir()
    np.savez(
        tmp_path / "npz" / "clip.mp4.npz", frame_index=[0, 8], frame_time=[0.0, 1.0], image_size=[[40, 60]] * 2,
        frame=[1, 0, 1], boxes=np.arange(12).reshape(3, 4) * 1.0, labels=["cat", "dog", "dog"], scores=[0.1, 0.2, 0.3],
    )  # fmt: skip
    assert run(["shards", "import-boxes", str(tmp_path / "npz"), str(tmp_path / "out")]) == 0
    clip = regionvlp.open_shards(tmp_path / "out")["clip.mp4"]
    assert clip.num_regions.tolist() == [1, 2]
    assert clip.boxes[1, 0].tolist() == [8, 9, 10, 11]


def test_real_annotations(sample_data: Path, tmp_path: Path) -> None:
    source = sample_data / "images" / "coco_instances.json"
    assert run(["shards", "import-boxes", str(source), str(tmp_path / "s"), "--regions", "40"]) == 0
    reader = regionvlp.open_shards(tmp_path / "s")
    notes = json.loads(source.read_text())
    assert len(reader) == len(notes["images"]) == 36
    assert sum(int(regions.num_regions.sum()) for regions in reader.values()) == len(notes["annotations"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x1": 99.0, "x2": 120.0}, "gives a box outside the picture"),
        ({"x1": 30.0, "x2": 1.0}, "x2 < x1"),
        ({"y1": float("nan")}, "not finite"),
        ({"score": 7.0}, "scores beyond 0 to 1"),
    ],
)
def test_a_bad_box_fails_its_video_alone(tmp_path: Path, changes: dict[str, float], words: str) -> None:
    file = table(tmp_path / "b.parquet", {**DOG, **changes}, {**CAT, "video_id": "good.mp4"})
    assert run(["shards", "import-boxes", str(file), str(tmp_path / "s")]) == 0
    reader = regionvlp.open_shards(tmp_path / "s")
    assert list(reader) == ["good.mp4"]
    assert words in reader.failures[0].message


def _no_column(folder: Path) -> Path:
    return table(folder / "b.parquet", {"video_id": "a", "x": 1})


def _no_parquet(folder: Path) -> Path:
    (folder / "b.parquet").write_bytes(b"PAR1 no")
    return folder / "b.parquet"


def _no_coco(folder: Path) -> Path:
    (folder / "b.json").write_text('{"images": []}')
    return folder / "b.json"


def _no_npz(folder: Path) -> Path:
    (folder / "b.npz").write_bytes(b"PK no")
    return folder / "b.npz"


@pytest.mark.parametrize(
    "make", [_no_column, _no_parquet, _no_coco, _no_npz, lambda folder: folder, lambda folder: folder / "b.txt"]
)
def test_a_file_of_something_else_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], Path]
) -> None:
    assert run(["shards", "import-boxes", str(make(tmp_path)), str(tmp_path / "s")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "s").exists()
