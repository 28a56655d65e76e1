"""Lists as users have them: which column names the file, what the id is, where the file lies."""

from __future__ import annotations

import unicodedata
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regionvlp.errors import InputError, VideoError
from regionvlp.extract.sources import open_source, refuse_absent
from regionvlp.extract.sources.looking import look
from regionvlp.shards import PlanRow, PlanTable

WEBVID = (
    "videoid,name,page_idx,page_dir,duration,contentUrl\n"
    '21,"Red, ""quoted"" bird\nover two lines",1,000001_000050,PT00H00M17S,https://x/a.mp4\n'
    "7,Sea,2,000051_000100,PT00H00M08S,https://x/b.mp4\n"
)
URLS = ["http://a.com/x.jpg", "https://b.org/y z.png"]
CRCS = [str(zlib.crc32(url.encode())) for url in URLS]


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def listed(path: Path, **options: object) -> dict[str, str | None]:
    """Location by id, of what a list names."""
    source = open_source(path, **options)
    assert source.kind == "list"
    return {row["video_id"]: row["location"] for row in source.scan().to_pylist()}


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    ("name", "text", "ids"),
    [
        ("webvid.csv", WEBVID, ["000001_000050/21", "000051_000100/7"]),
        ("newer.csv", "videoid,contentUrl,duration,page_dir,name\n5,u,P,d,n\n", ["d/5"]),
        ("flat.csv", "videoid,name\n5,n\n", ["5"]),
        # DemoVLP and MCQ: no header; quoted captions may hold line breaks
        ("mcq.tsv", 'Sea\t000051_000100/7\n"Red\nbird"\t000001_000050/21\n', ["000001_000050/21", "000051_000100/7"]),
        # CC3M: lone quotes at the beginning of a caption or within
        ("lone.tsv", '" a " b\t0_11\n"c\t1_12\nd "\t2_13\n', ["0_11", "1_12", "2_13"]),
        ("swallowed.tsv", '"a\t0_11\nb"\t1_12\n', ["0_11", "1_12"]),
        ("crlf.txt", "b c.mp4\r\n\r\n-a.avi\r\n", ["-a.avi", "b c.mp4"]),
        ("original.tsv", "".join(f"cap\t{url}\n" for url in URLS), [f"{i}_{crc}" for i, crc in enumerate(CRCS)]),
        ("frozen.csv", "caption,thumbnailUrl\n" + "".join(f"cap,{url}\n" for url in URLS), CRCS),
        ("semicolons.csv", "key;vid_key;video_id;sentence\nret0;msr1;video1;a, b\n", ["video1"]),
        ("own.csv", "id,path,caption\nclip 1,a/x.mp4,c\nclip 2,a/y.mp4,c\n", ["clip 1", "clip 2"]),
        ("paths.csv", "\ufeffPath\n./a/ü.mp4\nb.mp4\n", ["a/ü.mp4", "b.mp4"]),
        ("captions.csv", "video_id,caption\nv2,one\nv1,two\nv2,three\n", ["v1", "v2"]),
        ("lines.jsonl", '{"video": "b.mp4", "n": 1}\n{"video": "a.mp4", "n": 2}\n', ["a.mp4", "b.mp4"]),
    ],
)
def test_every_layout_gives_its_ids(tmp_path: Path, name: str, text: str, ids: list[str]) -> None:
    assert sorted(listed(write(tmp_path / name, text))) == sorted(ids)


def test_parquet_with_numbers_for_ids(tmp_path: Path) -> None:
    pq.write_table(pa.table({"VideoID": [1053841541, 7], "page_dir": ["a_b", "c_d"]}), tmp_path / "w.parquet")
    assert listed(tmp_path / "w.parquet") == {"a_b/1053841541": None, "c_d/7": None}


@pytest.mark.parametrize("prefix", ["", "videos/", "train/"])
def test_the_layout_of_the_copy_is_found(tmp_path: Path, prefix: str) -> None:
    root = tmp_path / "copy"
    touch(root / prefix / "000001_000050/21.mp4")
    rows = listed(write(tmp_path / "w.csv", WEBVID), root=root)
    expected = {name: f"{prefix}{name}" if prefix else None for name in ("000001_000050/21", "000051_000100/7")}
    assert rows == expected


def test_a_flat_copy_keeps_the_ids(tmp_path: Path) -> None:
    touch(tmp_path / "videos/21.mkv")
    rows = listed(write(tmp_path / "w.csv", WEBVID))
    assert rows == {"000001_000050/21": "videos/21", "000051_000100/7": "videos/7"}


@pytest.mark.parametrize("name", [CRCS[0], f"0_{CRCS[0]}", f"training/{CRCS[0]}", f"validation/0_{CRCS[0]}.jpg"])
def test_pictures_of_cc3m_are_found_under_each_name(tmp_path: Path, name: str) -> None:
    touch(tmp_path / name)
    path = write(tmp_path / "cc.tsv", "".join(f"cap\t{url}\n" for url in URLS))
    source = open_source(path)
    rows = PlanTable.from_videos(source.scan(), 0, 9).rows(0)
    assert source.path(rows[0]) == tmp_path / name
    assert rows[0].video_id in name


def test_a_listed_name_is_looked_up_by_its_stem(tmp_path: Path) -> None:
    touch(tmp_path / "a.webm", tmp_path / "both.mp4", tmp_path / "both.avi", tmp_path / "both", tmp_path / "d.d.MOV")
    touch(tmp_path / "two.mp4", tmp_path / "two.avi", tmp_path / "dot.mp4", tmp_path / "other.mp4")
    (tmp_path / "folder").mkdir()
    source = open_source(write(tmp_path / "l.txt", "x\n"))

    def found(location: str) -> str:
        try:
            return source.path(PlanRow(0, "id", -1, -1, location)).name
        except VideoError as error:
            return f"{'transient ' * error.transient}{error.reason}: {error.message}"

    assert found("a") == "a.webm"
    assert found("a.mp4") == "a.webm"
    assert found("both") == "both"
    assert found("both.avi") == "both.avi"
    assert found("two") == "ambiguous-file: 'two' may be two.mp4 and two.avi"
    assert found("dot.") == "dot.mp4"  # DiDeMo
    assert found("d.d.MOV") == "d.d.MOV"
    assert found("folder").startswith("missing-file")
    assert found("a.b").startswith("missing-file")


def test_a_root_that_is_gone_is_no_missing_file(tmp_path: Path) -> None:
    source = open_source(write(tmp_path / "l.txt", "x\n"), root=tmp_path / "unmounted")
    with pytest.raises(VideoError, match="is gone") as caught:
        source.path(PlanRow(0, "x", -1, -1))
    assert caught.value.transient


def test_absolute_places(tmp_path: Path) -> None:
    root = tmp_path / "root"
    touch(root / "a.mp4", tmp_path / "else/b.mp4")
    path = write(tmp_path / "l.csv", f"path\n{root}/a.mp4\n{tmp_path}/else/b.mp4\n")
    rows = listed(path)
    assert rows == {"root/a.mp4": None, "else/b.mp4": None}
    assert listed(path, root=tmp_path) == rows
    with pytest.raises(InputError, match=r"1 of the places .* are not below .*else/b.mp4"):
        listed(path, root=root)
    outside = write(tmp_path / "sub.csv", "path\n/nowhere/c.mp4\nmemory://bucket/d.mp4\n")
    assert listed(outside) == {"nowhere/c.mp4": "/nowhere/c.mp4", "bucket/d.mp4": "memory://bucket/d.mp4"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path\n../a.mp4\nb.mp4\n", r"1 names that cannot be ids: '\.\./a\.mp4'"),
        ("path\na/../../b.mp4\n", "'..'"),
        ("id,path\nx,/../b.mp4\n", "'..'"),
        ("id,path\n../x,b.mp4\n", "'..'"),
        ('path\n"a\nb.mp4"\n', "line break"),
        ("path\na\\b.mp4\n", "backslash"),
        ("path,caption\na.mp4,x\n,y\n,z\n", "2 rows without a path, the first is row 2"),
        ("videoid,page_dir\n5,\n", "1 rows without a videoid or a page_dir, the first is row 1"),
        ("id,path\nx,a.mp4\nx,b.mp4\n", "1 ids stand for two videos: 'x' is a.mp4 and b.mp4"),
        ("video_id\ncafé\ncafe\u0301\n", "differ only in how an accent"),
        (
            "path,caption\na.mp4,x\nb.mp4\n",
            r"1 rows have another number of fields than the 2 that the header names, the first 1: 'b.mp4'",
        ),
        ("caption,split\nx,train\n", "no column that names files"),
        ("path\n", "holds no rows"),
        ("", "is empty"),
        ("päth".encode("latin-1"), "is not UTF-8"),
    ],
)
def test_lists_that_cannot_be_used(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = tmp_path / "l.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(InputError, match=message):
        open_source(path).scan()


def test_a_list_of_which_nothing_is_there(tmp_path: Path) -> None:
    path = write(tmp_path / "l.txt", "".join(f"{i}.mp4\n" for i in range(500)))
    source = open_source(path)
    found = source.scan()
    with pytest.raises(InputError, match=r"none of the 200 listed videos .* such as 0\.mp4") as caught:
        refuse_absent(source, found)
    assert "--root" in caught.value.hint
    touch(tmp_path / "0.avi")
    refuse_absent(source, found)
    looked = look(source, found)
    assert (looked.checked, looked.missing) == (200, 199)


def test_nothing_is_looked_up_while_a_long_list_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    path = write(tmp_path / "l.csv", "path\n" + "".join(f"{i // 100}/{i}\n" for i in range(20_000)))
    asked, isfile = [], os.path.isfile
    monkeypatch.setattr(os.path, "isfile", lambda name: asked.append(name) or isfile(name))
    rows = open_source(path).scan()
    assert len(rows) == 20_000
    assert len(asked) < 4_000


def test_real_lists(sample_data: Path) -> None:
    folder = sample_data / "annotations"
    names = listed(folder / "cc3m/cc3m_validation_success_full.first500.tsv")
    assert len(names) == 500
    # The file under the name that DemoVLP gives a picture is named after its address in the original list.
    own = listed(folder / "cc3m/Validation_GCC-1.1.0-Validation.first500.tsv")
    assert len(own) == 500
    both = set(own) & set(names)
    assert len(both) == sum(int(name.partition("_")[0]) < 500 for name in names)
    assert len(listed(folder / "webvid/test_webvid.csv")) == 20
    assert "027701_027750/1053841541" in listed(folder / "webvid/test_webvid.csv")
    assert len(listed(folder / "didemo/DiDeMo_val.tsv")) == 1065
    assert len(listed(folder / "msvd/MSVD_test.tsv")) == 670
    assert len(listed(folder / "msrvtt/MSRVTT_JSFUSION_test.csv")) == 1000


def test_suffixes_in_capitals_and_accents_composed_otherwise(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "café.mp4")
    touch(tmp_path / "IMG_1.MP4", tmp_path / "IMG_2.Mov", tmp_path / decomposed, tmp_path / "x.mp4", tmp_path / "x.AVI")
    source = open_source(write(tmp_path / "l.csv", "path\nx\n"))

    def found(location: str) -> str:
        return source.path(PlanRow(0, "id", -1, -1, location)).name

    assert found("IMG_1") == "IMG_1.MP4"
    assert found("IMG_1.mp4") == "IMG_1.MP4"
    assert found("IMG_2.mp4") == "IMG_2.Mov"
    assert found("café") == decomposed
    assert found("café.avi") == decomposed
    with pytest.raises(VideoError, match=r"'x' may be x\.mp4 and x\.AVI|'x' may be x\.AVI and x\.mp4"):
        found("x")


def test_a_list_may_have_brackets_in_its_name(tmp_path: Path) -> None:
    touch(tmp_path / "a.mp4")
    assert listed(write(tmp_path / "list [1].csv", "path\na.mp4\n")) == {"a.mp4": None}
