"""The page that shows what an extraction wrote: frames with their boxes, and the counts.

In: the frames of videos and their :class:`VideoRegions`. Out: one HTML file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regionvlp.regions import VideoRegions
from regionvlp.report.page import inline_jpeg, write_page
from regionvlp.shards.detectors import box_edges

# Colours of the strongest boxes, strongest first: told apart by people who do not see red and green as different.
PALETTE = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#ffffff")

# One video to draw: the F frames that were extracted, uint8 [height, width, 3] RGB, its regions, and a text.
Drawn = tuple[Sequence[NDArray[np.uint8]], VideoRegions, str]


@dataclass(frozen=True)
class Box:
    """One box of a frame, in percent of the picture, with what the page writes beside it."""

    left: float
    top: float
    width: float
    height: float
    colour: str
    label: str


@dataclass(frozen=True)
class Frame:
    """One frame: the picture, its aspect, its time and its boxes."""

    picture: str
    width: int
    height: int
    caption: str
    boxes: list[Box]


@dataclass(frozen=True)
class Clip:
    """One video of the page."""

    video_id: str
    text: str
    frames: list[Frame]


def write_regions_page(
    path: Path,
    *,
    title: str,
    facts: Mapping[str, str],
    videos: Iterable[Drawn],
    class_names: Sequence[str] | None,
    last_pixel: bool,
    boxes_per_frame: int = 8,
    frames_per_video: int = 4,
) -> None:
    """Draws videos with their strongest regions.

    Args:
        path: the HTML file.
        title: heading of the page.
        facts: name and value of each line of the summary.
        videos: for each video its frames, its regions, and a text shown under its name.
        class_names: names of the object classes; without them classes are shown by number.
        last_pixel: whether the regions' boxes count their last pixel.
        boxes_per_frame: how many boxes are drawn, strongest first.
        frames_per_video: how many frames are shown, evenly chosen.
    """
    clips = clips_of(videos, class_names, last_pixel, boxes_per_frame, frames_per_video)
    write_page(path, "regions.html.j2", title=title, facts=dict(facts), clips=clips)


def clips_of(
    videos: Iterable[Drawn],
    class_names: Sequence[str] | None,
    last_pixel: bool,
    boxes_per_frame: int = 8,
    frames_per_video: int = 4,
) -> list[Clip]:
    """What a page draws of videos; arguments as of :func:`write_regions_page`."""
    return [_clip(*video, class_names, last_pixel, boxes_per_frame, frames_per_video) for video in videos]


def _clip(
    pictures: Sequence[NDArray[np.uint8]],
    regions: VideoRegions,
    text: str,
    class_names: Sequence[str] | None,
    last_pixel: bool,
    boxes_per_frame: int,
    frames_per_video: int,
) -> Clip:
    assert len(pictures) == regions.num_frames, f"{len(pictures)} frames of {regions.num_frames}"
    step = max(1, regions.num_frames // frames_per_video)
    edges = box_edges(regions.boxes, last_pixel)
    frames = []
    for f in range(step // 2, regions.num_frames, step):
        height, width = (int(v) for v in regions.image_size[f])
        frames.append(
            Frame(
                picture=inline_jpeg(pictures[f]),
                width=width,
                height=height,
                caption=f"frame {regions.frame_index[f]}, {regions.frame_time[f]:.2f} s, "
                f"{regions.num_regions[f]} regions",
                boxes=[
                    _box(regions, edges[f, r], f, r, class_names)
                    for r in range(min(boxes_per_frame, int(regions.num_regions[f])))
                ],
            )
        )
    return Clip(regions.video_id, text, frames)


def _box(regions: VideoRegions, edges: NDArray[np.floating], f: int, r: int, class_names: Sequence[str] | None) -> Box:
    height, width = regions.image_size[f]
    x1, y1, x2, y2 = edges
    return Box(
        left=float(100 * x1 / width),
        top=float(100 * y1 / height),
        width=float(100 * (x2 - x1) / width),
        height=float(100 * (y2 - y1) / height),
        colour=PALETTE[r % len(PALETTE)],
        label=f"{_class_name(int(regions.class_ids[f, r]), class_names)} {regions.scores[f, r]:.2f}",
    )


def _class_name(class_id: int, class_names: Sequence[str] | None) -> str:
    return class_names[class_id].split(",")[0] if class_names else f"class {class_id}"


def summary_facts(summary: Mapping[str, Any]) -> dict[str, str]:
    """Numbers of a status as the page's lines: thousands separated, mappings spelt out, empty ones left out."""
    return {
        name.replace("_", " "): ", ".join(f"{k} {v}" for k, v in value.items())
        if isinstance(value, Mapping)
        else f"{value:,}"
        if isinstance(value, int)
        else str(value)
        for name, value in summary.items()
        if value not in ({}, None)
    }
