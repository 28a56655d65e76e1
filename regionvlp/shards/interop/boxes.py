"""Boxes that somebody else found, with features or without: COCO JSON, Parquet, or npz files become shards.

* **COCO JSON** (``.json``): ``images`` (``id``, ``file_name``, ``width``, ``height``), ``annotations`` (``image_id``,
  ``category_id``, ``bbox`` as ``x y width height``, optionally ``score``) and ``categories`` (``id``, ``name``). Each
  image is a clip of one frame, its file name the id.
* **Parquet**: a row for each box with ``video_id``, ``frame`` (its number in the video), ``time`` (seconds), ``height``
  and ``width`` of the frame, ``x1 y1 x2 y2`` (pixels), ``label``, and optionally ``score`` (1), ``attribute``,
  ``attribute_score`` and ``features`` (a list of C numbers). A frame without boxes has a row whose ``x1`` is null.
* **npz**: one file a video, whose id is the file's name without ``.npz``: ``frame_index`` [F], ``frame_time`` [F],
  ``image_size`` [F, 2] (height, width), ``frame`` [n] (which of the F frames a box lies in), ``boxes`` [n, 4],
  ``labels`` [n] (texts), and optionally ``scores`` [n] and ``features`` [n, C].

Boxes without features are good for words and for drawing; a single 0 stands for each feature. A box is clipped to its
frame; a video with one that lies wholly outside, or with numbers that are none, becomes a failure row. A table of
detections by hand::

    import pyarrow as pa, pyarrow.parquet as pq

    row = {"video_id": "beach.mp4", "frame": 12, "time": 0.5, "height": 360, "width": 640}
    dog = {**row, "x1": 10.0, "y1": 20.0, "x2": 200.0, "y2": 300.0, "label": "dog", "score": 0.9}
    sea = {**row, "x1": 0.0, "y1": 0.0, "x2": 640.0, "y2": 90.0, "label": "sea", "score": 0.8}
    pq.write_table(pa.Table.from_pylist([dog, sea]), "boxes.parquet")
    # regionvlp shards import-boxes boxes.parquet SHARDS
    # regionvlp index --shards SHARDS --out INDEX && regionvlp search INDEX "a dog by the sea"
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from regionvlp.errors import InputError, VideoError, first_line
from regionvlp.regions import VideoRegions
from regionvlp.shards.interop.plain import frame_regions
from regionvlp.shards.manifest import Manifest
from regionvlp.shards.vocabulary import Vocabulary
from regionvlp.store.plan import PlanRow

SUFFIXES = (".json", ".parquet", ".npz")
_NEEDED = ("video_id", "frame", "time", "height", "width", "x1", "y1", "x2", "y2", "label")
_NPZ_NEEDED = ("frame_index", "frame_time", "image_size", "frame", "boxes", "labels")


@dataclass(frozen=True)
class Frame:
    """The boxes of one frame in plain arrays; labels are texts.

    Attributes:
        index, time: in its video, seconds. size: (height, width) in pixels.
        found: ``boxes``, ``scores``, ``labels``, and ``features`` and ``attributes`` where there are any.
    """

    index: int
    time: float
    size: tuple[int, int]
    found: Mapping[str, Any]


Frames = Callable[[], list[Frame]]


@dataclass(frozen=True)
class Boxes:
    """What the files hold.

    Attributes:
        videos: the frames of each video, read when they are asked for.
        vocabulary: all labels and attributes, sorted.
        feature_width: C; 0 where there are no features.
        most_frames: of any video. sizes: bytes and time of change of the file of each video.
    """

    videos: Mapping[str, Frames]
    vocabulary: Vocabulary
    feature_width: int
    most_frames: int
    sizes: Mapping[str, tuple[int, int]]

    @property
    def rows(self) -> list[PlanRow]:
        """What is to be planned."""
        return [PlanRow(0, video_id, *self.sizes[video_id]) for video_id in sorted(self.videos)]

    def detector(self) -> dict[str, Any]:
        """The identity of whoever found the boxes, as far as it is known: what the classes are called."""
        names = json.dumps([list(self.vocabulary.objects), list(self.vocabulary.attributes)])
        identity = {"name": "imported-boxes", "names": hashlib.sha256(names.encode()).hexdigest()}
        return identity if self.feature_width else {**identity, "features": "none"}


def find_boxes(files: Sequence[Path]) -> Boxes:
    """Looks through files of boxes; a folder stands for its npz files.

    Raises:
        InputError: a file is missing, of another kind or layout, or a video is in two of them.
    """
    paths = [found for path in files for found in (sorted(path.rglob("*.npz")) if path.is_dir() else [path])]
    if not paths:
        raise InputError(f"there are no npz files in {files[0]}", "name files of boxes")
    videos: dict[str, Frames] = {}
    objects, attributes, sizes = set[str](), set[str](), dict[str, tuple[int, int]]()
    width, most = set[int](), 1
    for path in paths:
        if path.suffix.lower() not in SUFFIXES:
            raise InputError(f"{path} is no file of boxes", f"they end in {', '.join(SUFFIXES)}")
        try:
            status = path.stat()
            part = _READERS[path.suffix.lower()](path)
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or first_line(error)}", "check the path") from None
        repeated = next((video_id for video_id in part.videos if video_id in videos), None)
        if repeated is not None:
            raise InputError(f"{repeated} is in {path} and in a file before it", "give every video once")
        videos |= part.videos
        sizes |= dict.fromkeys(part.videos, (status.st_size, status.st_mtime_ns))
        objects |= set(part.objects)
        attributes |= set(part.attributes)
        width.add(part.width)
        most = max(most, part.frames)
    if len(width) > 1:
        raise InputError(f"the files have features of widths {sorted(width)}", "import those of each width apart")
    if not videos:
        raise InputError(f"{paths[0]} holds no image or video", "check the file")
    return Boxes(videos, Vocabulary(sorted(objects), sorted(attributes)), width.pop(), most, sizes)


def boxes_reader(found: Boxes, manifest: Manifest) -> Callable[[PlanRow], VideoRegions]:
    """The function that makes the regions of one video; it raises :class:`VideoError`."""
    objects = {name: number for number, name in enumerate(found.vocabulary.objects)}
    attributes = {name: number for number, name in enumerate(found.vocabulary.attributes)}

    def read(row: PlanRow) -> VideoRegions:
        try:
            frames = found.videos[row.video_id]()
            if not frames:
                raise ValueError("has no frame")
            regions = [
                frame_regions(
                    _numbered(frame.found, objects, attributes), frame.size, width=found.feature_width,
                    most=manifest.regions, classes=len(objects), attributes=len(attributes),
                )
                for frame in frames
            ]  # fmt: skip
        except (ValueError, KeyError, OSError) as error:
            message = f"'{row.video_id}' {first_line(error)}"
            raise VideoError(message, stage="open", reason="bad-numbers") from None
        return VideoRegions.from_frames(
            row.video_id,
            regions,
            frame_index=[frame.index for frame in frames],
            frame_time=[frame.time for frame in frames],
            image_size=[frame.size for frame in frames],
            slots=manifest.regions,
            dtype=manifest.memory_dtype.name,
        )

    return read


def _numbered(found: Mapping[str, Any], objects: Mapping[str, int], attributes: Mapping[str, int]) -> dict[str, Any]:
    """The arrays of a frame with numbers in place of labels."""
    numbered = {key: value for key, value in found.items() if key not in ("labels", "attributes")}
    numbered["class_ids"] = [objects[label] for label in found["labels"]]
    if attributes and "attributes" in found:
        numbered["attribute_ids"] = [attributes.get(name or "", -1) for name in found["attributes"]]
    return numbered


@dataclass(frozen=True)
class _Part:
    """What one file holds."""

    videos: dict[str, Frames]
    objects: Iterable[str]
    attributes: Iterable[str]
    width: int
    frames: int


def _read_coco(path: Path) -> _Part:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        names = {category["id"]: str(category["name"]) for category in values["categories"]}
        notes: dict[Any, list[dict[str, Any]]] = {image["id"]: [] for image in values["images"]}
        for note in values["annotations"]:
            notes[note["image_id"]].append(note)
        images = {str(image["file_name"]): image for image in values["images"]}
        if len(images) < len(values["images"]):
            raise InputError(f"{path} names a file twice", "give every image once")
        videos = {name: _coco_image(image, notes[image["id"]], names) for name, image in images.items()}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is no COCO file: {first_line(error)}", "it needs images, annotations and categories"
        ) from None
    return _Part(videos, names.values(), (), 0, 1)


def _coco_image(image: Mapping[str, Any], notes: Sequence[Mapping[str, Any]], names: Mapping[Any, str]) -> Frames:
    def frames() -> list[Frame]:
        corners = np.array([note["bbox"] for note in notes], np.float64).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        found = {
            "boxes": corners,
            "scores": [note.get("score", 1.0) for note in notes],
            "labels": [names[note["category_id"]] for note in notes],
        }
        return [Frame(0, 0.0, (int(image["height"]), int(image["width"])), found)]

    return frames


def _read_parquet(path: Path) -> _Part:
    try:
        table = pq.read_table(path)
    except pa.ArrowException as error:
        raise InputError(f"{path} is no Parquet file: {first_line(error)}", "write it anew") from None
    missing = [name for name in _NEEDED if name not in table.column_names]
    if missing:
        raise InputError(f"{path} has no column {', '.join(missing)}", f"it needs {', '.join(_NEEDED)}")
    ids = table.column("video_id").to_pylist()
    rows: dict[str, list[int]] = {}
    for number, video_id in enumerate(ids):
        rows.setdefault(str(video_id), []).append(number)
    labels = {str(label) for label in table.column("label").to_pylist() if label is not None}
    attributes = set(table.column("attribute").to_pylist()) - {None, ""} if "attribute" in table.column_names else set()
    width = 0
    if "features" in table.column_names:
        width = next((len(row) for row in table.column("features").to_pylist() if row is not None), 0)
    counts = table.select(["video_id", "frame"]).group_by("video_id").aggregate([("frame", "count_distinct")])
    most = max(counts.column("frame_count_distinct").to_pylist(), default=1)
    videos = {video_id: _table_video(table, numbers, width) for video_id, numbers in rows.items()}
    return _Part(videos, labels, sorted(attributes), width, most)


def _table_video(table: pa.Table, numbers: Sequence[int], width: int) -> Frames:
    def frames() -> list[Frame]:
        by_frame: dict[int, list[dict[str, Any]]] = {}
        for row in table.take(numbers).to_pylist():
            by_frame.setdefault(int(row["frame"]), []).append(row)
        return [_table_frame(index, by_frame[index], width) for index in sorted(by_frame)]

    return frames


def _table_frame(index: int, rows: Sequence[Mapping[str, Any]], width: int) -> Frame:
    size = (int(rows[0]["height"]), int(rows[0]["width"]))
    boxes = [row for row in rows if row["x1"] is not None]
    found: dict[str, Any] = {
        "boxes": np.array([[row[side] for side in ("x1", "y1", "x2", "y2")] for row in boxes], np.float64),
        "scores": [1.0 if row.get("score") is None else row["score"] for row in boxes],
        "labels": [str(row["label"]) for row in boxes],
    }
    if any("attribute" in row for row in boxes):
        found["attributes"] = [row["attribute"] for row in boxes]
        found["attribute_scores"] = [row.get("attribute_score") or float(bool(row["attribute"])) for row in boxes]
    if width:
        found["features"] = np.array([row["features"] for row in boxes], np.float64).reshape(
            len(boxes), -1 if boxes else width
        )
    return Frame(index, float(rows[0]["time"]), size, found)


def _read_npz(path: Path) -> _Part:
    arrays = _arrays(path)
    video_id = path.name.removesuffix(path.suffix)
    labels = {str(label) for label in arrays["labels"].tolist()}
    width = arrays["features"].shape[-1] if "features" in arrays else 0
    return _Part({video_id: lambda: _npz_frames(_arrays(path))}, labels, (), width, len(arrays["frame_index"]))


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in _NPZ_NEEDED if name not in file.files]
            if missing:
                raise InputError(f"{path} has no {', '.join(missing)}", f"it needs {', '.join(_NPZ_NEEDED)}")
            return {name: file[name] for name in file.files}
    except InputError:
        raise
    except Exception as error:  # zipfile, zlib and numpy each raise their own on damage
        raise InputError(f"{path} is no npz file of boxes: {first_line(error)}", "write it anew") from None


def _npz_frames(arrays: Mapping[str, NDArray[Any]]) -> list[Frame]:
    count = len(arrays["labels"])
    scores = arrays.get("scores", np.ones(count))
    frames = []
    for number, (index, time, size) in enumerate(
        zip(arrays["frame_index"], arrays["frame_time"], arrays["image_size"], strict=True)
    ):
        inside = arrays["frame"] == number
        found = {
            "boxes": arrays["boxes"].reshape(-1, 4)[inside],
            "scores": scores[inside],
            "labels": arrays["labels"][inside].tolist(),
        }
        if "features" in arrays:
            found["features"] = arrays["features"][inside]
        frames.append(Frame(int(index), float(time), (int(size[0]), int(size[1])), found))
    return frames


_READERS: dict[str, Callable[[Path], _Part]] = {".json": _read_coco, ".parquet": _read_parquet, ".npz": _read_npz}
