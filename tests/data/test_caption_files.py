"""Caption files as people hand them out: layouts, names of columns, splits, stretches; what is left out is counted."""

from __future__ import annotations

import csv
import gzip
import io
import json
import logging
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regionvlp.data.captions import load_captions, resolve_videos
from regionvlp.errors import InputError
from regionvlp.extract.sources import open_source

DOG, CAT = "a dog runs", "a cat & a ball"
PAIRS = [("v1.mp4", DOG), ("v2.mp4", CAT)]
ROWS = [{"video": video, "caption": caption} for video, caption in PAIRS]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def pairs(path: Path, **options: object) -> list[tuple[str, str]]:
    return [(caption.video_id, caption.caption) for caption in load_captions(path, **options)]


def coco(**more: object) -> str:
    images = [{"id": 7, "file_name": "v1.mp4"}, {"id": 3, "file_name": "v2.mp4"}]
    annotations = [{"image_id": 7, "id": 1, "caption": DOG}, {"image_id": 3, "id": 2, "caption": CAT}]
    return json.dumps({"info": {}, "images": images, "annotations": annotations, **more})


def parquet(table: dict[str, object]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(table), buffer)
    return buffer.getvalue()


KARPATHY = {
    "images": [
        {"filename": "v1.mp4", "split": "train", "sentences": [{"raw": DOG, "tokens": ["x"]}]},
        {"filename": "v2.mp4", "split": "test", "sentences": [{"tokens": CAT.split()}]},
    ]
}
FILES: dict[str, tuple[str, str | bytes]] = {
    "caption first": ("a.tsv", f"{DOG}\tv1.mp4\n{CAT}\tv2.mp4\n"),
    "video first": ("a.tsv", f"v1.mp4\t{DOG}\nv2.mp4\t{CAT}\n"),
    "without a header": ("a.csv", f"v1.mp4,{DOG}\nv2.mp4,{CAT}\n"),
    "numbered captions": ("a.token", f"v1.mp4#0\t{DOG}\nv2.mp4#3\t{CAT}\n"),
    "semicolons": ("a.csv", f"key;clip;comment\n1;v1.mp4;{DOG}\n2;v2.mp4;{CAT}\n"),
    "bars": ("a.csv", f"image_name|comment_number|comment\nv1.mp4|0|{DOG}\nv2.mp4|0|{CAT}\n"),
    "gzip": ("a.csv.gz", gzip.compress(f"video,caption\nv1.mp4,{DOG}\nv2.mp4,{CAT}\n".encode())),
    "gzip under another name": ("a.csv", gzip.compress(f"video,caption\nv1.mp4,{DOG}\nv2.mp4,{CAT}\n".encode())),
    "parquet": ("a.parquet", parquet({"video": ["v1.mp4", "v2.mp4"], "caption": [DOG, CAT]})),
    "parquet of lists": ("a.parquet", parquet({"video": ["v1.mp4", "v2.mp4"], "caption": [[DOG], [CAT]]})),
    "parquet under another name": ("a.csv", parquet({"video": ["v1.mp4", "v2.mp4"], "caption": [DOG, CAT]})),
    "parquet of a dictionary": (
        "a.parquet",
        parquet({"path": pa.array(["v1.mp4", "v2.mp4"]).dictionary_encode(), "text": [DOG, CAT]}),
    ),
    "by video": ("a.json", json.dumps({"v1.mp4": [DOG], "v2.mp4": [CAT]}, indent=1)),
    "by video, on a line": ("a.json", json.dumps(dict(PAIRS))),
    "by video, objects": ("a.json", json.dumps({video: {"caption": caption} for video, caption in PAIRS})),
    "words": ("a.json", json.dumps({video: [caption.split()] for video, caption in PAIRS})),
    "objects over lines": ("a.json", json.dumps(ROWS, indent=2)),
    "lines named json": ("a.json", "\n".join(map(json.dumps, ROWS))),
    "list named jsonl": ("a.jsonl", json.dumps(ROWS)),
    "pandas' columns": ("a.json", json.dumps({"video": {"0": "v1.mp4", "1": "v2.mp4"}, "text": {"0": DOG, "1": CAT}})),
    "lists by column": ("a.json", json.dumps({"video": ["v1.mp4", "v2.mp4"], "caption": [DOG, CAT]})),
    "below a key": ("a.json", json.dumps({"version": 1, "data": ROWS})),
    "coco": ("a.json", coco()),
    "karpathy": ("a.json", json.dumps(KARPATHY)),
    "entities": ("a.csv", f"video_id,caption\nv1.mp4,{DOG}\nv2.mp4,{CAT.replace('&', '&amp;')}\n"),
    "capitals": ("a.csv", f"VideoID,Language,Description\nv1.mp4,English,{DOG}\nv2.mp4,English,{CAT}\n"),
    "open_clip": ("a.tsv", f"filepath\ttitle\nv1.mp4\t{DOG}\nv2.mp4\t{CAT}\n"),
    "LAVIS": ("a.json", json.dumps([{"image": v, "caption": c, "image_id": f"coco_{v}"} for v, c in PAIRS])),
    "mPLUG": ("a.jsonl", "\n".join(json.dumps({"video_id": v, "golden_caption": [c]}) for v, c in PAIRS)),
    "byte order mark": ("a.jsonl", b"\xef\xbb\xbf" + "\n".join(map(json.dumps, ROWS)).encode()),
    "carriage returns": ("a.tsv", f"video\tcaption\r\nv1.mp4\t{DOG}\r\n\r\nv2.mp4\t{CAT}\r\n"),
    "index of a data frame": ("a.csv", f",video,caption\n0,v1.mp4,{DOG}\n1,v2.mp4,{CAT}\n"),
    "everything quoted": ("a.tsv", f'"video"\t"caption"\n"v1.mp4"\t"{DOG}"\n"v2.mp4"\t"{CAT}"\n'),
}


@pytest.mark.parametrize("name", FILES)
def test_every_layout_is_read_alike(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / FILES[name][0], FILES[name][1])
    assert pairs(path) == PAIRS
    if name not in ("numbered captions", "bars"):  # names that no list has
        assert sorted(open_source(path).scan().column("video_id").to_pylist()) == ["v1.mp4", "v2.mp4"]


def test_names_of_ones_own(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", f"who,says,path\nv1.mp4,{DOG},x\nv2.mp4,{CAT},y\n")
    assert pairs(path, columns={"video": "Who", "caption": "says"}) == PAIRS
    with pytest.raises(InputError, match=r"has no column 'what' \(it has who, says, path\)"):
        load_captions(path, columns={"video": "who", "caption": "what"})
    bare = write(tmp_path / "b.csv", f"1,v1.mp4,{DOG}\n2,v2.mp4,{CAT}\n")
    assert pairs(bare, columns={"video": "1", "caption": "2"}) == PAIRS


@pytest.mark.parametrize(
    "cells",
    [
        ["['a dog', \"it's red\"]", "['a cat']"],
        ['["a dog", "it\'s red"]', '["a cat"]'],
        ["['a dog' \"it's red\"]", "['a cat']"],  # as NumPy prints arrays of text
        ["['a dog'\n \"it's red\"]", "a cat"],
    ],
)
def test_lists_in_cells(tmp_path: Path, cells: list[str]) -> None:
    text = io.StringIO(newline="")
    rows = zip(("v1", "v2"), cells, ("x", "y"), strict=True)
    csv.writer(text).writerows([("video_id", "caption", "caption_id"), *rows])
    captions = load_captions(write(tmp_path / "a.csv", text.getvalue()))
    assert [(one.video_id, one.caption) for one in captions] == [("v1", "a dog"), ("v1", "it's red"), ("v2", "a cat")]
    assert len({one.caption_id for one in captions}) == 3


@pytest.mark.parametrize("caption", ["[music] a man sings", "a man [inaudible]", "[a]", "['a man", "AT&T &c; &nothing"])
def test_what_only_looks_like_a_list_or_an_entity_stays(tmp_path: Path, caption: str) -> None:
    assert pairs(write(tmp_path / "a.csv", f"video_id,caption\nv1,{caption}\n")) == [("v1", caption)]


def test_quotes_of_tab_separated_text(tmp_path: Path) -> None:
    lone = write(tmp_path / "a.tsv", 'video_id\tcaption\nv1\t"hello" says a voice\nv2\tno " end\nv3\t"whole"\n')
    assert [caption for _, caption in pairs(lone)] == ['"hello" says a voice', 'no " end', '"whole"']
    marks = write(tmp_path / "b.tsv", 'video_id\tcaption\nv1\t"whole"\nv2\tplain\n')
    assert [caption for _, caption in pairs(marks)] == ['"whole"', "plain"]
    quoted = write(tmp_path / "c.tsv", 'video_id\tcaption\nv1\t"say ""a"""\nv2\t"two\nlines"\n')
    assert [caption for _, caption in pairs(quoted)] == ['say "a"', "two\nlines"]


def test_a_quote_that_is_never_closed_swallows_nothing(tmp_path: Path) -> None:
    rows = "".join(f"v{i},a dog\n" for i in range(50))
    for text in (f'video,caption\nx,"open\n{rows}', f'video,caption\nx,"open\n{rows}y,"closed" and on\n{rows}'):
        with pytest.raises(InputError, match=r"a\.csv, line \d+: "):
            load_captions(write(tmp_path / "a.csv", text))
    inches = write(tmp_path / "b.csv", f'video,caption\nx,5" wide\n{rows}y,"a, b"\n')
    assert len(pairs(inches)) == 52


@pytest.mark.parametrize("length", [131_072, 131_073])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
def test_a_caption_longer_than_any_is_told(tmp_path: Path, name: str, length: int) -> None:
    separator = "\t" if name == "a.tsv" else ","
    text = f"video{separator}caption\nv0{separator}a\nv1{separator}{'x' * length}\n"
    if name == "a.jsonl":
        text = "\n".join(json.dumps({"video": f"v{i}", "caption": c}) for i, c in enumerate(["a", "x" * length]))
    path = write(tmp_path / name, text)
    if length <= 131_072:
        assert len(pairs(path)) == 2
        return
    with pytest.raises(InputError, match=r"a field (of 131,073 characters|longer than 131,072 characters)"):
        load_captions(path)


@pytest.mark.parametrize(("lacking", "refused"), [(3, False), (4, True)])
def test_a_few_empty_rows_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, lacking: int, refused: bool
) -> None:
    """As in WebVid's own file; one row in a hundred is the most."""
    rows = [(f"{i}", "" if i % 90 == 5 and i // 90 < lacking else f"caption {i}", "f_g") for i in range(360)]
    text = "videoid,name,page_dir\n" + "".join(f"{','.join(row)}\n" for row in rows)
    path = write(tmp_path / "a.csv", text)
    if refused:
        with pytest.raises(InputError, match="4 rows without a video or a caption, the first is row 6"):
            load_captions(path)
        return
    with caplog.at_level(logging.WARNING):
        assert len(load_captions(path)) == 357
    assert "3 rows without a video or a caption, the first is row 6; of 360 rows, they are left out" in caplog.text
    holes = write(tmp_path / "b.csv", "videoid,page_dir\n,f_g\n" + "".join(f"{i},f_g\n" for i in range(200)))
    with caplog.at_level(logging.WARNING):
        assert len(open_source(holes).scan()) == 200
    assert "1 rows without a videoid or a page_dir" in caplog.text


STRETCHES = "video_id,start,end,caption\nv1.mp4,0,1,a\nv1.mp4,1,2.5,b\nv2.mp4,0,1,c\n"


def test_captions_of_stretches_join_what_extraction_wrote(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", STRETCHES)
    shards = open_source(path).scan().column("video_id").to_pylist()
    assert sorted(shards) == ["v1_0.000_1.000", "v1_1.000_2.500", "v2_0.000_1.000"]
    joined = resolve_videos(load_captions(path), shards)
    assert [(one.video_id, one.caption) for one in joined] == [
        *(("v1_0.000_1.000", "a"), ("v1_1.000_2.500", "b"), ("v2_0.000_1.000", "c")),
    ]
    with pytest.raises(
        InputError, match=r"of stretches, of which 'v1\.mp4' has several, and the shards hold whole clips"
    ):
        resolve_videos(load_captions(path), ["v1.mp4", "v2.mp4"])


def test_a_stretch_a_clip_may_be_the_clip(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """MSVD's own table: start and end are where the clip was cut from."""
    path = write(tmp_path / "a.csv", "VideoID,Start,End,Description\nx,3,8,a\nx,3,8,b\ny,0,7,c\n")
    assert [one.video_id for one in resolve_videos(load_captions(path), ["x_3_8.avi", "y_0_7.avi"])] == [
        *("x_3_8.avi", "x_3_8.avi", "y_0_7.avi"),
    ]
    with caplog.at_level(logging.WARNING):
        joined = resolve_videos(load_captions(path), ["x.avi", "y.avi"])
    assert [one.video_id for one in joined] == ["x.avi", "x.avi", "y.avi"]
    assert "2 videos are of a stretch of each, and the shards hold the whole clips" in caplog.text


def test_captions_and_stretches_of_one_row(tmp_path: Path) -> None:
    activitynet = {"v1": {"duration": 9.0, "timestamps": [[0, 5], [5, 9]], "sentences": ["a", "b"]}}
    found = load_captions(write(tmp_path / "a.json", json.dumps(activitynet)))
    assert [(one.video_id, one.caption) for one in found] == [("v1_0.000_5.000", "a"), ("v1_5.000_9.000", "b")]
    panda = 'videoID,timestamp,caption\nv1,"[[0, 5], [5, 9]]","[\'a\', \'b\']"\nv2,"[[1, 2]]",c\nv3,[],d\n'
    found = load_captions(write(tmp_path / "a.csv", panda))
    assert [(one.video_id, one.caption) for one in found] == [
        *(("v1_0.000_5.000", "a"), ("v1_5.000_9.000", "b"), ("v2_1.000_2.000", "c")),
    ]
    bad = panda.replace("['a', 'b']", "['a', 'b', 'c']")
    with pytest.raises(InputError, match="row 1 has 3 captions and 2 stretches"):
        load_captions(write(tmp_path / "a.csv", bad))


def test_json_that_contradicts_itself(tmp_path: Path) -> None:
    twice = coco(images=[{"id": 7, "file_name": "v1.mp4"}, {"id": 7, "file_name": "v2.mp4"}])
    with pytest.raises(InputError, match="two files have the id 7"):
        load_captions(write(tmp_path / "a.json", twice))
    with pytest.raises(InputError, match="annotation 2 is of 3, which is none of the files listed"):
        load_captions(write(tmp_path / "a.json", coco(images=[{"id": 7, "file_name": "v1.mp4"}])))
    with pytest.raises(InputError, match="the entry 'v1' calls itself 'v2'"):
        load_captions(write(tmp_path / "a.json", json.dumps({"v1": {"video_id": "v2", "caption": "a"}})))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "my_clip,my_words\nv1.mp4,a dog\nv2.mp4,a cat\n", r"its first row, my_clip, my_words, seems to be"),
        ("a.csv", "clips_,words\nv1,a dog\nv2,a cat\n", "seems to be the header"),
        ("a.csv", "one,two\nthree,four\n", "which of its 2 columns names the videos cannot be told"),
        ("a.txt", "names_\na.mp4\nb.mp4\n", "seems to be the header"),
    ],
)
def test_without_known_columns_nothing_is_guessed(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = write(tmp_path / name, text)
    for read in (load_captions, lambda path: open_source(path).scan()):
        with pytest.raises(InputError, match=message):
            read(path)


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"PK\x03\x04", "a zip archive"),
        (b"\x89HDF\r\n", "an HDF5 file"),
        (b"\x80\x04\x95", "a pickle"),
        (b"\xff\xfev\x00", "UTF-16 text"),
        (b"\x1f\x8b\x08broken", "cannot be read"),
        (b"PAR1broken", "cannot be read"),
    ],
)
def test_files_of_other_kinds_are_called_what_they_are(tmp_path: Path, start: bytes, kind: str) -> None:
    with pytest.raises(InputError, match=kind):
        load_captions(write(tmp_path / "a.csv", start + bytes(64)))


def test_lists_of_labels(tmp_path: Path) -> None:
    def ids(text: str) -> list[str]:
        return sorted(open_source(write(tmp_path / "l.txt", text)).scan().column("video_id").to_pylist())

    assert ids("c/a 1.avi 1\nc/b.avi 12 \n") == ["c/a 1.avi", "c/b.avi"]
    assert ids("a 0\nb 1\n") == ["a", "b"]
    assert ids("take 1 of 2\ntake 2 of 2\n") == ["take 1 of 2", "take 2 of 2"]
    assert ids("a,b.mp4\nc;d.mp4\n") == ["a,b.mp4", "c;d.mp4"]


@pytest.mark.parametrize("column", ["path", "image"])
def test_pictures_as_hugging_face_keeps_them(tmp_path: Path, column: str) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    files = pa.array([{"bytes": None, "path": "v1.mp4"}, {"bytes": b"x", "path": "v2.mp4"}], kind)
    path = write(tmp_path / "a.parquet", parquet({column: files, "text": [DOG, CAT]}))
    assert pairs(path) == PAIRS
    with pytest.raises(InputError, match=r"the column 'caption' is of .*, which holds no caption"):
        load_captions(write(tmp_path / "b.parquet", parquet({"video": ["a"], "caption": pa.array([[5]])})))


def test_real_files_keep_their_counts(sample_data: Path) -> None:
    folder = sample_data / "annotations"
    counted: dict[str, tuple[int, int]] = {
        "didemo/DiDeMo_val.tsv": (1065, 1065),
        "didemo/val_data.json": (4180, 1094),
        "msvd/MSVD_train.tsv": (48774, 1200),
        "cc3m/cc3m_validation_success_full.first500.tsv": (500, 500),
        "cc3m/Validation_GCC-1.1.0-Validation.first500.tsv": (500, 500),
        "flickr30k/Flickr8k.token.first1000.txt": (1000, 200),
        "msrvtt/MSRVTT_JSFUSION_test.csv": (1000, 1000),
        "webvid/test_webvid.csv": (20, 20),
    }
    for name, count in counted.items():
        captions = load_captions(folder / name)
        assert (len(captions), len(captions.video_ids)) == count, name
    listed: Callable[[str], int] = lambda name: len(open_source(folder / name).scan())  # noqa: E731
    assert listed("ucf101/trainlist01.txt") == 9537
    assert listed("ucf101/testlist01.txt") == 3783
    assert listed("hmdb51/walk_test_split1.txt") == 548
