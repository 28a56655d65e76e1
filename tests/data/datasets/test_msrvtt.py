"""MSR-VTT: the real annotation files, and fabricated ones in each public layout."""

from __future__ import annotations

import json
import logging
import pickle
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from regionvlp.data.captions import load_captions
from regionvlp.data.datasets import msrvtt
from regionvlp.data.datasets.msrvtt import load_msrvtt
from regionvlp.errors import InputError

LISTS = Path("high-quality", "structured-symlinks")


@pytest.fixture(scope="module")
def real(sample_data: Path) -> Path:
    return sample_data / "annotations" / "msrvtt"


def test_1ka_test_has_one_caption_per_clip_from_either_source(real: Path) -> None:
    by_index = load_msrvtt(real)
    by_csv = {c.video_id: c.caption for c in load_captions(real / "MSRVTT_JSFUSION_test.csv")}
    assert len({c.video_id for c in by_index}) == len(by_index) == len(by_csv) == 1000
    assert sum(c.caption == by_csv[c.video_id] for c in by_index) == 965
    assert sum(c.caption.split() == by_csv[c.video_id].split() for c in by_index) == 988
    assert sum(c.caption == by_csv[c.video_id] for c in load_msrvtt(real, queries="first")) == 44
    assert {c.split for c in by_index} == {"1ka-test"}


def test_csv_alone_is_enough_for_1ka_test(real: Path, tmp_path: Path) -> None:
    shutil.copy(real / "MSRVTT_JSFUSION_test.csv", tmp_path)
    captions = load_captions(tmp_path)
    assert len(captions) == 1000
    assert (captions[1].video_id, captions[1].caption) == ("video9771", "a little girl does gymnastics")
    semicolons = (tmp_path / "MSRVTT_JSFUSION_test.csv").read_text().replace(",", ";", 3 * 1001)
    (tmp_path / "MSRVTT_JSFUSION_test.csv").write_text(semicolons)
    assert load_captions(tmp_path) == captions


@pytest.mark.parametrize(
    ("split", "clips"), [("1ka-train", 9000), ("full-test", 2990), ("full-val", 497), ("1kb-test", 1000)]
)
def test_all_other_parts_have_twenty(real: Path, split: str, clips: int) -> None:
    captions = load_captions(real, split=split)
    counts = Counter(c.video_id for c in captions)
    assert len(counts) == clips
    assert set(counts.values()) == {20}
    assert len({c.caption_id for c in captions}) == len(captions)
    numbers = [int(c.caption_id) for c in captions[:20]]
    assert numbers == sorted(numbers)


def test_seven_k_trains_on_the_official_training_clips(real: Path) -> None:
    train = {c.video_id for c in load_msrvtt(real, "7k", "train", "first")}
    assert len(train) == 7010
    assert train.isdisjoint(c.video_id for c in load_msrvtt(real, "full", "test", "first"))
    assert [c.video_id for c in load_msrvtt(real, "7k", "test")] == [c.video_id for c in load_msrvtt(real)]


# Fabricated: three clips, two captions each


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    lists = {home: (3, names) for home, (_, names) in msrvtt._LISTS.items()}
    monkeypatch.setattr(msrvtt, "_LISTS", lists)
    monkeypatch.setattr(msrvtt, "_RANGES", {("full", "test"): range(1, 4)})
    monkeypatch.setattr(msrvtt, "CAPTIONS_PER_CLIP", 2)


def original(clips: list[int]) -> dict[str, object]:
    # Not in the order of the numbers, as the real one.
    rows = [(clip, k) for k in (1, 0) for clip in reversed(clips)]
    return {
        "info": {},
        "videos": [],
        "sentences": [{"video_id": f"video{c}", "sen_id": 20 * c + k, "caption": f"{c}-{k}"} for c, k in rows],
    }


def coco(clips: list[int]) -> dict[str, object]:
    return {"annotations": [{"image_id": f"video{c}", "caption": f"{c}-{k}"} for c in clips for k in (0, 1)]}


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def frozen_folder(folder: Path) -> Path:
    write(folder / "annotation" / "MSR_VTT.json", json.dumps(coco([1, 2, 3])))
    write(folder / LISTS / "val_list_jsfusion.txt", "video3\r\nvideo1 \nvideo2")
    write(folder / LISTS / msrvtt._INDEX_FILE, pickle.dumps({"video1": 1, "video2": 0, "video3": 1}, protocol=3))
    return folder


@pytest.mark.usefixtures("small")
def test_frozens_folder(tmp_path: Path) -> None:
    folder = frozen_folder(tmp_path / "MSRVTT")
    for path in (folder, tmp_path, folder / "annotation" / "MSR_VTT.json"):
        assert [c.caption for c in load_captions(path)] == ["3-1", "1-1", "2-0"]
    assert [c.caption for c in load_msrvtt(folder, queries="all")] == ["3-0", "3-1", "1-0", "1-1", "2-0", "2-1"]


@pytest.mark.usefixtures("small")
def test_original_files_in_zips(tmp_path: Path) -> None:
    for name, clips in (("train_val_videodatainfo.json", [1]), ("test_videodatainfo.json", [2, 3])):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            archive.writestr(f"inside/{name}", json.dumps(original(clips)))
    captions = load_msrvtt(tmp_path, "full", "test")
    assert [c.caption for c in captions] == ["1-0", "1-1", "2-0", "2-1", "3-0", "3-1"]
    assert captions[0].caption_id == "20"


@pytest.mark.usefixtures("small")
def test_clip4clips_folder(tmp_path: Path) -> None:
    write(tmp_path / "MSRVTT_data.json", json.dumps(original([1, 2, 3])))
    write(tmp_path / "MSRVTT_train.9k.csv", "video_id\nvideo1\nvideo2\nvideo3\n")
    write(tmp_path / "MSRVTT_JSFUSION_test.csv", "key,video_id,sentence\nr0,video1,x\nr1,video3,y\nr2,video2,z\n")
    assert len(load_msrvtt(tmp_path, "1ka", "train")) == 6
    assert [(c.video_id, c.caption, c.caption_id) for c in load_msrvtt(tmp_path)][1] == ("video3", "y", "r1")


@pytest.mark.usefixtures("small")
def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    folder = frozen_folder(tmp_path)
    index, sentences = folder / LISTS / msrvtt._INDEX_FILE, folder / "annotation" / "MSR_VTT.json"

    def fails(message: str, split: str = "1ka-test") -> None:
        with pytest.raises(InputError, match=message) as caught:
            load_captions(folder, split=split)
        assert "\n" not in str(caught.value)

    fails(
        "unknown split of MSR-VTT '1ka-tset'.*parts are 1ka-test, 1ka-train, .*7k-test, 7k-train, full-test", "1ka-tset"
    )
    fails("1ka of MSR-VTT has no validation part", "1ka-val")
    fails("no list of the 1kb test clips .*test_list_miech.txt", "1kb-test")
    write(index, pickle.dumps({"video1": 1, "video2": 2, "video3": 1}))
    fails("names caption 2 of video2.*expected 0 to 1")
    write(index, pickle.dumps({"video1": 1}))
    fails("names no caption for video3")
    write(index, pickle.dumps(Path("x")))
    fails(r"not an index of captions: it asks for pathlib")
    write(index, b"\x80\x04garbage")
    fails("not an index of captions")
    frozen_folder(tmp_path)
    write(sentences, json.dumps(coco([1, 2])))
    fails("no captions for 1 of 3 clips of MSR-VTT, such as video3")
    write(sentences, json.dumps({"annotations": coco([1, 2, 3])["annotations"][:-1]}))  # type: ignore[index]
    fails("video3 of MSR-VTT has 1 captions")
    write(sentences, json.dumps({"annotations": [{"image": 1}]}))
    fails("does not hold the captions of MSR-VTT")
    write(sentences, '{"annotations": [{"image_id"')
    fails("is damaged: it holds no valid MSR_VTT.json")
    frozen_folder(tmp_path)
    write(folder / LISTS / "val_list_jsfusion.txt", "video1\nvideo1\nvideo2\n")
    fails("names 2 different clips on 3 lines, 3 expected")
    write(folder / "train_val_annotation.zip", b"PK\x03\x04 cut off")
    fails("is not a whole zip file")


def test_a_folder_without_anything(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no list of the 1ka test clips"):
        load_captions(tmp_path)
    with pytest.raises(InputError, match=r"no captions for 2990 of 2990 clips .*found none of its JSON files"):
        load_msrvtt(tmp_path, "full", "test")


@pytest.mark.usefixtures("small")
def test_no_part_is_read_unnamed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    frozen_folder(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert len(load_captions(tmp_path)) == 3
    assert "no part of MSR-VTT was named; 3 captions of 1ka-test are read" in caplog.text
    assert load_captions(tmp_path, split=" 1kA-test") == load_captions(tmp_path)
    with pytest.raises(InputError, match=r"which part of MSR-VTT to train on is not said .*1ka-train.*full-val"):
        load_captions(tmp_path, training=True)
