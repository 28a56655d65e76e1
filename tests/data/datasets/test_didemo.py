"""DiDeMo: the real annotation files, and fabricated ones in both public layouts."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from regionvlp.data.captions import kind_of, load_captions, resolve_videos
from regionvlp.data.datasets import didemo
from regionvlp.errors import InputError

MOMENTS = [
    ("1@N01_22_ab.mov", "the dog, brown, runs"),
    ("3@N02_44_cd.", "a man waves."),
    ("1@N01_22_ab.mov", 'it "jumps"\nand barks'),
    ("1@N01_22_ab.mp4", "the camera pans"),  # the same clip, called by another ending
    ("gone.avi", "could no longer be downloaded"),
]
PARAGRAPHS = [
    ("3@N02_44_cd", "a man waves."),
    ("1@N01_22_ab", 'the dog, brown, runs, it "jumps"\nand barks, the camera pans'),
]


@pytest.fixture
def real(sample_data: Path) -> Path:
    return sample_data / "annotations" / "didemo"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(didemo.CLIPS, "test", 2)


def pairs(path: Path, **how: object) -> list[tuple[str, str]]:
    return [(one.video_id, one.caption) for one in load_captions(path, **how)]  # type: ignore[arg-type]


def write_json(folder: Path) -> None:
    moments = [
        {"annotation_id": i, "video": v, "description": d, "times": [[0, 0]]} for i, (v, d) in enumerate(MOMENTS)
    ]
    (folder / "test_data.json").write_text(json.dumps(moments))
    (folder / "test_list.txt").write_text("3@N02_44_cd.mp4\n1@N01_22_ab.mp4")


def write_tsv(folder: Path) -> None:
    with (folder / "DiDeMo_test.tsv").open("w", newline="") as file:
        csv.writer(file, delimiter="\t").writerows((f"{text}, ", f"{clip}.mp4") for clip, text in PARAGRAPHS)


def test_both_real_layouts_say_the_same(real: Path, tmp_path: Path) -> None:
    by_tsv = load_captions(real, split="val")
    assert (len(by_tsv), len(by_tsv.video_ids), by_tsv.split_counts()) == (1065, 1065, {"val": 1065})
    for name in ("val_data.json", "val_list.txt"):
        (tmp_path / name).symlink_to(real / name)
    assert load_captions(tmp_path, format="didemo", split="val") == by_tsv
    assert load_captions(real / "DiDeMo_val.tsv") == by_tsv


def test_real_names_are_found_whatever_their_ending(real: Path) -> None:
    captions = load_captions(real, split="val")
    listed = [name.strip() for name in (real / "val_list.txt").read_text().splitlines() if name.strip()]
    for ids in (listed, [f"videos/{name.rpartition('.')[0]}.mp4" for name in listed]):
        assert resolve_videos(captions, ids).video_ids.to_pylist() == ids


@pytest.mark.parametrize("write", [write_json, write_tsv])
def test_a_clip_is_one_paragraph(small: None, tmp_path: Path, write: object) -> None:
    write(tmp_path)  # type: ignore[operator]
    assert pairs(tmp_path, format="didemo", split="test") == PARAGRAPHS


def test_names_tell_the_data_set(small: None, tmp_path: Path) -> None:
    write_json(tmp_path)
    assert kind_of(tmp_path) == "msrvtt"  # test_data.json may be anybody's
    write_tsv(tmp_path)
    assert kind_of(tmp_path) == kind_of(tmp_path / "DiDeMo_test.tsv") == "didemo"
    with pytest.raises(InputError, match="holds the test part of DiDeMo, not 'val'"):
        load_captions(tmp_path / "DiDeMo_test.tsv", split="val")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("DiDeMo_test.tsv", "a, \tx.mp4\n", "names 1 different clips in 1 rows, 2 expected"),
        ("DiDeMo_test.tsv", "a, \tx.mp4\na, \tx.avi\n", "names 1 different clips in 2 rows, 2 expected"),
        ("DiDeMo_test.tsv", "a, \tx.mp4\nb, y.mp4\n", "record 2 is not a paragraph"),
        ("DiDeMo_test.tsv", 'a, \tx.mp4\n"b, \ty.mp4\n', "record 2 is not a paragraph"),
        ("test_list.txt", "x.mp4\ny.mp4\n", "has no caption for 2 of 2 clips, such as x"),
        ("test_data.json", '[{"video": "x"}]', "is not a list of moments"),
        ("test_data.json", "[", "is not a list of moments"),
    ],
)
def test_damage_is_said_in_a_line(small: None, tmp_path: Path, name: str, content: str, message: str) -> None:
    write_json(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        load_captions(tmp_path, format="didemo", split="test")


def test_what_is_missing_or_does_not_apply_is_said(small: None, tmp_path: Path) -> None:
    write_json(tmp_path)
    with pytest.raises(InputError, match="'queries' does not apply"):
        load_captions(tmp_path, format="didemo", queries="first")
    (tmp_path / "test_list.txt").unlink()
    with pytest.raises(InputError, match="no test part of DiDeMo below") as caught:
        load_captions(tmp_path, format="didemo", split="test")
    assert "test_data.json with test_list.txt" in str(caught.value.hint)
