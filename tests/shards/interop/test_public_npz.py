"""The public layout of one npz a frame: read, written, resumed, and never trusted."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regionvlp.errors import InputError
from regionvlp.pipelines.cli import run
from regionvlp.shards import open_shards, verify
from regionvlp.shards.interop.public_npz import find_videos, read_frame
from regionvlp.weights.plain_pickle import UnsafePickleError, load_plain

REGIONS, WIDTH = 5, 8


def write_frame(path: Path, seed: int, count: int = 4, **changes: Any) -> dict[str, Any]:
    """A file as the public extractor writes it; returns what is in it."""
    random = np.random.default_rng(seed)
    boxes = random.random((count, 4)).astype(np.float32) * 50
    boxes[:, 2:] += boxes[:, :2]
    info = {
        "image_id": path.stem,
        "image_h": np.int64(60),
        "image_w": 80,
        "num_boxes": count,
        "objects_id": random.integers(0, 1600, count),
        "objects_conf": random.random(count).astype(np.float32),
        "attrs_id": random.integers(0, 400, count),
        "attrs_conf": random.random(count).astype(np.float32),
    }
    info.update(changes.pop("info", {}))
    values = {"x": random.random((count, WIDTH)).astype(np.float32), "bbox": boxes, "num_bbox": count}
    values = {**values, "image_h": 60, "image_w": 80, "info": info, **changes}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **values)
    return values


@pytest.fixture
def public(tmp_path: Path) -> Path:
    """WebVid, a downstream set and CC3M side by side."""
    root = tmp_path / "public"
    for seed, name in enumerate(
        (
            *("train/000/12 3/0", "train/000/12 3/1", "train/000/12 3/10", "train/000/12 3/2"),
            *("video7/0", "video9/1", "video9/2", "train/0001/17_99_1", "train/0001/17_99_0", "train/0001/ünï_0"),
        )
    ):
        write_frame(root / f"{name}.npz", seed, count=1 + seed % 7)
    return root


def import_npz(folder: Path, out: Path, *options: str) -> int:
    return run(["shards", "import-npz", str(folder), str(out), "--regions", str(REGIONS), *options])


def test_videos_frames_and_images_are_found(public: Path) -> None:
    (public / "loop").symlink_to(public, target_is_directory=True)
    (public / "itself").symlink_to("itself")
    (public / "notes.npz").touch()
    found = find_videos(public)
    assert [(row.video_id, row.location) for row in found.rows] == [
        ("train/000/12 3", "train/000/12 3"),
        ("train/0001/17_99", "train/0001/17_99_1.npz"),
        ("train/0001/ünï", "train/0001/ünï_0.npz"),
        ("video7", "video7"),
        ("video9", "video9"),
    ]
    assert (found.most_frames, found.strange, found.strangers) == (4, 1, ["/notes.npz"])
    for nothing in (public / "train" / "0", public / "nowhere"):
        nothing.parent.mkdir(exist_ok=True)
        with pytest.raises(InputError):
            find_videos(nothing)


@pytest.mark.parametrize("file_format", ["hdf5", "parquet"])
def test_import(public: Path, tmp_path: Path, file_format: str) -> None:
    out = tmp_path / "out"
    assert import_npz(public, out, "--dtype", "float32", "--format", file_format, "--shard-size", "2") == 0
    assert verify(out, planned=True) == []
    reader = open_shards(out)
    video = reader["train/000/12 3"]
    assert video.frame_index.tolist() == [0, 1, 2, 10], "by number, not by name"
    assert video.image_size.tolist() == [[60, 80]] * 4
    for slot, (seed, name) in enumerate([(0, "0"), (1, "1"), (3, "2"), (2, "10")]):
        count = 1 + seed % 7
        raw = write_frame(tmp_path / "again" / f"{name}.npz", seed, count=count)
        order = sorted(range(count), key=lambda i: (-raw["info"]["objects_conf"][i], i))[:REGIONS]
        kept = len(order)
        assert video.num_regions[slot] == kept
        for field, values in (
            ("features", raw["x"]),
            ("boxes", raw["bbox"]),
            ("scores", raw["info"]["objects_conf"]),
            ("class_ids", raw["info"]["objects_id"]),
            ("attribute_ids", raw["info"]["attrs_id"]),
            ("attribute_scores", raw["info"]["attrs_conf"]),
        ):
            assert np.array_equal(getattr(video, field)[slot, :kept], values[order]), field
            assert not getattr(video, field)[slot, kept:].any()
    assert reader["video9"].frame_index.tolist() == [1, 2]
    assert reader.num_frames("train/0001/ünï") == 1


def test_equal_confidences_stand_by_their_place(tmp_path: Path) -> None:
    confidences = np.array([0.5, 0.9, 0.5, 0.9], np.float32)
    write_frame(tmp_path / "v" / "0.npz", 1, info={"objects_conf": confidences, "objects_id": np.arange(4)})
    assert read_frame(tmp_path / "v" / "0.npz", 3).regions.class_ids.tolist() == [1, 3, 0]


def test_there_and_back(public: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert import_npz(public, one, "--dtype", "float32") == 0
    assert run(["shards", "export-npz", str(one), str(tmp_path / "back")]) == 0
    assert "as exact as that" not in capsys.readouterr().out
    names = {str(path.relative_to(tmp_path / "back")) for path in (tmp_path / "back").rglob("*.npz")}
    assert names == {str(path.relative_to(public)) for path in public.rglob("*.npz")} - {"train/0001/17_99_0.npz"}
    assert import_npz(tmp_path / "back", two, "--dtype", "float32") == 0
    first, second = open_shards(one), open_shards(two)
    assert list(first) == list(second)
    assert all(first[name].equals(second[name]) for name in first)
    with np.load(tmp_path / "back" / "video7" / "0.npz", allow_pickle=True) as file:
        assert file["x"].dtype == np.float32
        assert set(file.files) == {"x", "bbox", "num_bbox", "image_h", "image_w", "info"}
        info = file["info"].item()
        assert info["objects_conf"].dtype == np.float32
        assert len(info["objects_id"]) == int(file["num_bbox"]) == len(file["bbox"])
    assert b"numpy._core" not in (tmp_path / "back" / "video7" / "0.npz").read_bytes()
    # A file that is lost is written again, and no other.
    (tmp_path / "back" / "video7" / "0.npz").unlink()
    stamp = (tmp_path / "back" / "video9" / "1.npz").stat().st_mtime_ns
    assert run(["shards", "export-npz", str(one), str(tmp_path / "back"), "--no-compress"]) == 0
    assert "1 files written" in capsys.readouterr().out
    assert (tmp_path / "back" / "video9" / "1.npz").stat().st_mtime_ns == stamp


def test_extracted_videos_are_exported_by_slot(shard_set: Any, tmp_path: Path) -> None:
    folder, videos = shard_set
    assert run(["shards", "export-npz", str(folder), str(tmp_path / "npz")]) == 0
    assert sorted(path.name for path in (tmp_path / "npz" / "f").iterdir()) == ["0.npz", "1.npz", "2.npz", "3.npz"]
    assert (tmp_path / "npz" / "c" / "ünï-日本" / "0.npz").is_file()
    assert import_npz(tmp_path / "npz", tmp_path / "out", "--dtype", "float16") == 0
    reader = open_shards(tmp_path / "out")
    for name, video in videos.items():
        read = reader[str(Path(name).with_suffix(""))]
        order = [np.argsort(-row, kind="stable") for row in video.scores]
        # What a frame holds came in no order here: it comes back sorted, every number of it as it was.
        ordered = {
            field: np.stack([row[place] for row, place in zip(getattr(video, field), order, strict=True)])
            for field in ("features", "boxes", "scores", "class_ids", "attribute_ids", "attribute_scores")
        }
        assert read.equals(replace(video, video_id=read.video_id, **ordered)), name


def test_ids_that_lead_elsewhere_are_not_exported(
    tmp_path: Path, make_manifest: Any, make_video: Any, write_shard: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, ids in enumerate([["../up.mp4"], ["/root.mp4"], ["a.mp4", "a.avi"]]):
        folder = tmp_path / str(number)
        write_shard(folder, 0, [make_video(name) for name in ids], make_manifest())
        assert run(["shards", "export-npz", str(folder), str(tmp_path / "npz")]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "npz").exists()


def test_broken_files_are_failures(public: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.system, (f"touch {tmp_path}/pwned",))

    whole = (public / "video7" / "0.npz").read_bytes()
    count = 4
    broken: dict[str, Any] = {
        "cut": lambda path: path.write_bytes(whole[: len(whole) // 2]),
        "empty": lambda path: path.touch(),
        "other": lambda path: path.write_bytes(b"PK\x03\x04 no zip"),
        "flipped": lambda path: path.write_bytes(whole[:120] + bytes([whole[120] ^ 255]) + whole[121:]),
        "evil": lambda path: write_frame(path, 1, info={"objects_conf": Evil()}),
        "no info": lambda path: np.savez(path, x=np.zeros((1, WIDTH)), bbox=np.zeros((1, 4))),
        "short": lambda path: write_frame(path, 1, info={"objects_conf": np.zeros(count - 1)}),
        "nan": lambda path: write_frame(path, 1, x=np.full((count, WIDTH), np.nan, np.float32)),
        "inside out": lambda path: write_frame(path, 1, bbox=np.tile([9, 9, 1, 1], (count, 1)).astype(np.float32)),
        "wide": lambda path: write_frame(path, 1, x=np.zeros((count, WIDTH + 1), np.float32)),
        "no size": lambda path: write_frame(path, 1, info={"image_h": 0}),
    }
    for name, damage in broken.items():
        (public / "bad" / name).mkdir(parents=True)
        write_frame(public / "bad" / name / "0.npz", 3)
        damage(public / "bad" / name / "1.npz")
    assert import_npz(public, tmp_path / "out") == 0
    assert not (tmp_path / "pwned").exists()
    reader = open_shards(tmp_path / "out")
    assert {failure.video_id for failure in reader.failures} == {f"bad/{name}" for name in broken}
    reasons = {failure.video_id: failure.reason for failure in reader.failures}
    assert reasons["bad/evil"] == "unsafe-pickle"
    assert reasons["bad/nan"] == reasons["bad/inside out"] == "bad-numbers"
    assert len(reader) == 5
    assert verify(tmp_path / "out", planned=True) == []
    assert "posix.system" in capsys.readouterr().out


def test_nothing_readable_and_other_mistakes_are_one_line(
    public: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad" / "v").mkdir(parents=True)
    (tmp_path / "bad" / "v" / "0.npz").touch()
    (tmp_path / "file").touch()
    for arguments, words in (
        ([tmp_path / "nowhere", tmp_path / "out"], "no folder"),
        ([tmp_path / "bad", tmp_path / "out"], "none of the first videos or images can be read"),
        ([public, tmp_path / "file"], "is a file"),
        ([public, tmp_path / "out", "--dtype", "int8"], "unknown feature dtype"),
        ([public, public], "is not empty"),
    ):
        assert run(["shards", "import-npz", *map(str, arguments)]) == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1
    assert import_npz(public, tmp_path / "out") == 0
    assert run(["shards", "import-npz", str(public), str(tmp_path / "out"), "--regions", "7"]) == 2
    assert "regions is 5 there and 7" in capsys.readouterr().err
    assert run(["shards", "import-npz", str(public), str(tmp_path / "out")]) == 0, "what is there counts"


def test_killed_and_run_again(public: Path, tmp_path: Path) -> None:
    code = """
import os, signal, sys
from regionvlp.pipelines.cli import run
from regionvlp.shards.interop import public_npz
read, left = public_npz.read_frame, [int(sys.argv[1])]
def dying(path, most):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(path, most)
public_npz.read_frame = dying
run(["shards", "import-npz", *sys.argv[2:], "--regions", "5", "--shard-size", "1"])
"""
    whole, again = tmp_path / "whole", tmp_path / "again"
    assert import_npz(public, whole, "--shard-size", "1") == 0
    for reads in (2, 5):
        done = subprocess.run([sys.executable, "-c", code, str(reads), str(public), str(again)], capture_output=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
    assert import_npz(public, again, "--shard-size", "1") == 0
    for path in sorted(whole.iterdir()):
        if path.suffix in (".h5", ".parquet"):
            assert (again / path.name).read_bytes() == path.read_bytes(), path.name
    assert sorted(os.listdir(again)) == sorted(os.listdir(whole))
    assert verify(again, planned=True) == []


def test_later_videos_extend_the_plan(public: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert import_npz(public, out, "--shard-size", "3") == 0
    before = {path.name: path.read_bytes() for path in out.glob("shard-*")}
    write_frame(public / "another" / "0.npz", 50)
    assert import_npz(public, out) == 0
    assert {name: (out / name).read_bytes() for name in before} == before
    assert "another" in open_shards(out)
    shutil.rmtree(public)
    write_frame(public / "else" / "0.npz", 1)
    assert import_npz(public, out) == 2


@pytest.mark.parametrize("protocol", range(6))
def test_plain_pickles_of_every_protocol(protocol: int) -> None:
    values = {
        "text": "ünï",
        "numbers": [1, 2.5, True, None],
        "bytes": b"\x00\xff",
        "scalar": np.float32(1.5),
        "array": np.arange(6, dtype=">i4").reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "words": np.array(["a", "bc"]),
    }
    for wrapped in (values, np.array(values, object)):
        read = load_plain(io.BytesIO(pickle.dumps(wrapped, protocol=protocol)))
        assert read.keys() == values.keys()
        assert all(np.array_equal(read[name], values[name]) for name in values if name != "numbers")
        assert read["numbers"] == values["numbers"]
    old = pickle.dumps(values, protocol=protocol).replace(b"numpy._core", b"numpy.core")
    if protocol < 4:
        assert np.array_equal(load_plain(io.BytesIO(old))["array"], values["array"])


@pytest.mark.parametrize(
    "value",
    [print, Path("x"), {1, 2}, np.array([{}, print], object), np.array([1], object), 1j, slice(1)],
    ids=["function", "class", "set", "objects", "object", "complex", "slice"],
)
def test_other_pickles_are_refused(value: Any) -> None:
    with pytest.raises(UnsafePickleError):
        load_plain(io.BytesIO(pickle.dumps({"info": value})))
    with pytest.raises(UnsafePickleError):
        load_plain(io.BytesIO(b"cos\nsystem\n(S'true'\ntR."))


def test_a_pickle_that_lies_about_its_array_reaches_no_memory() -> None:
    """The state that makes numpy itself take raw bytes for pointers is refused before numpy sees it."""
    state = (1, (2,), np.dtype("O"), False, b"A" * 16)

    class Lying:
        def __reduce__(self) -> tuple[Any, ...]:
            return (np.array(0).__reduce__()[0], (np.ndarray, (0,), b"b"), state)

    with pytest.raises(UnsafePickleError, match="objects"):
        load_plain(io.BytesIO(pickle.dumps(Lying())))


def test_a_lost_shard_is_imported_again(public: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert import_npz(public, out, "--shard-size", "2") == 0
    whole = (out / "shard-00001.h5").read_bytes()
    os.truncate(out / "shard-00001.h5", 99)
    assert import_npz(public, out) == 0
    assert (out / "shard-00001.h5").read_bytes() == whole
    assert (out / "set-aside" / "shard-00001.h5").stat().st_size == 99
    assert verify(out, planned=True) == []


def test_files_called_by_the_ids_of_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, name in enumerate(("000000000139", "000000000285", "000000581929")):
        write_frame(tmp_path / "val2017" / f"{name}.npz", seed)
    assert import_npz(tmp_path / "val2017", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "--layout images" in said
    assert "000000000139.npz" in said
    assert import_npz(tmp_path / "val2017", tmp_path / "out", "--layout", "images") == 0
    assert open_shards(tmp_path / "out").video_ids == ["000000000139", "000000000285", "000000581929"]
    assert import_npz(tmp_path / "val2017", tmp_path / "frames", "--layout", "frames") == 0
    video = open_shards(tmp_path / "frames")["val2017"]
    assert video.frame_index.tolist() == [139, 285, 581929]
    # What was written here says itself that it is frames.
    assert run(["shards", "export-npz", str(tmp_path / "frames"), str(tmp_path / "back")]) == 0
    assert import_npz(tmp_path / "back", tmp_path / "again") == 0


@pytest.mark.parametrize(
    "names",
    [
        {"x": "features", "bbox": "boxes", "objects_conf": "scores", "objects_id": "labels"},
        {"x": "features", "bbox": "boxes", "objects_conf": "scores", "objects_id": "class_ids", "image_h": "height"},
    ],
)
def test_other_layouts_are_read_and_need_no_info(tmp_path: Path, names: dict[str, str]) -> None:
    raw = write_frame(tmp_path / "v" / "0.npz", 1)
    values = {**raw, **raw["info"]}
    values = {names.get(name, name): value for name, value in values.items() if name not in ("info", "attrs_id")}
    np.savez(tmp_path / "v" / "0.npz", **values)
    read = read_frame(tmp_path / "v" / "0.npz", REGIONS)
    order = np.argsort(-raw["info"]["objects_conf"], kind="stable")
    assert np.array_equal(read.regions.features, raw["x"][order])
    assert np.array_equal(read.regions.class_ids, raw["info"]["objects_id"][order])
    assert read.regions.attribute_ids.tolist() == [-1] * 4
    assert read.image_size == (60, 80)


def test_what_a_file_lacks_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in" / "v").mkdir(parents=True)
    np.savez(tmp_path / "in" / "v" / "0.npz", features=np.ones((2, 4), np.float32), scores=np.ones(2))
    assert import_npz(tmp_path / "in", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "it has no bbox or boxes, no image_h or height, no image_w or width; it holds features, scores" in said
    np.savez(tmp_path / "in" / "v" / "0.npz", x=np.ones((2, 4), np.float32), bbox=np.ones((2, 4)), height=9, width=9)
    assert import_npz(tmp_path / "in", tmp_path / "out") == 0
    assert open_shards(tmp_path / "out")["v"].scores[0, :2].tolist() == [0.0, 0.0]


def test_features_say_whose_they_are(public: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert import_npz(public, tmp_path / "nameless") == 0
    assert "--detector-name" in capsys.readouterr().out
    assert import_npz(public, out, "--detector-name", "r101-k36") == 0
    assert "--detector-name" not in capsys.readouterr().out
    assert open_shards(out).manifest.detector == {"name": "r101-k36"}
    assert import_npz(public, out) == 0, "what is there counts"
    assert import_npz(public, out, "--detector-name", "another") == 2
    assert "detector.name" in capsys.readouterr().err
