"""The captions table: one row per (video, caption), whatever file it came from, and its join with extracted videos.

In: an annotation file or folder; the ids of a shard folder. Out: a list of :class:`Caption`.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

from regionvlp.errors import InputError, nearest
from regionvlp.video.find import IMAGE_SUFFIXES, VIDEO_SUFFIXES

logger = logging.getLogger(__name__)

CaptionFormat = Literal["auto", "csv", "jsonl", "msrvtt"]
Queries = Literal["all", "first", "index_file"]
EXAMPLES = 3  # ids that an error names


@dataclass(frozen=True, slots=True)
class Caption:
    """One sentence about one video.

    Attributes:
        video_id: as annotated; after :func:`resolve_videos`, the id that the shards use.
        caption: the text as it stands in the file.
        caption_id: unique within the table.
        split: what the file calls the part, or empty.
        source: where the row came from: the file's name, or the data set's.
    """

    video_id: str
    caption: str
    caption_id: str
    split: str
    source: str


def load_captions(
    path: Path, *, format: CaptionFormat = "auto", split: str | None = None, queries: Queries | None = None
) -> list[Caption]:
    """Reads an annotation file or folder.

    Args:
        path: a table with a header (comma, semicolon or tab), JSON lines, a JSON list, or an MSR-VTT folder.
        format: ``csv`` and ``jsonl`` name the two kinds of plain file, ``msrvtt`` the data set. ``auto`` decides by
            name: a folder, or one of MSR-VTT's own JSON files, is ``msrvtt``; else the suffix says.
        split: keep only this part. For MSR-VTT ``<split>-<part>`` such as ``1ka-test`` (see
            :func:`regionvlp.data.datasets.msrvtt.load_msrvtt`). A plain file without a split column is one part.
        queries: which of a clip's captions; for MSR-VTT only.

    Raises:
        InputError: the file is missing, is not of the format, or holds no such split.
    """
    from regionvlp.data import tables as tabular
    from regionvlp.data.datasets import msrvtt

    if format not in get_args(CaptionFormat):
        raise InputError(f"unknown caption format '{format}'", nearest(format, get_args(CaptionFormat)))
    if not path.exists():
        raise InputError(f"no annotations at {path}", "check the path")
    format = kind_of(path, format)
    if format == "msrvtt":
        return msrvtt.load_msrvtt(path, *msrvtt.parse_split(split), queries)
    if queries is not None:
        raise InputError(f"{path} is read whole: 'queries' is for MSR-VTT", "leave 'queries' out")
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a {format} file", "name the annotation file in it")
    captions = tabular.read_jsonl(path) if format == "jsonl" else tabular.read_csv(path)
    return tabular.of_split(captions, split, path)


def kind_of(path: Path, format: CaptionFormat = "auto") -> CaptionFormat:
    """What ``auto`` means for a path: a folder, or one of MSR-VTT's own JSON files, is ``msrvtt``; else by suffix."""
    from regionvlp.data.datasets.msrvtt import SENTENCE_FILES

    if format != "auto":
        return format
    if path.is_dir() or path.name in SENTENCE_FILES:
        return "msrvtt"
    return "jsonl" if path.suffix.lower() in (".jsonl", ".json", ".ndjson") else "csv"


def resolve_videos(
    captions: Sequence[Caption], available_ids: Iterable[str], *, allow_missing: bool = False
) -> list[Caption]:
    """Replaces annotated video ids by the ids of the shards.

    An id fits a shard's id when the two are equal, or when, without the shard id's extension, the shorter of the two
    paths is the end of the longer: ``video7`` and ``all/video7`` fit ``videos/all/video7.mp4``, but ``test/7`` does
    not fit ``train/7.mp4``. The annotated id may carry an extension of its own, the same or another.

    Args:
        captions: the table as annotated.
        available_ids: the ids of the shards.
        allow_missing: drop the captions of videos that are not there (and log how many) instead of refusing them:
            recall on a part of a gallery is easier than on all of it.

    Raises:
        InputError: an id fits two videos; no video at all is there; or some are not, unless allowed.
    """
    available = list(available_ids)
    places = _match({caption.video_id for caption in captions}, available)
    missing = _missing(captions, places)
    if missing and (len(missing) == len(places) or not allow_missing):
        names = ", ".join(missing[:EXAMPLES]) + (", ..." if len(missing) > EXAMPLES else "")
        hint = f"the shards hold ids such as '{available[0]}'" if available else "the shards hold no video"
        if len(missing) < len(places):
            hint = "extract them, or allow missing videos (which makes retrieval easier)"
        raise InputError(f"{len(missing)} of {len(places)} annotated videos are not in the shards: {names}", hint)
    if missing:
        logger.warning("%d of %d annotated videos are not in the shards and are left out", len(missing), len(places))
    return [replace(caption, video_id=place) for caption in captions if (place := places[caption.video_id]) is not None]


def missing_videos(captions: Sequence[Caption], available_ids: Iterable[str]) -> list[str]:
    """The annotated ids that fit no video of the shards, in the order of the table.

    Raises:
        InputError: an id fits two videos.
    """
    return _missing(captions, _match({caption.video_id for caption in captions}, available_ids))


def check_caption_ids(captions: Sequence[Caption], path: Path) -> list[Caption]:
    """The table as a list, once its caption ids are known to be unique.

    Raises:
        InputError: a caption id occurs twice.
    """
    counts = Counter(caption.caption_id for caption in captions)
    if len(counts) < len(captions):
        caption_id, count = counts.most_common(1)[0]
        raise InputError(f"{path}: caption_id '{caption_id}' occurs {count} times", "make caption ids unique")
    return list(captions)


def _missing(captions: Sequence[Caption], places: dict[str, str | None]) -> list[str]:
    return [video_id for video_id in dict.fromkeys(c.video_id for c in captions) if places[video_id] is None]


def _match(video_ids: Iterable[str], available_ids: Iterable[str]) -> dict[str, str | None]:
    """Annotated id -> the shard id that it fits, or None."""
    available = set(available_ids)
    by_stem: defaultdict[str, list[str]] = defaultdict(list)
    for shard_id in available:
        by_stem[PurePosixPath(shard_id).stem].append(shard_id)
    return {video_id: video_id if video_id in available else _fit(video_id, by_stem) for video_id in video_ids}


def _fit(video_id: str, by_stem: dict[str, list[str]]) -> str | None:
    path = PurePosixPath(video_id.replace("\\", "/"))
    # The whole name first: in an id without extension, what follows the last dot belongs to the name.
    names = [path.name] if path.suffix.lower() not in VIDEO_SUFFIXES | IMAGE_SUFFIXES else [path.name, path.stem]
    for name in names:
        folders = path.parts[:-1]
        fitting = sorted(found for found in by_stem.get(name, ()) if _ends_agree(folders, found))
        exact = [found for found in fitting if PurePosixPath(found).parts[:-1] == folders]
        fitting = exact or fitting
        if len(fitting) > 1:
            raise InputError(
                f"the annotated video '{video_id}' may be '{fitting[0]}' or '{fitting[1]}'",
                "write the ids of the shards into the annotations, with folder and extension",
            )
        if fitting:
            return fitting[0]
    return None


def _ends_agree(folders: tuple[str, ...], shard_id: str) -> bool:
    """True where the shorter of two rows of folders is the end of the longer."""
    return all(
        mine == theirs
        for mine, theirs in zip(reversed(folders), reversed(PurePosixPath(shard_id).parts[:-1]), strict=False)
    )
