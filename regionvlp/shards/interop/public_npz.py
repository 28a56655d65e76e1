"""The layout in which public DemoVLP features lie: one compressed ``.npz`` per frame.

======================================= ==============================================================
``<split>/<page>/<id>/<frame>.npz``     WebVid, frames from 0; in general any folder of ``<number>.npz``
``<video>/<frame>.npz``                 the downstream sets
``<split>/<4 digits>/<name>_1.npz``     CC3M: one frame an image, ``_0`` where ``_1`` is not there
======================================= ==============================================================

A file holds ``x`` [K, C] and ``bbox`` [K, 4] (pixels, x1 y1 x2 y2), ``num_bbox``, ``image_h``, ``image_w``, and
``info``, a pickled dictionary with ``objects_id``, ``objects_conf`` and where there are attributes ``attrs_id`` and
``attrs_conf``, all in no order. What others write is taken as well: :data:`FIELDS` has the names that each field may
have, in the file or in ``info``, which need not be there. Boxes, features and the size of the image must be; without
scores the regions stand as in the file.

Read, the regions of a frame stand by falling confidence, equal ones by their place in the file (the public code
reverses an unstable sort), and the first R are kept. The layout knows no times; files that were written here say in
``info`` which frame of the video they are and at what time, so that nothing is lost on the way there and back.

A folder whose files are called by large or padded numbers (``000000000139.npz``, as of COCO) is refused until somebody
says what they are: frames of one video or images (``layout``).

In: a folder of such files. Out: :class:`VideoRegions`, and back.
"""

from __future__ import annotations

import os
import pickle
import posixpath
import re
import zipfile
from collections.abc import Callable, Iterator
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from regionvlp.errors import InputError, VideoError
from regionvlp.regions import FrameRegions, VideoRegions, cast_features
from regionvlp.shards.interop.filling import first_width
from regionvlp.shards.reader import ShardReader
from regionvlp.store.files import remove_leftovers, temporary_path
from regionvlp.store.manifest import Manifest
from regionvlp.store.plan import UNKNOWN, PlanRow
from regionvlp.video.find import IMAGE_SUFFIXES, VIDEO_SUFFIXES, refuse_bad_ids, walk_files
from regionvlp.weights.plain_pickle import UnsafePickleError, load_plain

LAYOUT = "demovlp"  # as the manifest names it

LAYOUTS = ("auto", "frames", "images")
# field -> the names that it goes by, in the file or in its ``info``; the first is the public one.
FIELDS = {
    "features": ("x", "features", "feature", "feats"),
    "boxes": ("bbox", "boxes", "bboxes"),
    "scores": ("objects_conf", "scores", "score", "conf", "cls_prob"),
    "class_ids": ("objects_id", "labels", "class_ids", "classes", "class_id"),
    "attribute_ids": ("attrs_id", "attribute_ids", "attrs"),
    "attribute_scores": ("attrs_conf", "attribute_scores"),
    "height": ("image_h", "height", "img_h"),
    "width": ("image_w", "width", "img_w"),
}
_NEEDED = ("features", "boxes", "height", "width")
_LARGE = 100_000  # a frame number beyond an hour of video
_PADDED = 8  # digits of a number with zeros before it that nobody gives to frames

_FRAME = re.compile(r"(\d+)\.npz")
_IMAGE = re.compile(r"(.+)_([01])\.npz", re.DOTALL)
_MEMBER_BYTES = 2**28  # no member of such a file is anywhere near; a damaged size must not fill the memory


class FrameFile(NamedTuple):
    """One file: its regions, (height, width) of the frame, and what only files of ours say of it: number and time."""

    regions: FrameRegions
    image_size: tuple[int, int]
    number: int | None
    time: float


class Found(NamedTuple):
    """What :func:`find_videos` found.

    Attributes:
        rows: plan rows by id; ``location`` is the folder of frames, or the file of an image.
        most_frames: of any video.
        strangers: npz files whose names are neither a number nor end in ``_0`` or ``_1``; the first few.
        strange: how many of them there are.
    """

    rows: list[PlanRow]
    most_frames: int
    strangers: list[str]
    strange: int


def find_videos(root: Path, layout: str = "auto") -> Found:
    """Lists the videos and images below ``root``; links to folders are followed, loops are not.

    Args:
        root: the folder.
        layout: ``frames``: numbers are the frames of the video that their folder is; ``images``: every file is an
            image of its own; ``auto``: frames, unless the numbers look like the names of images.

    Raises:
        InputError: there is no such folder, nothing of the layout in it, a folder in it that cannot be listed, a
            name that cannot be an id, or numbers of which nobody can tell what they count.
    """
    if not root.is_dir():
        raise InputError(f"no folder at {root}", "check the path")
    rows: list[PlanRow] = []
    strangers: list[str] = []
    most = strange = 0
    for folder, names in _folders(root):
        frames = 0
        images: dict[str, str] = {}
        if layout == "images":
            ids = [str(PurePosixPath(folder, name).with_suffix("")) for name in names]
            rows += [PlanRow(0, one, UNKNOWN, UNKNOWN, f"{one}.npz") for one in ids]
            most = 1
            continue
        if layout == "auto":
            _refuse_names_of_images(root, folder, names)
        for name in names:
            if _FRAME.fullmatch(name):
                frames += 1
            elif match := _IMAGE.fullmatch(name):
                images[match[1]] = max(images.get(match[1], "0"), match[2])
            else:
                strange += 1
                strangers += [f"{folder}/{name}"] if len(strangers) < 3 else []
        if frames:
            rows.append(PlanRow(0, folder or root.resolve().name, UNKNOWN, UNKNOWN, folder or "."))
            most = max(most, frames)
        for name, best in images.items():
            path = str(PurePosixPath(folder, name))
            rows.append(PlanRow(0, path, UNKNOWN, UNKNOWN, f"{path}_{best}.npz"))
            most = max(most, 1)
    if not rows:
        raise InputError(
            f"{root} holds no features in the public layout", "expected <video>/<frame number>.npz or <image>_1.npz"
        )
    rows.sort(key=lambda row: row.video_id)
    refuse_bad_ids(row.video_id for row in rows)
    for one, other in pairwise(rows):
        if one.video_id == other.video_id:
            raise InputError(f"'{one.video_id}' is a folder of frames and an image as well", "rename one of them")
    return Found(rows, most, strangers, strange)


def _refuse_names_of_images(root: Path, folder: str, names: list[str]) -> None:
    """Refuses numbers that are no count of frames: five images of COCO would become a video of five frames."""
    numbered = [match[1] for name in names if (match := _FRAME.fullmatch(name))]
    odd = [n for n in numbered if int(n) >= _LARGE or (len(n) >= _PADDED and n.startswith("0"))]
    if not odd or _names_its_frame(root / folder / f"{odd[0]}.npz"):
        return
    raise InputError(
        f"{root / folder} holds {odd[0]}.npz, whose number may be that of a frame or the name of an image",
        "say which: --layout frames or --layout images",
    )


def _names_its_frame(path: Path) -> bool:
    """Whether a file says which frame it is, as those do that were written here."""
    try:
        return read_frame(path, 1).number is not None
    except VideoError:
        return False


def _folders(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Every folder with npz files, as its path below ``root`` in POSIX form ('' for itself), and their names."""
    files = (posixpath.split(place) for place, _ in walk_files(os.fspath(root)) if place.endswith(".npz"))
    for folder, group in groupby(files, key=itemgetter(0)):  # the files of a folder come one after the other
        yield folder, [name for _, name in group]


def feature_width(root: Path, found: Found) -> int:
    """C; see :func:`~regionvlp.shards.interop.filling.first_width`."""
    return first_width(found.rows, lambda row: read_frame(_files(root, row)[0][1], 1).regions)


def video_reader(root: Path, manifest: Manifest) -> Callable[[PlanRow], VideoRegions]:
    """The function that reads a plan row of ``root`` as a video of ``manifest``.

    It raises VideoError where a file cannot be read: one broken frame fails its video, since a frame that is left out
    would shift those after it.
    """

    def read(row: PlanRow) -> VideoRegions:
        files = _files(root, row)
        if len(files) > manifest.frames:
            message = f"{len(files)} frames, and these shards take {manifest.frames}"
            raise VideoError(message, stage="decode", reason="too-many-frames")
        frames = [read_frame(path, manifest.regions) for _, path in files]
        wrong = next((f for f in frames if f.regions.features.shape[1] != manifest.feature_width), None)
        if wrong is not None:
            message = f"features are {wrong.regions.features.shape[1]} wide, those before {manifest.feature_width}"
            raise VideoError(message, stage="decode", reason="bad-fields")
        return VideoRegions.from_frames(
            row.video_id,
            [frame.regions for frame in frames],
            frame_index=[
                number if frame.number is None else frame.number
                for frame, (number, _) in zip(frames, files, strict=True)
            ],
            frame_time=[frame.time for frame in frames],
            image_size=[frame.image_size for frame in frames],
            slots=manifest.regions,
            dtype=manifest.memory_dtype.name,
        )

    return read


def _files(root: Path, row: PlanRow) -> list[tuple[int, Path]]:
    """(frame number, file) of a row, in the order of the numbers."""
    assert row.location is not None
    where = root / row.location
    if where.suffix == ".npz":
        return [(0, where)]
    try:
        names = [(int(match[1]), name) for name in os.listdir(where) if (match := _FRAME.fullmatch(name))]
    except OSError as error:
        raise VideoError(f"{where}: {error.strerror}", stage="open", reason="missing-file", transient=True) from error
    if not names:
        raise VideoError(f"{where} holds no frames", stage="open", reason="missing-file", transient=True)
    names.sort()
    if len({number for number, _ in names}) < len(names):
        raise VideoError(f"{where} holds a frame twice", stage="open", reason="bad-fields")
    return [(number, where / name) for number, name in names]


def read_frame(path: Path, most: int) -> FrameFile:
    """Reads one file of the layout.

    Args:
        path: the file.
        most: R, regions to keep.

    Raises:
        VideoError: it cannot be read, lacks a field, or its pickle asks for what no such file needs.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            fields = _fields(archive)
        return _frame(fields, most)
    except UnsafePickleError as error:
        message = f"{path}: its 'info' is refused: {error}"
        raise VideoError(message, stage="open", reason="unsafe-pickle") from error
    except OSError as error:
        message = f"{path}: {error.strerror or error}"
        raise VideoError(message, stage="open", reason="unreadable", transient=bool(error.errno)) from error
    except Exception as error:  # what a damaged archive, array or pickle raises is not for us to list
        text = str(error) or "it is not of the public layout"
        message = f"{path}: {type(error).__name__}: {text}"
        raise VideoError(message, stage="decode", reason="bad-fields") from error


def _fields(archive: zipfile.ZipFile) -> dict[str, Any]:
    """The fields of a file by our names, see :data:`FIELDS`, with what ``info`` may say of number and time.

    Raises:
        ValueError: one that must be there is not.
    """
    held = {name.removesuffix(".npy") for name in archive.namelist()}
    info = _member(archive, "info") if "info" in held else {}
    fields: dict[str, Any] = {"frame_index": info.get("frame_index"), "frame_time": info.get("frame_time", 0)}
    for field, names in FIELDS.items():
        for name in names:
            if name in info or name in held:
                fields[field] = info[name] if name in info else _member(archive, name)
                break
    missing = [" or ".join(FIELDS[field][:2]) for field in _NEEDED if field not in fields]
    if missing:
        raise ValueError(f"it has no {', no '.join(missing)}; it holds {', '.join(sorted(held)) or 'nothing'}")
    return fields


def _member(archive: zipfile.ZipFile, name: str) -> Any:
    if archive.getinfo(f"{name}.npy").file_size > _MEMBER_BYTES:
        raise ValueError(f"'{name}' is far too large")
    with archive.open(f"{name}.npy") as file:
        return _info(file) if name == "info" else npy.read_array(file, allow_pickle=False)


def _info(file: IO[bytes]) -> dict[str, Any]:
    read_header = npy.read_array_header_1_0 if npy.read_magic(file) == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read_header(file)
    if not dtype.hasobject or shape != ():
        raise ValueError("'info' is not a dictionary")
    info = load_plain(file)
    if not isinstance(info, dict):
        raise ValueError("'info' is not a dictionary")
    return info


def _frame(fields: dict[str, Any], most: int) -> FrameFile:
    x, bbox = np.asarray(fields["features"]), np.asarray(fields["boxes"])
    image_size = (int(fields["height"]), int(fields["width"]))
    count = len(np.asarray(fields["scores"]).reshape(-1)) if "scores" in fields else len(x)
    if x.ndim != 2 or len(x) != count or bbox.shape != (count, 4) or min(image_size) < 1:
        raise ValueError(f"x is {x.shape}, bbox {bbox.shape}, {count} confidences, image {image_size}")

    def column(field: str, absent: float) -> NDArray[Any]:
        return _column(fields.get(field, [absent] * count), count)

    scores = column("scores", 0)
    order = np.argsort(-scores, kind="stable")[:most]
    chosen = FrameRegions(
        features=np.ascontiguousarray(x[order], np.float32),
        boxes=bbox[order].astype(np.float32),
        scores=scores[order].astype(np.float32),
        class_ids=column("class_ids", -1)[order].astype(np.int32),
        attribute_ids=column("attribute_ids", -1)[order].astype(np.int32),
        attribute_scores=column("attribute_scores", 0)[order].astype(np.float32),
    )
    return FrameFile(chosen, image_size, fields["frame_index"], float(fields["frame_time"]))


def _column(values: Any, count: int) -> NDArray[Any]:
    column = np.asarray(values).reshape(-1)
    if len(column) != count:
        raise ValueError(f"{len(column)} values for {count} regions")
    return column


def export(
    shards: ShardReader,
    out: Path,
    *,
    compress: bool = True,
    on_video: Callable[[int], None] = lambda frames: None,
) -> int:
    """Writes every frame of a shard folder as a file of the layout; files that are there already are left alone.

    A video ``a/b.mp4`` becomes the folder ``a/b`` with ``0.npz``, ``1.npz`` and so on in the order of its frames, which
    is where the public code looks for them. What was imported from this layout goes back under its old names.

    Args:
        shards: what to write.
        out: folder; created if need be.
        compress: as the public files are; without it, a file is four times larger and written twenty times faster.
        on_video: called after each video with its number of frames.

    Returns:
        The number of files written.

    Raises:
        InputError: two videos would have the same name, or one lies outside ``out``.
    """
    names = _export_names(shards)
    written = 0
    for video_id in shards:
        paths = [out / name for name in names(video_id)]
        if not all(path.exists() for path in paths):
            video = shards[video_id]
            paths[0].parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(paths[0].parent)
            for slot, path in enumerate(paths):
                if not path.exists():
                    _write_frame(path, video, slot, compress)
                    written += 1
        on_video(len(paths))
    return written


def _export_names(shards: ShardReader) -> Callable[[str], list[str]]:
    """Names the files of a video, after having made sure that all of them are distinct."""
    imported = shards.manifest.video.get("layout") == LAYOUT
    rows = {row.video_id: row.location for row in shards.plan() or ()} if imported else {}
    folders: dict[str, str] = {}
    for video_id in shards:
        path = PurePosixPath(video_id)
        if not imported and path.suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES:
            path = path.with_suffix("")
        if path.is_absolute() or ".." in path.parts:
            raise InputError(f"{video_id!r} would be written outside the folder", "rename it before extracting")
        if folders.setdefault(str(path), video_id) != video_id:
            raise InputError(f"{video_id!r} and {folders[str(path)]!r} would share the folder {path}", "rename one")
    places = {video_id: folder for folder, video_id in folders.items()}

    def names(video_id: str) -> list[str]:
        location = rows.get(video_id)
        if location is not None and location.endswith(".npz"):
            return [location]
        numbers = shards[video_id].frame_index if imported else range(shards.num_frames(video_id))
        return [f"{places[video_id] if location is None else location}/{number}.npz" for number in numbers]

    return names


def _write_frame(path: Path, video: VideoRegions, slot: int, compress: bool) -> None:
    count = int(video.num_regions[slot])
    height, width = video.image_size[slot].tolist()
    info = {
        "image_id": slot,
        "image_h": height,
        "image_w": width,
        "num_boxes": count,
        "objects_id": video.class_ids[slot, :count].astype(np.int64),
        "objects_conf": video.scores[slot, :count],
        "attrs_id": video.attribute_ids[slot, :count].astype(np.int64),
        "attrs_conf": video.attribute_scores[slot, :count],
        "frame_index": int(video.frame_index[slot]),
        "frame_time": float(video.frame_time[slot]),
    }
    members: dict[str, Any] = {
        "x": cast_features(video.features[slot, :count], np.float32),
        "bbox": video.boxes[slot, :count],
        "num_bbox": count,
        "image_h": height,
        "image_w": width,
    }
    temporary = temporary_path(path)
    try:
        method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
        with zipfile.ZipFile(temporary, "w", method) as archive:
            for name, value in members.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    npy.write_array(file, np.asanyarray(value), allow_pickle=False)
            with archive.open("info.npy", "w") as file:
                npy.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
                # numpy 2 calls its core by a name that the numpy of the public code does not know; both know this one.
                pickled = pickle.dumps(np.array(info, object), protocol=3)
                file.write(pickled.replace(b"cnumpy._core.", b"cnumpy.core."))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
