"""MSVD: the real annotation files, and fabricated ones in each public layout."""

from __future__ import annotations

import json
import logging
import pickle
from pathlib import Path

import pytest

from regionvlp.data.captions import kind_of, load_captions, resolve_videos
from regionvlp.data.datasets import msvd
from regionvlp.errors import InputError

CLIPS = ["-a_b_1_10", "_c_d_2_5", "e-f_30_47"]
CAPTIONS = {
    "-a_b_1_10": ["a dog runs", "the dog is running"],
    "_c_d_2_5": ["a man cooks"],
    "e-f_30_47": ["someone sings", "a woman sings", "she is singing"],
}
PAIRS = [(clip, caption) for clip in CLIPS for caption in CAPTIONS[clip]]


@pytest.fixture
def real(sample_data: Path) -> Path:
    return sample_data / "annotations" / "msvd"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A data set of five clips: one to train on, one to choose by, three to test on."""
    for part, numbers in {"train": range(1, 2), "val": range(2, 3), "test": range(3, 6)}.items():
        monkeypatch.setitem(msvd.CLIPS, part, numbers)


def pairs(path: Path, **how: object) -> list[tuple[str, str]]:
    return [(one.video_id, one.caption) for one in load_captions(path, **how)]  # type: ignore[arg-type]


@pytest.mark.parametrize(("part", "clips", "count"), [("train", 1200, 48774), ("val", 100, 4290), ("test", 670, 27763)])
def test_real_parts_have_their_counts(real: Path, part: str, clips: int, count: int) -> None:
    captions = load_captions(real, split=part)
    assert (len(captions), captions.split_counts()) == (count, {part: count})
    ids = captions.video_ids.to_pylist()
    assert ids == (real / f"{part}_list.txt").read_text().split()
    assert len(ids) == clips
    first = load_captions(real, split=part, queries="first")
    assert len(first) == clips
    assert first[0].caption == captions[0].caption
    assert not any("," in one.caption or one.caption != one.caption.strip() for one in captions)


def test_the_mapping_gives_the_parts_that_the_lists_do(real: Path, tmp_path: Path) -> None:
    wanted = {part: (real / f"{part}_list.txt").read_text().split() for part in msvd.CLIPS}
    captions = {clip: [f"about {clip}"] for clips in wanted.values() for clip in clips}
    (tmp_path / "captions_msvd.json").write_text(json.dumps(captions))
    (tmp_path / "youtube_mapping.txt").write_text((real / "msvd_youtube_mapping.txt").read_text())
    for part, clips in wanted.items():
        assert pairs(tmp_path, split=part) == [(clip, f"about {clip}") for clip in clips]


def write_layout(folder: Path, layout: str) -> None:
    every = {"tr_1_2": ["training"], "va_1_2": ["validation"], **CAPTIONS}
    (folder / "test_list.txt").write_text("\r\n".join(CLIPS) + "\r\n\r\n")
    if layout == "pickle":
        words = {clip: [text.split() for text in texts] for clip, texts in every.items()}
        (folder / "raw-captions.pkl").write_bytes(pickle.dumps(words))
    elif layout == "json":
        (folder / "captions_msvd.json").write_text(json.dumps(every))
    elif layout == "descriptions":
        lines = [f"{clip} {text}" for clip, texts in every.items() for text in texts]
        (folder / "AllVideoDescriptions.txt").write_text("# from the release\n\n" + "\n".join(lines))
    elif layout == "corpus":
        with (folder / "MSR Video Description Corpus.csv").open("wb") as file:
            file.write(b"VideoID,Start,End,WorkerID,Source,AnnotationTime,Language,Description\r\n")
            for clip, texts in every.items():
                name, start, end = clip.rsplit("_", 2)
                file.write(f"{name},{start},{end},7,clean,60,German,".encode() + b"ein gr\xfcner Hund\r\n")
                for text in texts:
                    file.write(f"{name},{start},{end},7,clean,60,English,{text}\r\n".encode())
                file.write(f"{name},{start},{end},8,clean,60,English,\r\n".encode())
    else:
        rows = [f"{', '.join(CAPTIONS[clip])}, \t{clip}\n" for clip in CLIPS]
        (folder / "MSVD_test.tsv").write_text("".join(rows))


@pytest.mark.parametrize("layout", ["pickle", "json", "descriptions", "corpus", "tsv"])
def test_every_layout_says_the_same(small: None, tmp_path: Path, layout: str) -> None:
    write_layout(tmp_path, layout)
    assert pairs(tmp_path, format="msvd", split="test") == PAIRS
    assert pairs(tmp_path, format="msvd", split=" Test ", queries="first") == [(c, CAPTIONS[c][0]) for c in CLIPS]
    joined = resolve_videos(load_captions(tmp_path, format="msvd"), [f"YouTubeClips/{clip}.avi" for clip in CLIPS])
    assert joined.video_ids.to_pylist() == [f"YouTubeClips/{clip}.avi" for clip in CLIPS]


def test_names_tell_the_data_set(small: None, tmp_path: Path) -> None:
    write_layout(tmp_path, "tsv")
    assert kind_of(tmp_path) == kind_of(tmp_path / "MSVD_test.tsv") == "msvd"
    assert kind_of(tmp_path / "test_list.txt") == "csv"
    assert pairs(tmp_path / "MSVD_test.tsv", training=True) == PAIRS  # the file says which part it is
    with pytest.raises(InputError, match="holds the test part of MSVD, not 'train'"):
        load_captions(tmp_path / "MSVD_test.tsv", split="train")


def test_a_part_is_never_chosen_for_training(small: None, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_layout(tmp_path, "tsv")
    with pytest.raises(InputError, match="which part of MSVD to train on is not said"):
        load_captions(tmp_path, training=True)
    with caplog.at_level(logging.WARNING, "regionvlp"):
        assert pairs(tmp_path) == PAIRS
    assert "no part of MSVD was named; 6 captions of test are read" in caplog.text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("MSVD_test.tsv", b"a, \tone_1_2\n", "names 1 different clips in 1 rows, 3 expected"),
        ("MSVD_test.tsv", b"a, one_1_2\n", "line 1 has 1 columns, 2 expected"),
        ("MSVD_test.tsv", b", \tx\nb, \ty\nc, \tz\n", "has no caption for 1 of 3 clips, such as x"),
        ("MSVD_test.tsv", b"\xff, \tx\n", "is not UTF-8 at byte 0"),
        ("raw-captions.pkl", b"no pickle", "holds no captions as lists of words"),
        ("raw-captions.pkl", pickle.dumps(print), "holds no captions as lists of words"),
        ("captions_msvd.json", b'{"x": [1]}', "is not an object of clip -> captions"),
        ("captions_msvd.json", b'{"x": ["a"]}', "has no caption for 3 of 3 clips, such as -a_b_1_10"),
        ("MSR Video Description Corpus.csv", b"VideoID\na\n", "lacks one of the columns"),
        ("notes.txt", b"", "no captions of MSVD below"),
    ],
)
def test_damage_is_said_in_a_line(small: None, tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / "test_list.txt").write_text("\n".join(CLIPS))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_captions(tmp_path, format="msvd", split="test")


def test_captions_of_all_clips_need_a_list(small: None, tmp_path: Path) -> None:
    write_layout(tmp_path, "json")
    (tmp_path / "test_list.txt").unlink()
    with pytest.raises(InputError, match="no list of the test clips of MSVD below"):
        load_captions(tmp_path, split="test")
    (tmp_path / "youtube_mapping.txt").write_text("a_1_2 vid1\nb_1_2 vid2\n")
    with pytest.raises(InputError, match="has no vid3"):
        load_captions(tmp_path, split="test")


def test_what_does_not_apply_is_refused(small: None, tmp_path: Path) -> None:
    write_layout(tmp_path, "tsv")
    with pytest.raises(InputError, match="names one caption a clip"):
        load_captions(tmp_path, queries="index_file")
    with pytest.raises(InputError, match="read by MSVD's own names"):
        load_captions(tmp_path, columns={"video": "x"})
    with pytest.raises(InputError, match="unknown split of MSVD '1ka-test'"):
        load_captions(tmp_path, split="1ka-test")


def test_the_corpus_says_where_letters_are_broken(
    small: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_layout(tmp_path, "corpus")
    path = tmp_path / "MSR Video Description Corpus.csv"
    path.write_bytes(path.read_bytes().replace(b"a man cooks", b"a man cooks pur\xe9e"))
    with caplog.at_level(logging.WARNING, "regionvlp"):
        load_captions(tmp_path, split="test")
    assert "1 English captions hold letters that are not UTF-8" in caplog.text
