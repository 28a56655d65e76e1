"""Tar files in the webdataset convention, as img2dataset and video2dataset write them.

Files of one sample share their name up to its first dot, which is the sample's key and here the video's id; the
``.json`` and ``.txt`` beside the video or picture are left to whoever reads captions. Where a sample holds both, the
video counts. Each tar is walked once for the places of its members; later only the bytes of one are read.
"""

from __future__ import annotations

import os
import posixpath
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import IO

import pyarrow as pa

from regionvlp.errors import InputError
from regionvlp.extract.sources import listing, remote
from regionvlp.extract.sources.patterns import expand
from regionvlp.extract.sources.source import Source
from regionvlp.video.find import IMAGE_SUFFIXES, VIDEO_SUFFIXES, LeftOut, refuse_bad_ids

_AT_ONCE = 16  # remote tars whose headers are fetched at the same time

# id, bytes, time of change, location, member, offset
_Row = tuple[str, int, int, str, str | None, int | None]


def scan(source: Source) -> pa.Table:
    """Lists the members. A tar that breaks off has what is whole listed, and a row of its own that will fail."""
    tars = expand(source.videos, ".tar")
    if not tars:
        raise InputError(f"there is no tar file at {source.videos}", "name a folder, a glob or a range of tar files")
    columns: list[list[pa.Array]] = []
    left_out = LeftOut()
    for rows in _listed(source, tars, left_out):
        refuse_bad_ids(name for row in rows for name in (row[0], row[4]) if name and not listing.is_text(name))
        if rows:
            values = zip(*rows, strict=True)
            types = (pa.string(), pa.int64(), pa.int64(), pa.string(), pa.string(), pa.int64())
            columns.append([pa.array(column, kind) for column, kind in zip(values, types, strict=True)])
    left_out.say(source.videos)
    if not columns:
        raise InputError(f"the {len(tars)} tar files at {source.videos} hold no video or picture", "check the path")
    names = ("video_id", "bytes", "mtime_ns", "location", "member", "offset")
    chunks = [pa.chunked_array(column) for column in zip(*columns, strict=True)]
    return listing.finished(listing.table_of(dict(zip(names, chunks, strict=True))))


def _listed(source: Source, tars: list[tuple[str, int, int]], left_out: LeftOut) -> Iterator[list[_Row]]:
    """The rows of each tar, in order."""
    if not remote.is_url(source.root):
        yield from (_rows(source, left_out, *tar) for tar in tars)
        return
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        yield from threads.map(lambda tar: _rows(source, left_out, *tar), tars)


def _rows(source: Source, left_out: LeftOut, place: str, size: int, mtime_ns: int) -> list[_Row]:
    location = remote.below(source.root, place)
    found: dict[str, _Row] = {}
    extra: list[_Row] = []
    whole = False
    places: dict[str, tuple[int, int]] = {}  # of members that a link may lead to: bytes, offset
    with remote.open_file(place) as file:
        for member in _members(file, place):
            if member is None:
                whole = True
                continue
            name = member.name.removeprefix("./")
            folder, base = posixpath.split(name)
            suffix = posixpath.splitext(base)[1].lower()
            if base.startswith(".") or member.isdir():
                continue
            if suffix not in VIDEO_SUFFIXES | IMAGE_SUFFIXES:
                left_out.add(name)
                continue
            found_at = _place_of(member, name, places)
            if found_at is None:
                left_out.add(
                    f"{name} in {location}", "sparse files" if member.issparse() else "links that lead nowhere"
                )
                continue
            places[name] = found_at
            key = posixpath.join(folder, base.partition(".")[0])
            row = (key, found_at[0], mtime_ns, location, name, found_at[1])
            other = found.setdefault(key, row)
            if other is not row:
                if suffix in IMAGE_SUFFIXES and not _is_image(other):
                    continue
                if _is_image(other) and suffix in VIDEO_SUFFIXES:
                    found[key] = row
                else:
                    extra.append(row)  # the listing refuses two videos of one id, and names both
    broken: list[_Row] = [] if whole else [(location, size, mtime_ns, location, None, None)]
    return [*found.values(), *extra, *broken]


def _place_of(member: tarfile.TarInfo, name: str, places: dict[str, tuple[int, int]]) -> tuple[int, int] | None:
    """The bytes and the offset of a member, or of that which it is a link to; None where they are not to be had.

    GNU tar writes the second name of one file as a link to the first, by itself.
    """
    if member.issparse():
        return None
    if member.isreg():
        return member.size, member.offset_data
    if member.islnk():
        return places.get(member.linkname.removeprefix("./"))
    if member.issym():
        return places.get(posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname)))
    return None


def _is_image(row: _Row) -> bool:
    return posixpath.splitext(row[4] or "")[1].lower() in IMAGE_SUFFIXES


def _members(file: IO[bytes], place: str) -> Iterator[tarfile.TarInfo | None]:
    """Yields the members of a tar, and None at the end of a tar that is whole."""
    try:
        # Without decompression: a compressed tar has no places to seek to.
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # it keeps every member otherwise
                yield member
            file.seek(tar.offset)
            rest = file.read(tarfile.BLOCKSIZE)
            if not rest.strip(b"\0") and tar.offset <= file.seek(0, os.SEEK_END):
                yield None
    except tarfile.TarError as error:
        if file.seek(0) == 0 and file.read(2) == b"\x1f\x8b":
            raise InputError(
                f"{place} is compressed, so nothing in it can be found again", "unpack it: gunzip"
            ) from None
        if not isinstance(error, tarfile.ReadError):
            raise InputError(f"{place} is not a tar file: {error}", "check the file") from None
