"""Plain annotation files, and the join of annotated with extracted ids."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from regionvlp.data.captions import Caption, load_captions, missing_videos, resolve_videos
from regionvlp.errors import InputError


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def pairs(captions: list[Caption]) -> list[tuple[str, str]]:
    return [(caption.video_id, caption.caption) for caption in captions]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "video_id,caption\nv1,a dog\nv2,a cat\n"),
        ("a.csv", "\ufeffcaption,Video_ID\r\na dog,v1\r\na cat,v2"),
        ("a.csv", "key;video_id;sentence\nret0;v1;a dog\n\nret1;v2;a cat\n"),
        ("a.tsv", "videoid\tname\turl\nv1\ta dog\tx\nv2\ta cat\ty\n"),
        ("a.jsonl", '{"video_id": "v1", "caption": "a dog", "objects": [{"noun": "dog"}]}\n'
                    '{"clip_name": "v2", "text": "a cat"}\n\n'),
        ("a.json", '[{"video": "v1", "caption": "a dog"}, {"video": "v2", "caption": ["a cat"]}]'),
    ],
)  # fmt: skip
def test_columns_go_by_name(tmp_path: Path, name: str, text: str) -> None:
    captions = load_captions(write(tmp_path / name, text))
    assert pairs(captions) == [("v1", "a dog"), ("v2", "a cat")]
    assert [caption.caption_id for caption in captions] == ["v1#0", "v2#0"]
    assert {caption.source for caption in captions} == {name}


def test_quoted_captions_hold_separators_quotes_and_line_breaks(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'video_id,caption\nv1,"one, ""two""\nthree"\nv1, four "five\n')
    assert pairs(load_captions(path)) == [("v1", 'one, "two"\nthree'), ("v1", ' four "five')]


def test_json_captions_keep_line_separators_of_unicode(tmp_path: Path) -> None:
    line = json.dumps({"video_id": 7, "caption": "one\u2028two", "caption_id": "c7"}, ensure_ascii=False)
    assert load_captions(write(tmp_path / "a.jsonl", line)) == [Caption("7", "one\u2028two", "c7", "", "a.jsonl")]


def test_splits(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "video_id,caption,split\nv1,a,train\nv2,b,test\nv3,c,train\n")
    assert [caption.video_id for caption in load_captions(path, split="train")] == ["v1", "v3"]
    assert len(load_captions(path)) == 3
    with pytest.raises(InputError, match=r"no split 'tset', only 'test' \(1\), 'train' \(2\)"):
        load_captions(path, split="tset")
    plain = write(tmp_path / "b.csv", "video_id,caption\nv1,a\n")
    assert len(load_captions(plain)) == 1
    with pytest.raises(InputError, match="no column that tells splits, so no split 'train'"):
        load_captions(plain, split="train")


@pytest.mark.parametrize("column", ["split", "set", "Subset", "partition", " part "])
def test_blanks_and_capitals_tell_no_splits_apart(
    tmp_path: Path, column: str, caplog: pytest.LogCaptureFixture
) -> None:
    text = f"video_id,caption,{column}\nv1,a,train\nv2,b, Train\nv3,c,TEST\nv4,d,\n"
    path = write(tmp_path / "a.csv", text)
    with caplog.at_level(logging.WARNING):
        assert [caption.video_id for caption in load_captions(path, split="train ")] == ["v1", "v2"]
    assert "1 rows name no split and are left out" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        captions = load_captions(path)
    assert len(captions) == 4
    assert "no split was named, and rows of all are read: 'test' (1), 'train' (2), 1 of none" in caplog.text
    assert captions.split_counts() == {"train": 1, "Train": 1, "TEST": 1, "": 1}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", "is empty"),
        ("a.csv", "\n\n", "is empty"),
        (
            "a.csv",
            "v1,a dog\nv2,a cat, a dog\n",
            "1 rows .* than the 2 that the first row has",
        ),
        ("a.csv", "clip,words\nv1,a\n", "no column that holds captions \\(it has clip, words\\)"),
        ("a.csv", "words,caption\nv1,a\n", "no column that names files or videos \\(it has words, caption\\)"),
        ("a.csv", "video_id,caption\n", "holds no rows"),
        ("a.csv", "video_id,caption\nv1,a\nv2\n", "1 rows .* than the 2 that the header names, the first 1: 'v2'"),
        ("a.csv", "video_id,caption\nv1,a, b\n", "the first 3: 'v1,a, b'"),
        ("a.csv", "video_id,caption\nv1,a\nv2,  \nv3,\n", "2 rows without a video or a caption, the first is row 2"),
        ("a.csv", 'video_id,caption\nv1,"one\nv2,b\nv3,"c" d\nv4,e\n', "line 4: .*expected after"),
        ("a.csv", 'video_id,caption\nv1,"never closed\nv2,b\n', "unexpected end of data"),
        ("a.csv", "video_id,caption,caption_id\nv1,a,7\nv2,b,7\n", "caption_id '7' occurs 2 times"),
        ("a.jsonl", '{"video_id": "v1", "caption": "a"}\n{"video_id": "v2", "cap', "line 2: not JSON"),
        ("a.jsonl", '{"video_id": "v1", "caption": null}', "no captions"),
        ("a.jsonl", '{"video_id": "v1", "caption": 5}', "line 1: the caption is a int"),
        ("a.jsonl", '{"video_id": "v1", "words": "a"}', "no column that holds captions"),
        ("a.jsonl", "7", "line 1: not a JSON object"),
        ("a.json", '[{"video_id": "v1", "caption": []}]', "no captions"),
        ("a.json", '{"v1": ["a"], "v2": ["b"], "v1": ["c"]}', "'v1' stands twice"),
        ("a.json", '{"v1": 5}', "the entry 'v1' is a int"),
        ("a.json", '["a", 5]', "entry 1: not a JSON object"),
        ("a.json", '[{"video_id": "v1", "caption": "\\ud800"}]', "no Unicode"),
        ("a.json", "[" * 100_000, "not JSON"),
        ("a.csv", "video_id,caption\nv1,\"['a', b']\"\n", "row 1: .* looks like a list of captions and is none"),
        ("a.json", '[{"video_id": "v1",', "not JSON"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_captions(write(tmp_path / name, text))
    assert "\n" not in str(caught.value)
    assert caught.value.hint


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"video_id,caption\nv1,caf\xe9\n")
    with pytest.raises(InputError, match=r"not UTF-8 text \(byte 23\)"):
        load_captions(path)
    with pytest.raises(InputError, match="no annotations at"):
        load_captions(tmp_path / "b.csv")
    with pytest.raises(InputError, match="is a folder, not a csv file"):
        load_captions(tmp_path, format="csv")
    with pytest.raises(InputError, match="'queries' is for MSR-VTT"):
        load_captions(path, queries="first")
    with pytest.raises(InputError, match=r"unknown caption format 'cvs'.*did you mean 'csv'"):
        load_captions(path, format="cvs")  # type: ignore[arg-type]


def table(*video_ids: str) -> list[Caption]:
    return [Caption(video_id, "a", f"c{i}", "", "t") for i, video_id in enumerate(video_ids)]


SHARDS = ["a/one.mp4", "a/two.v2.mp4", "b/same.mp4", "c/same.avi", "top.webm"]


@pytest.mark.parametrize(
    ("annotated", "expected"),
    [
        ("a/one.mp4", "a/one.mp4"),
        ("a/one", "a/one.mp4"),
        ("one", "a/one.mp4"),
        ("one.mov", "a/one.mp4"),
        ("/data/a/one.mp4", "a/one.mp4"),
        ("a\\one.mp4", "a/one.mp4"),
        ("two.v2", "a/two.v2.mp4"),
        ("two.v2.avi", "a/two.v2.mp4"),
        ("b/same", "b/same.mp4"),
        ("x/top.mp4", "top.webm"),
        ("z/one.mp4", None),
        ("two", None),
        ("On", None),
    ],
)
def test_ids_fit_by_path_and_stem(annotated: str, expected: str | None) -> None:
    captions = table(annotated, "same.avi") if expected else table(annotated)
    shards = [*SHARDS[:3], "same.avi", *SHARDS[4:]]
    if expected is None:
        assert missing_videos(captions, shards) == [annotated]
    else:
        assert [caption.video_id for caption in resolve_videos(captions, shards)] == [expected, "same.avi"]


def test_an_id_that_fits_two_videos_names_both() -> None:
    with pytest.raises(InputError, match=r"'same.mp4' may be 'b/same.mp4' or 'c/same.avi'"):
        resolve_videos(table("same.mp4"), SHARDS)


def test_missing_videos_are_refused_unless_allowed(caplog: pytest.LogCaptureFixture) -> None:
    captions = table("one", "m1", "m2", "m1", "m3", "m4", "top")
    assert missing_videos(captions, SHARDS) == ["m1", "m2", "m3", "m4"]
    with pytest.raises(InputError, match=r"^4 of 6 annotated videos are not in the shards: m1, m2, m3, \.\.\. "):
        resolve_videos(captions, SHARDS)
    with caplog.at_level(logging.WARNING):
        kept = resolve_videos(captions, SHARDS, allow_missing=True)
    assert [caption.video_id for caption in kept] == ["a/one.mp4", "top.webm"]
    assert "4 of 6" in caplog.text
    with pytest.raises(InputError, match=r"2 of 2 .* m1, m2 \(the shards hold ids such as 'a/one.mp4'"):
        resolve_videos(table("m1", "m2"), SHARDS, allow_missing=True)
    with pytest.raises(InputError, match="the shards hold no video"):
        resolve_videos(table("m1"), [], allow_missing=True)
