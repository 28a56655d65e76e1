"""Tables of stretches: which columns count, how times are written, what the ids are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regionvlp.data.tables.times import pairs, seconds, written
from regionvlp.errors import InputError
from regionvlp.extract.sources import open_source

Rows = dict[str, tuple[str | None, float | None, float | None]]


def segments(path: Path, **options: object) -> Rows:
    source = open_source(path, **options)
    assert source.kind == "segments"
    return {row["video_id"]: (row["location"], row["start"], row["end"]) for row in source.scan().to_pylist()}


INTERNVID = "YoutubeID,Start_timestamp,End_timestamp,Caption\n-jD0xxEQxxx,00:00:19.227,00:01:02,a\nb,0,1.5,c\n"
PANDA = (
    "videoID,url,timestamp,caption\n"
    "--ab,https://www.youtube.com/watch?v=--ab,\"[['0:00:01.500', '0:00:05.005'], ['1:00:00.000', '1:00:02']]\",c\n"
)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "internvid.csv",
            INTERNVID,
            {"-jD0xxEQxxx_19.227_62.000": ("-jD0xxEQxxx", 19.227, 62.0), "b_0.000_1.500": ("b", 0.0, 1.5)},
        ),
        (
            "panda.csv",
            PANDA,
            {"--ab_1.500_5.005": ("--ab", 1.5, 5.005), "--ab_3600.000_3602.000": ("--ab", 3600.0, 3602.0)},
        ),
        ("own.tsv", "id\tfile\tstart\tend\nx/1\ta.mp4\t2\t3.25\n", {"x/1": ("a.mp4", 2.0, 3.25)}),
        ("stem.csv", "path,start_time,end_time\nd/a.MP4,2,3\n", {"d/a_2.000_3.000": ("d/a.MP4", 2.0, 3.0)}),
        (
            "open.csv",
            "id,file,start,end\nx,a.mp4,,\ny,a.mp4,1,\n",
            {"x": ("a.mp4", 0.0, None), "y": ("a.mp4", 1, None)},
        ),
        ("comma.csv", "file;begin;end\na;00:00:01,5;2,25\n", {"a_1.500_2.250": ("a", 1.5, 2.25)}),
        (
            "urls.jsonl",
            '{"url": "https://youtu.be/abcdefghij-?t=1", "start": 1, "end": 2.5}\n',
            {"abcdefghij-_1.000_2.500": ("abcdefghij-", 1.0, 2.5)},
        ),
    ],
)
def test_the_layouts_in_use(tmp_path: Path, name: str, text: str, expected: Rows) -> None:
    (tmp_path / name).write_text(text)
    assert segments(tmp_path / name) == expected


def test_parquet_with_numbers_and_lists(tmp_path: Path) -> None:
    pq.write_table(pa.table({"video": ["a", "b"], "start": [1, 2], "end": [1.5, None]}), tmp_path / "n.parquet")
    assert segments(tmp_path / "n.parquet") == {"a_1.000_1.500": ("a", 1.0, 1.5), "b_2.000_end": ("b", 2.0, None)}
    table = pa.table({"videoID": ["a", "b"], "timestamp": [[["0:01", "0:02"]], [["3", "4.5"], ["5", "6"]]]})
    pq.write_table(table, tmp_path / "p.parquet")
    assert sorted(segments(tmp_path / "p.parquet")) == ["a_1.000_2.000", "b_3.000_4.500", "b_5.000_6.000"]


def test_files_are_found_in_the_layout_of_the_copy(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/b.mkv").write_bytes(b"x")
    (tmp_path / "t.csv").write_text(INTERNVID)
    assert segments(tmp_path / "t.csv")["b_0.000_1.500"] == ("videos/b", 0.0, 1.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,start,end\na,1,2\na,3,3\nb,x,4\n", r"2 segments are no stretch of time; segment 2 goes from 3 to 3"),
        ("file,start,end\na,-1,2\n", "no stretch of time"),
        ("file,start,end\na,nan,2\n", "no stretch of time"),
        ("file,start,end\na,1,2\n,1,2\n", "1 rows without a file, the first is row 2"),
        ("id,file,start,end\nx,a,1,2\nx,a,1,3\n", "'x' is a from 1 s to 2 s and a from 1 s to 3 s"),
        ("file,start,end\n../a,1,2\n", "'..'"),
        ("caption,start,end\nc,1,2\n", "no column that names files"),
        ("videoID,timestamp\na,\"['0:01']\"\n", r"row 1 holds \"\['0:01'\]\", which is no list of pairs"),
        ("videoID,timestamp\na,\"[0,1]\"\nb,\"['0:02', '0:01']\"\n", "segment 2 goes from 2 to 1"),
        ('videoID,timestamp\na,"[[0,1]]"\nb,yesterday\n', "row 2 holds 'yesterday'"),
        ('videoID,timestamp\na,"[]"\nb,\n', "no row of 'timestamp' holds a stretch"),
        ("file,start_frame,end_frame\na,0,10\n", "counts its stretches in frames"),
        ("file,start,duration\na,1,-1\n", "no stretch of time"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        segments(tmp_path / "t.csv")


def test_the_same_segment_twice_is_one(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("file,start,end,caption\na,1,2,x\na,1.0,2.0,y\n")
    assert segments(tmp_path / "t.csv") == {"a_1.000_2.000": ("a", 1.0, 2.0)}


@pytest.mark.parametrize("value", ["2026-11-20 10:15:00", "", "17.5"])
def test_a_column_of_dates_makes_no_segments(tmp_path: Path, value: str) -> None:
    (tmp_path / "l.csv").write_text(f"path,timestamp\na.mp4,{value}\n")
    assert open_source(tmp_path / "l.csv").kind == "list"
    pq.write_table(pa.table({"path": ["a.mp4"], "timestamp": [value]}), tmp_path / "l.parquet")
    assert open_source(tmp_path / "l.parquet").kind == "list"
    (tmp_path / "l.jsonl").write_text(f'{{"path": "a.mp4", "timestamp": "{value}"}}\n')
    assert open_source(tmp_path / "l.jsonl").kind == "list"


def test_a_list_with_times_can_be_taken_whole(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("video_id,start time,end time\nvideo1,137.7,149.4\n")
    assert open_source(tmp_path / "t.csv", kind="list").scan().to_pylist()[0]["start"] is None
    (tmp_path / "l.csv").write_text("path\na.mp4\n")
    with pytest.raises(InputError, match="does not say where its segments start"):
        open_source(tmp_path / "l.csv", kind="segments").scan()


def by_hand(text: str) -> float:
    """The obvious way to read a time."""
    total = 0.0
    for part in text.replace(",", ".").split(":"):
        total = total * 60 + float(part)
    return total


def test_times_agree_with_the_obvious_reading() -> None:
    random = np.random.default_rng(5)
    texts = [f"{t:.3f}" for t in random.uniform(0, 9e4, 50)]
    texts += [f"{h}:{m:02d}:{s:06.3f}" for h, m, s in random.integers(0, 59, (50, 3))]
    texts += [f"{m:02d}:{s:02d}" for m, s in random.integers(0, 59, (20, 2))] + ["7", "1:2:3", "0:00:05,25"]
    assert np.allclose(seconds(pa.chunked_array([texts])), [by_hand(text) for text in texts])
    assert np.array_equal(
        seconds(pa.chunked_array([["", " ", "a", "1:", "-3", "1:2:3:4"]])),
        [np.nan, np.nan, -1, -1, -1, -1],
        equal_nan=True,
    )
    assert written(np.array([0.0, 1.0005, 59.9996, 3600.25, np.nan])).to_pylist() == [
        *("0.000", "1.000", "60.000", "3600.250", "end"),
    ]


PAIRS = [
    ("[[0,5],[1,2]]", [(0, 5), (1, 2)]),
    ("[0,1]", [(0, 1)]),
    ("[[0.0, 5e-05]]", [(0, 5e-05)]),
    ("[['0:01','0:02']]", [(1, 2)]),
    ("('0:01', '0:02')", [(1, 2)]),
    ("[[0.  5. ]\n [1.5 2. ]]", [(0, 5), (1.5, 2)]),  # as NumPy prints arrays
    ("[0. 5.]", [(0, 5)]),
    ('[{"start": 1, "end": 2.5}]', [(1, 2.5)]),
    ("[]", []),
    ("", []),
]


def test_pairs_are_read_as_what_they_are() -> None:
    rows, start, end = pairs(pa.chunked_array([[text for text, _ in PAIRS]]))
    expected = [(row, *pair) for row, (_, found) in enumerate(PAIRS) for pair in found]
    assert [tuple(values) for values in zip(rows, start, end, strict=True)] == expected
    listed = pa.chunked_array([[[["0:01", "3"]], [], None]])
    assert [values.tolist() for values in pairs(listed)] == [[0], [1.0], [3.0]]


@pytest.mark.parametrize("text", ["1 2 3", "[1, 2, 3]", "0-5", "0:01 to 0:02", "[[1]]", "{}", "5", "[" * 999])
def test_what_is_no_pair_is_not_searched_for_one(text: str) -> None:
    with pytest.raises(InputError, match="row 2 holds"):
        pairs(pa.chunked_array([["[0, 1]", text]]))


def test_edges_that_are_no_times_are_told() -> None:
    _, start, end = pairs(pa.chunked_array([["[[true, 2]]", "[['x', '']]", "[[1e999, null]]"]]))
    assert start.tolist() == [-1, -1, -1]
    assert end.tolist() == [2, -1, -1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("path,start,duration\na.mp4,0.2,0.5\na.mp4,0:01,2\n", [(0.2, 0.7), (1, 3)]),
        ("path,start_ms,end_ms\na.mp4,200,700\n", [(0.2, 0.7)]),
        ("path,clip_start,clip_end\na.mp4,1,2\n", [(1, 2)]),
        ("path,start\na.mp4,1.5\n", [(1.5, None)]),
        ("path,end\na.mp4,1.5\n", [(0, 1.5)]),
        ("path,start_frame,end_frame,fps\na.mp4,0,10,20\na.mp4,10,20,25\n", [(0, 0.5), (0.4, 0.8)]),
        ("path,start,end,start_frame,end_frame\na.mp4,0,1,0,25\n", [(0, 1)]),
        ("path,start,end\na.mp4,0,0.5\na.mp4,5e-05,1.0\n", [(0, 0.5), (5e-05, 1)]),
    ],
)
def test_every_way_to_say_a_stretch(tmp_path: Path, text: str, expected: list[tuple[float, float | None]]) -> None:
    (tmp_path / "t.csv").write_text(text)
    found = segments(tmp_path / "t.csv").values()
    assert sorted((round(start or 0, 6), end and round(end, 6)) for _, start, end in found) == sorted(expected)


@pytest.mark.parametrize("first", ["0", "null", '"0:00"', "0.0"])
def test_the_first_row_decides_no_type(tmp_path: Path, first: str) -> None:
    lines = [f'{{"path": "a.mp4", "start": {first}, "end": 1}}', '{"path": "a.mp4", "start": 0.5, "end": "0:02"}']
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    assert sorted(segments(tmp_path / "t.jsonl")) == ["a_0.000_1.000", "a_0.500_2.000"]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_times_as_arrow_has_them(tmp_path: Path, unit: str) -> None:
    factor = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    table = {"path": ["a.mp4"], "start": pa.array([2 * factor], pa.duration(unit)), "end": pa.array([3.5])}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    assert list(segments(tmp_path / "t.parquet").values()) == [("a.mp4", 2.0, 3.5)]
    table["start"] = pa.array([factor], pa.timestamp(unit))
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    with pytest.raises(InputError, match="holds no times"):
        segments(tmp_path / "t.parquet")


def test_names_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("what,from_s,until,note\na.mp4,1,2,x\n")
    source = open_source(tmp_path / "t.csv", columns={"video": "what", "start": "From_s", "end": "until"})
    assert [row["video_id"] for row in source.scan().to_pylist()] == ["a_1.000_2.000"]
    with pytest.raises(InputError, match=r"no column 'wat' \(it has what, from_s"):
        open_source(tmp_path / "t.csv", columns={"video": "wat"})
    with pytest.raises(InputError, match=r"no 'vido' is read .*did you mean 'video'"):
        open_source(tmp_path / "t.csv", columns={"vido": "what"})
    (tmp_path / "a.mp4").write_bytes(b"x")
    with pytest.raises(InputError, match="columns are those of lists"):
        open_source(tmp_path, columns={"video": "what"})
