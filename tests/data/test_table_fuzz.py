"""Mutated lists and tables: each is read, or refused in one line."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regionvlp.data.captions import load_captions
from regionvlp.errors import RegionVLPError
from regionvlp.extract.sources import open_source

_TOKENS = (
    *(b'"', b"'", b",", b"\t", b";", b"\n", b"\r", b"\x00", b"\xff", b"\xed\xa0\x80", b"[", b"]", b"{", b"}", b":"),
    *(b"null", b"NaN", b"1e999", b"-1", b"start", b"end", b"caption", b"split", b"&#0;", b"&#x110000;", b"\\ud800"),
    *(b"[[1,2]", b"['a' 'b']", b"../", b"/", b"\xef\xbb\xbf", b"video", b"12345678901234567890", b"9" * 5000),
    b"[" * 3000,
)  # fmt: skip


def seeds(folder: Path) -> list[Path]:
    """A small file of each kind."""
    folder.mkdir(exist_ok=True)
    rows = [
        {"video": f"v{i}.mp4", "caption": f"a dog {i}", "start": i, "end": i + 1.5, "split": "train"} for i in range(9)
    ]
    header = "video,caption,start,end,split\n"
    text = header + "".join(",".join(map(str, row.values())) + "\n" for row in rows)
    images = [{"id": i, "file_name": row["video"]} for i, row in enumerate(rows)]
    notes = [{"image_id": i, "caption": row["caption"]} for i, row in enumerate(rows)]
    karpathy = [{"filename": row["video"], "sentences": [{"raw": row["caption"]}]} for row in rows]
    contents: dict[str, str | bytes] = {
        "a.csv": text,
        "b.tsv": text.replace(",", "\t").replace("dog", '"dog"'),
        "c.csv.gz": gzip.compress(text.encode()),
        "d.jsonl": "\n".join(map(json.dumps, rows)),
        "e.json": json.dumps({row["video"]: [row["caption"], "b c"] for row in rows}),
        "f.json": json.dumps({"images": images, "annotations": notes}),
        "g.json": json.dumps({"images": karpathy}),
        "h.tsv": "".join(f"{row['caption']}\t{row['video']}\n" for row in rows),
        "i.txt": "".join(f"{row['video']} {i}\n" for i, row in enumerate(rows)),
        "j.csv": 'video,timestamp,caption\nv1,"[[0, 1.5], [2, 3]]","[\'a b\', \'c\']"\nv2,"[[4. 5.]]",d\n',
        "k.json": json.dumps({"v": {"timestamps": [[0, 1], [1, 2]], "sentences": ["a", "b"]}}),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    listed = pa.table({"video": [f"v{i}" for i in range(9)], "caption": [[f"a {i}", "b"] for i in range(9)]})
    pq.write_table(listed, folder / "l.parquet")
    timed = pa.table({"path": ["a.mp4", "b.mp4"], "start": pa.array([1, 2], pa.duration("ms")), "text": ["a", "b"]})
    pq.write_table(timed, folder / "m.parquet", compression="none")
    return sorted(folder.iterdir())


def mutated(content: bytes, random: np.random.Generator) -> bytes:
    """The content with one or two faults."""
    data = bytearray(content)
    for _ in range(random.integers(1, 3)):
        place = int(random.integers(len(data) + 1))
        match random.integers(6):
            case 0:
                del data[place:]
            case 1:
                del data[place : place + int(random.integers(1, 40))]
            case 2:
                data[place:place] = _TOKENS[random.integers(len(_TOKENS))]
            case 3 if data:
                data[place % len(data)] = int(random.integers(256))
            case 4 if data:
                data[place % len(data)] ^= 1 << int(random.integers(8))
            case _:
                other = int(random.integers(len(data) + 1))
                data[place:place] = data[other : other + 60]
    return bytes(data)


def refused(read: Callable[[Path], object], path: Path) -> bool:
    """Whether a file is refused, which takes one line with a hint."""
    said = None
    try:
        read(path)
    except RegionVLPError as error:
        said = error
    if said is not None:
        assert said.message
        assert said.hint
        assert len(str(said).splitlines()) == 1, repr(str(said))
    return said is not None


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_mutated_tables_are_read_or_refused_in_a_line(tmp_path: Path, count: int) -> None:
    logging.disable(logging.WARNING)
    try:
        random = np.random.default_rng(21)
        kinds = seeds(tmp_path / "seeds")
        for kind in kinds:
            assert not refused(lambda path: open_source(path).scan(), kind), kind.name
        outcomes = []
        for number in range(count):
            seed = kinds[number % len(kinds)]
            path = tmp_path / f"x{''.join(seed.suffixes)}"
            content = mutated(seed.read_bytes(), random)
            path.write_bytes(content)
            try:
                outcomes.append(refused(load_captions, path))
                refused(lambda path: open_source(path).scan(), path)
            except Exception as error:
                raise AssertionError(f"mutation {number} of {seed.name}: {content[:300]!r}") from error
        assert count / 10 < sum(outcomes) < count * 0.95
    finally:
        logging.disable(logging.NOTSET)


LONG = ["9" * 60_000, "/9" * 30_000, "[" * 60_000, "['a' " * 12_000, "&#1" * 20_000, "1 " * 30_000]


@pytest.mark.parametrize("cell", LONG, ids=[cell[:4] for cell in LONG])
def test_long_cells_take_no_longer_than_they_are(tmp_path: Path, cell: str) -> None:
    """An expression that backtracks would take hours of each: that the suite goes on is the check."""
    for text in (f"{cell}\tv1.mp4\na\tb.mp4\n", f'video,timestamp,caption\nv1,"[[1,2]]",a\nv2,{cell},b\n'):
        path = tmp_path / "a.csv"
        path.write_text(text)
        refused(load_captions, path)
        refused(lambda path: open_source(path).scan(), path)
