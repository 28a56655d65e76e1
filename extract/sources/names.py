"""From the words of a table to ids and locations: which column names the file, below which folder it lies.

In: columns. Out: the ``video_id`` and ``location`` columns of a listing. A listed name is looked up without its
extension, since that differs between releases; the file itself is looked for when the video is decoded, not for
millions of rows at once, and only a few rows are looked at here, to find out how the user's copy is laid out.
"""

from __future__ import annotations

import os
import re
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from regionvlp.errors import InputError
from regionvlp.extract.sources import remote
from regionvlp.extract.sources.listing import refuse_bad_places
from regionvlp.extract.sources.looking import spread
from regionvlp.extract.sources.lookup import is_there
from regionvlp.extract.sources.source import Source

# Of several columns of one meaning the first of these counts.
PATHS = (
    *("path", "video_path", "filepath", "file_path", "file", "filename", "file_name", "video_file", "image_path"),
    *("relpath", "uri"),
)
IDS = ("video_id", "videoid", "clip_id", "clip_name", "segment_id", "sample_id", "image_id", "id", "key", "uid")
VIDEOS = ("video", "clip", "image", "video_name", "image_name", "youtubeid", "youtube_id", "ytid", "vid")
URLS = ("thumbnailurl", "url", "image_url", "contenturl")
FOLDERS = ("page_dir",)  # WebVid: the folder that the clip lies in
# Columns that say nothing about files, and tell a header from a first row.
OTHERS = ("caption", "sentence", "text", "title", "duration", "split", "page_idx", "name", "captions")

# Where copies of the public data sets keep the files, below the folder that people name.
_PREFIXES = ("", "videos/", "train/", "val/", "training/", "validation/", "images/", "all/", "videos/all/", "data/")
_ABSOLUTE = r"^(/|[A-Za-z][A-Za-z0-9+.-]*://)"
_SAMPLE = 32  # rows that decide between them

# One way to name the files: the id of each row, and its location without the prefix.
Form = tuple[pa.ChunkedArray, pa.ChunkedArray]


def joined(*columns: pa.ChunkedArray | str) -> pa.ChunkedArray:
    """Columns and texts, one after the other."""
    return pc.binary_join_element_wise(*columns, "")


def text_of(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column as text without blanks around it; numbers as digits."""
    text = values.cast(pa.string())
    return pc.utf8_trim_whitespace(pc.fill_null(text, "") if text.null_count else text)


def checksums(urls: pa.ChunkedArray) -> pa.ChunkedArray:
    """The CRC-32 of each text in decimal digits: the name under which CC3M pictures are stored."""
    return pa.chunked_array(
        [
            pa.array([zlib.crc32(url.encode()) for url in chunk.to_pylist()], pa.int64()).cast(pa.string())
            for chunk in urls.chunks
        ],
        pa.string(),
    )


def row_numbers(length: int) -> pa.ChunkedArray:
    """``0``, ``1`` ... as text."""
    return pa.chunked_array([pa.array(np.arange(length)).cast(pa.string())])


def refuse_empty(column: pa.ChunkedArray, path: str, what: str) -> None:
    """Refuses rows that name nothing.

    Raises:
        InputError: there are some.
    """
    empty = pc.equal(column, "")
    count = pc.sum(empty).as_py() or 0
    if count:
        first = pc.index(empty, True).as_py() + 1
        raise InputError(f"{path}: {count} rows without {what}, the first is row {first}", "fill or remove them")


def resolved(source: Source, forms: list[Form]) -> tuple[pa.ChunkedArray, pa.ChunkedArray | None]:
    """The ids and locations in the form, and below the prefix, in which most files of a sample are there.

    Where none is, the first form without a prefix.

    Raises:
        InputError: a location leaves the root.
    """
    best, most = (0, ""), 0
    for i, (_, locations) in enumerate(forms):
        for prefix in _prefixes(source):
            # An absolute place has no prefix.
            sample = [name for name in _sample(locations) if not (prefix and re.match(_ABSOLUTE, name))]
            hits = sum(is_there(source.root, prefix + name) for name in sample)
            if hits > most:
                best, most = (i, prefix), hits
    return _within_root(source, *forms[best[0]], best[1])


def _prefixes(source: Source) -> list[str]:
    here = not remote.is_url(source.root)
    return [prefix for prefix in _PREFIXES if not here or os.path.isdir(os.path.join(source.root, prefix))]


def _sample(column: pa.ChunkedArray) -> list[str]:
    names: list[str] = column.take(pa.array(spread(len(column), _SAMPLE))).to_pylist()
    return names


def _within_root(
    source: Source, ids: pa.ChunkedArray, locations: pa.ChunkedArray, prefix: str
) -> tuple[pa.ChunkedArray, pa.ChunkedArray | None]:
    """Makes places below the root relative to it; others may be absolute only where the user gave no root.

    A location that equals its id is left out.
    """
    same = ids is locations
    root = remote.join(source.root, "")
    for start in ("./", root):
        here = pc.starts_with(locations, start)
        if pc.any(here).as_py():
            locations = pc.if_else(here, pc.utf8_slice_codeunits(locations, len(start)), locations)
    outside = pc.match_substring_regex(locations, _ABSOLUTE)
    count = pc.sum(outside).as_py() or 0
    if count and source.root_given:
        example = locations.filter(outside)[0]
        raise InputError(
            f"{count} of the places in {source.videos} are not below {source.root}, such as {example}",
            "give the --root that they lie below, or none",
        )
    plain = pc.replace_substring_regex(locations, _ABSOLUTE, "") if count else locations
    refuse_bad_places(plain)
    if same:
        ids = plain
    if prefix:
        locations = pc.if_else(outside, locations, joined(prefix, locations))
    if ids is locations:
        return ids, None
    return ids, pc.if_else(pc.equal(ids, locations), pa.scalar(None, pa.string()), locations)
