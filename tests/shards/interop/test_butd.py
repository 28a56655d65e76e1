"""Tables of bottom-up-attention features: read line by line, whatever their columns, and never trusted."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regionvlp.errors import InputError
from regionvlp.pipelines.cli import run
from regionvlp.shards import open_shards, verify
from regionvlp.shards.interop.butd import find_images

WIDTH = 8


def image(seed: int, count: int = 6) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    boxes = random.random((count, 4)).astype(np.float32) * 50
    boxes[:, 2:] += boxes[:, :2]
    return {
        "image_id": str(1000 + seed),
        "image_h": "60",
        "image_w": "80",
        "objects_id": random.integers(0, 1600, count),
        "objects_conf": random.random(count).astype(np.float32),
        "attrs_id": random.integers(0, 400, count),
        "attrs_conf": random.random(count).astype(np.float32),
        "num_boxes": str(count),
        "boxes": boxes,
        "features": random.random((count, WIDTH)).astype(np.float32),
    }


SIX = ("image_id", "image_w", "image_h", "num_boxes", "boxes", "features")


def line(values: dict[str, Any], columns: tuple[str, ...] | None = None) -> str:
    fields = [values[name] for name in columns or values]
    return "\t".join(v if isinstance(v, str) else base64.b64encode(v.tobytes()).decode() for v in fields) + "\n"


def import_butd(*arguments: object) -> int:
    return run(["shards", "import-butd", *map(str, arguments)])


@pytest.mark.parametrize("file_format", ["hdf5", "parquet"])
def test_ten_columns(tmp_path: Path, file_format: str) -> None:
    images = [image(seed, count) for seed, count in enumerate([6, 3, 9, 4, 6])]
    (tmp_path / "a.tsv").write_text("".join(line(one) for one in images[:3]))
    (tmp_path / "b.tsv").write_text("".join(line(one) for one in images[3:]).rstrip("\n"))
    out = tmp_path / "out"
    options = ("--regions", 5, "--dtype", "float32", "--format", file_format, "--shard-size", 2)
    assert import_butd(tmp_path / "a.tsv", tmp_path / "b.tsv", out, *options) == 0
    assert verify(out, planned=True) == []
    reader = open_shards(out)
    assert len(reader) == 5
    for one in images:
        read = reader[one["image_id"]]
        order = sorted(range(len(one["boxes"])), key=lambda i: -one["objects_conf"][i])[:5]
        kept = len(order)
        assert read.num_regions.tolist() == [kept]
        assert read.image_size.tolist() == [[60, 80]]
        for field, name in (
            ("features", "features"),
            ("boxes", "boxes"),
            ("scores", "objects_conf"),
            ("class_ids", "objects_id"),
            ("attribute_ids", "attrs_id"),
            ("attribute_scores", "attrs_conf"),
        ):
            assert np.array_equal(getattr(read, field)[0, :kept], one[name][order]), field
            assert not getattr(read, field)[0, kept:].any()


def test_six_columns_stand_in_the_order_of_the_file(tmp_path: Path) -> None:
    images = [image(seed, count) for seed, count in enumerate([6, 3])]
    (tmp_path / "a.tsv").write_text("".join(line(one, SIX) for one in images))
    assert import_butd(tmp_path / "a.tsv", tmp_path / "out", "--regions", 4, "--dtype", "float32") == 0
    reader = open_shards(tmp_path / "out")
    for one in images:
        read, kept = reader[one["image_id"]], min(4, len(one["boxes"]))
        assert np.array_equal(read.features[0, :kept], one["features"][:kept])
        assert not read.scores.any()
        assert read.class_ids[0, :kept].tolist() == read.attribute_ids[0, :kept].tolist() == [-1] * kept
        assert read.image_size.tolist() == [[60, 80]]


def test_a_first_line_of_names(tmp_path: Path) -> None:
    columns = ("features", "img_id", "boxes", "img_w", "img_h", "objects_conf", "num_boxes", "objects_id")
    one = image(3)
    one.update(img_id="dog 1", img_w="80", img_h="60", objects_id=one["objects_id"].astype(np.int32))
    (tmp_path / "a.tsv").write_text("\t".join(columns) + "\n" + line(one, columns))
    assert import_butd(tmp_path / "a.tsv", tmp_path / "out", "--dtype", "float32") == 0
    read = open_shards(tmp_path / "out")["dog 1"]
    best = np.argmax(one["objects_conf"])
    assert read.class_ids[0, 0] == one["objects_id"][best]
    assert np.array_equal(read.features[0, 0], one["features"][best])


def test_real_rows(sample_data: Path, tmp_path: Path) -> None:
    assert import_butd(sample_data / "regions" / "train2014_obj36.first6.tsv", tmp_path / "out") == 0
    reader = open_shards(tmp_path / "out")
    assert len(reader) == 6
    for video in reader.values():
        assert video.features.shape == (1, 36, 2048)
        assert video.num_regions.tolist() == [36]
        assert (np.diff(video.scores[0]) <= 0).all()
        height, width = video.image_size[0]
        assert (video.boxes[..., 2] <= width).all()
        assert (video.boxes[..., 3] <= height).all()
        assert video.class_ids.max() < 1600


def test_broken_lines_are_failures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = {name: {**image(seed), "image_id": name} for seed, name in enumerate("abcdefgh")}
    lines = {name: line(one) for name, one in images.items()}
    lines["b"] = lines["b"][:200] + "\n"
    lines["c"] = line({**images["c"], "features": "not base64!"})
    lines["d"] = line({**images["d"], "num_boxes": "7"})
    lines["e"] = line({**images["e"], "num_boxes": "0"})
    lines["f"] = line({**images["f"], "boxes": images["f"]["boxes"] * np.float32(np.nan)})
    lines["g"] = line({**images["g"], "features": np.zeros((6, WIDTH + 1), np.float32)})
    (tmp_path / "a.tsv").write_text("".join(lines.values()))
    assert import_butd(tmp_path / "a.tsv", tmp_path / "out") == 0
    reader = open_shards(tmp_path / "out")
    assert reader.video_ids == ["a", "h"]
    assert [failure.video_id for failure in reader.failures] == list("bcdefg")
    assert verify(tmp_path / "out", planned=True) == []


def test_images_that_stand_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.tsv").write_text(line(image(1)) + line(image(2)))
    (tmp_path / "b.tsv").write_text(line(image(3)) + line(image(1)).rstrip("\n"))
    assert import_butd(tmp_path / "a.tsv", tmp_path / "b.tsv", tmp_path / "out") == 0
    assert "1 lines repeat another" in capsys.readouterr().out
    assert len(open_shards(tmp_path / "out")) == 3
    (tmp_path / "c.tsv").write_text(line({**image(1), "image_w": "81"}))
    with pytest.raises(InputError, match=r"image '1001' stands in a.tsv and again, unlike, in c.tsv"):
        find_images([tmp_path / "a.tsv", tmp_path / "c.tsv"])


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.tsv").write_text("a caption\tand a picture\n")
    (tmp_path / "empty.tsv").touch()
    (tmp_path / "none.tsv").write_text("\t".join(SIX) + "\n")
    (tmp_path / "no id.tsv").write_text(line(image(1)) + "\n")
    for name in ("text.tsv", "empty.tsv", "none.tsv", "no id.tsv", "absent.tsv"):
        assert import_butd(tmp_path / name, tmp_path / "out") == 2
        error = capsys.readouterr().err
        assert name in error
        assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_going_on_and_a_file_that_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "a.tsv", tmp_path / "out"
    path.write_text("".join(line(image(seed)) for seed in range(4)))
    assert import_butd(path, out, "--shard-size", 2) == 0
    kept = (out / "shard-00000.h5").read_bytes()
    for number in (0, 1):
        (out / f"shard-0000{number}.json").unlink()
    path.write_text("".join(line(image(seed)) for seed in (0, 1, 9, 3)))
    assert import_butd(path, out) == 0
    assert (out / "shard-00000.h5").read_bytes() == kept
    assert [(f.video_id, f.reason) for f in open_shards(out).failures] == [("1002", "changed-file")]
    assert "1009" in open_shards(out), "which comes into a shard of its own"


def test_a_mark_at_the_start_and_bytes_written_as_text_are_read(tmp_path: Path) -> None:
    rows = [line(image(seed)) for seed in (1, 2)]
    names = "\t".join(image(1)) + "\n"
    text = "".join("\t".join(f"b'{field}'" for field in row.rstrip("\n").split("\t")) + "\n" for row in rows)
    for name, content in (("bom", "".join(rows)), ("named", names + "".join(rows)), ("plain", "".join(rows))):
        (tmp_path / f"{name}.tsv").write_text(content, encoding="utf-8" if name == "plain" else "utf-8-sig")
    (tmp_path / "text.tsv").write_text(text)
    folders = {}
    for name in ("bom", "named", "plain", "text"):
        assert import_butd(tmp_path / f"{name}.tsv", tmp_path / name, "--dtype", "float32") == 0
        folders[name] = open_shards(tmp_path / name)
        assert folders[name].video_ids == ["1001", "1002"]
        assert all(folders[name][one].equals(folders["bom"][one]) for one in ("1001", "1002"))


def test_a_broken_line_gives_way_to_a_whole_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = line(image(2))
    for number, lines in enumerate(([whole[:-31] + "\n", whole], [whole, whole[:-31] + "\n"])):
        (tmp_path / f"{number}.tsv").write_text(line(image(1)) + "".join(lines) + line(image(3)))
        assert import_butd(tmp_path / f"{number}.tsv", out := tmp_path / f"{number}") == 0
        assert "1 lines cannot be read, and another line" in capsys.readouterr().out
        assert (open_shards(out).video_ids, len(open_shards(out).failures)) == (["1001", "1002", "1003"], 0)
    (tmp_path / "unlike.tsv").write_text(whole + line({**image(9), "image_id": "1002"}))
    assert import_butd(tmp_path / "unlike.tsv", tmp_path / "unlike") == 2
    assert "take one of the two lines out" in capsys.readouterr().err


@pytest.mark.parametrize("count", ["61000000000", "1e300", "inf", "nan", "-1", "7"])
def test_a_wrong_count_fails_its_line_alone(tmp_path: Path, count: str) -> None:
    (tmp_path / "a.tsv").write_text(line(image(1)) + line({**image(2), "num_boxes": count}))
    assert import_butd(tmp_path / "a.tsv", tmp_path / "out") == 0
    reader = open_shards(tmp_path / "out")
    assert reader.video_ids == ["1001"]
    assert [failure.reason for failure in reader.failures] == ["bad-fields"]
