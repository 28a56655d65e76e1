"""The page of a shard folder: what it holds, what failed, how its numbers are spread, and frames with their boxes.

In: a shard folder, and frames of some of its videos where they can be had. Out: one HTML file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from regionvlp.report.page import write_page
from regionvlp.report.plots import CURVE_HEIGHT, CURVE_WIDTH, Histogram, bars
from regionvlp.report.regions import Drawn, clips_of, summary_facts
from regionvlp.shards import ShardReader
from regionvlp.shards.detectors import counts_last_pixel

MOST_READ = 256  # videos whose numbers are counted, evenly chosen
MOST_CLASSES = 20
FACTS = ("format", "dtype", "videos", "frames", "regions", "bytes_per_frame", "partial")


def write_shards_page(
    path: Path,
    folder: Path,
    summary: Mapping[str, Any],
    reader: ShardReader | None,
    class_names: Sequence[str] | None,
    videos: Iterable[Drawn] = (),
) -> None:
    """Draws the page.

    Args:
        path: the HTML file. folder: the shards'. summary: of :func:`~regionvlp.shards.inspect`.
        reader: of the folder; None where no video is in it.
        class_names: names of the object classes; without them classes are shown by number.
        videos: some of its videos, with their frames.
    """
    failures = dict(sorted(summary["failures"].items(), key=lambda item: (-item[1], item[0])))
    held, failed = summary["videos"], sum(failures.values())
    found = _Counts(reader) if reader is not None and len(reader) else None
    common = [] if found is None else found.classes.most_common(MOST_CLASSES)
    write_page(
        path,
        "shards.html.j2",
        title=f"Regions in {folder.name}",
        lead=f"{held:,} videos are done" + (f", and {failed:,} failed." if failed else ", and none failed."),
        facts=summary_facts({name: _whole(summary.get(name)) for name in FACTS}),
        failures=failures,
        counted="" if found is None or reader is None else f"Counted in {found.read:,} of {len(reader):,} videos.",
        histograms=[] if found is None else [bars(one) for one in found.histograms],
        classes=[(_name(number, class_names), count) for number, count in common],
        clips=[]
        if reader is None
        else clips_of(videos, class_names, counts_last_pixel(reader.manifest.detector), frames_per_video=3),
        width=CURVE_WIDTH,
        height=CURVE_HEIGHT,
    )


class _Counts:
    """The numbers of some videos of a folder."""

    def __init__(self, reader: ShardReader) -> None:
        chosen = reader.video_ids[:: max(1, len(reader) // MOST_READ)][:MOST_READ]
        numbers: list[int] = []
        scores: list[float] = []
        sizes: list[float] = []
        seconds: list[float] = []
        self.read, self.classes = len(chosen), Counter[int]()
        for video_id in chosen:
            regions = reader[video_id]
            mask = regions.mask()
            numbers += regions.num_regions.tolist()
            scores += regions.scores[mask].tolist()
            self.classes.update(regions.class_ids[mask].tolist())
            sides = regions.boxes[..., 2:] - regions.boxes[..., :2]
            area = np.prod(sides, -1) / np.prod(regions.image_size, -1)[:, None]
            sizes += (100 * area[mask]).tolist()
            seconds.append(float(regions.frame_time[-1] - regions.frame_time[0]))
        self.histograms = [
            Histogram.of("regions of a frame", numbers, whole=True),
            Histogram.of("score of a region", scores),
            Histogram.of("size of a region, % of its frame", sizes),
            Histogram.of("seconds from a video's first frame to its last", seconds),
        ]


def _name(class_id: int, names: Sequence[str] | None) -> str:
    return names[class_id].split(",")[0] if names and 0 <= class_id < len(names) else f"class {class_id}"


def _whole(value: Any) -> Any:
    return round(value) if isinstance(value, float) else value
