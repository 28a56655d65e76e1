"""What a captions table costs: reading it, keeping it, joining it with shards; rows of ``bench loader``."""

from __future__ import annotations

import csv
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from regionvlp.data.captions import Captions, join, load_captions, resolve_videos

COUNT = 1_000_000
_TEXT = "young woman walks slowly along a wide sandy beach at sunset while two dogs run far ahead of her"
_WORDS = _TEXT.split()


def caption_rows(count: int = COUNT) -> list[tuple[str, float, str]]:
    """Reads, joins and iterates over synthetic captions as WebVid's, one a video.

    Returns:
        Name, value and unit of each figure. Bytes are those of the columns once joined.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "captions.csv"
        _write(path, count)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.perf_counter()
        captions = load_captions(path)
        read = time.perf_counter() - began
    ids = pa.array([f"{_page(number)}/{_name(number)}.mp4" for number in range(count)][::-1], pa.string())
    began = time.perf_counter()
    places = join(captions, ids)
    joining = time.perf_counter() - began
    assert (places == range(count - 1, -1, -1)).all()
    joined = resolve_videos(captions, ids)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return [
        ("captions_read", read / count * 1e6, "us/caption"),
        ("captions_join", joining, "s"),
        ("captions_bytes", _bytes(joined), "bytes/caption"),
        ("captions_peak", (peak - before) * 1024 / count, "bytes/caption"),
    ]


def _bytes(captions: Captions) -> float:
    return captions.nbytes / len(captions)


def _write(path: Path, count: int) -> None:
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("videoid", "name", "page_dir"))
        rows.writerows(_rows(count))


def _rows(count: int) -> Iterator[tuple[str, str, str]]:
    for number in range(count):
        words = [_WORDS[(number * 7 + k * (1 + number % 5)) % len(_WORDS)] for k in range(6 + number % 9)]
        yield _name(number), " ".join(words), _page(number)


def _name(number: int) -> str:
    return str(10**9 + number * 419)


def _page(number: int) -> str:
    return f"{number // 1000:06d}_{number // 1000 + 1:06d}"
