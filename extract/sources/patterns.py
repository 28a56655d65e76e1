"""Ranges in braces and globs, here and on other file systems.

In: ``shards/{00000..00099}.tar``, ``s3://bucket/**/*.mp4``, a folder. Out: the files with size and time of change.
"""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from regionvlp.errors import InputError
from regionvlp.extract.sources import remote
from regionvlp.store.plan import UNKNOWN
from regionvlp.video.find import LeftOut, is_wanted, walk_files

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")
_MAGIC = re.compile(r"[*?\[]")

# A file: where it is, its bytes, its time of change in ns.
Found = tuple[str, int, int]


def has_magic(text: str) -> bool:
    """Whether a text holds a wildcard."""
    return _MAGIC.search(text) is not None


def fixed_part(pattern: str) -> str:
    """The folder above the first wildcard or brace of a pattern."""
    place = re.search(r"[*?\[{]", pattern)
    folder = (pattern if place is None else pattern[: place.start()]).rpartition("/")[0]
    return f"{folder}/" if folder.endswith(":/") or not folder else folder


def braces(text: str) -> Iterator[str]:
    """Every text that ``{00000..00099}`` and ``{a,b}`` stand for, in order."""
    match = _RANGE.search(text)
    if match is None:
        yield text
        return
    first, last, words = match.groups()
    if words is None:
        width = len(first) if first.startswith("0") else 0
        step = 1 if int(first) <= int(last) else -1
        choices = [f"{number:0{width}d}" for number in range(int(first), int(last) + step, step)]
    else:
        choices = words.split(",")
    for choice, rest in itertools.product(choices, list(braces(text[match.end() :]))):
        yield text[: match.start()] + choice + rest


def expand(pattern: str, suffix: str | None = None) -> list[Found]:
    """The files that a path, folder, range or glob stands for, by name.

    Args:
        pattern: absolute, or a URL. A folder stands for what lies below it.
        suffix: of the files wanted, such as ``.tar``; None: videos and images.

    Raises:
        InputError: a file that a path or range names is not there, or the place cannot be listed.
    """
    found, left_out = dict[str, Found](), LeftOut()
    for text in braces(pattern) if suffix and not is_literal(pattern) else [pattern]:
        files = list(_remote(text, suffix) if remote.is_url(pattern) else _local(text, suffix, left_out))
        if not files and not has_magic(text) and "{" in pattern:
            raise InputError(f"{text} does not exist", f"correct the range {os.path.basename(pattern)}")
        found |= {file[0]: file for file in files}
    left_out.say(pattern)
    return [found[name] for name in sorted(found)]


def is_literal(text: str) -> bool:
    """Whether a path with brackets, braces or stars in it is the name of something that is there."""
    return not remote.is_url(text) and os.path.exists(text)


def _local(text: str, suffix: str | None, left_out: LeftOut) -> Iterator[Found]:
    if os.path.isfile(text):
        text = glob.escape(text)
    elif os.path.isdir(text):
        text = f"{glob.escape(text)}/**/*"
    head, star, tail = text.partition("**/")
    if not star:
        paths: Iterator[str] = (path for path in glob.iglob(text) if os.path.isfile(path) or os.path.islink(path))
    else:
        paths = _below(head, tail)
    for path in paths:
        if path.endswith(suffix) if suffix else is_wanted(path):
            try:
                status = os.stat(path)
            except OSError:  # a broken link, which becomes a failure row
                yield path, 0, os.lstat(path).st_mtime_ns
            else:
                yield path, status.st_size, status.st_mtime_ns
        elif suffix is None:
            left_out.add(path)


def _below(head: str, tail: str) -> Iterator[str]:
    """The files below the folders ``head`` whose path from there fits ``**/tail``; loops of links are survived."""
    fits = _regex(f"**/{tail}")
    for folder in glob.iglob(head):
        if os.path.isdir(folder):
            yield from (path for name, path in walk_files(folder.rstrip("/")) if fits.match(name))


def _remote(url: str, suffix: str | None) -> Iterator[Found]:
    system, path = remote.file_system(url)
    # Named as the user named it: a file system may have other ways to write the same address.
    root = fixed_part(url) if has_magic(url) else url
    above = remote.file_system(root)[1].rstrip("/")
    try:
        infos = (system.glob if has_magic(path) else system.find)(path, detail=True)
    except FileNotFoundError:
        return
    except remote.ERRORS as error:
        raise InputError(f"{url} cannot be listed: {error}", "check the address and the permissions") from None
    for name, info in infos.items():
        if info["type"] == "file" and (name.endswith(suffix) if suffix else is_wanted(name, look=False)):
            size = info.get("size")
            tail = name.removeprefix(above).lstrip("/")
            place = remote.join(root, tail) if tail else url
            yield place, UNKNOWN if size is None else int(size), _time_of(info)


def _time_of(info: dict[str, Any]) -> int:
    """The time of change that a file system gives, in ns; they name it differently, and some have none."""
    for key in ("mtime", "LastModified", "last_modified", "modified", "updated"):
        value = info.get(key)
        if isinstance(value, datetime):
            return int(value.timestamp() * 1e9)
        if isinstance(value, int | float):
            return int(value * 1e9)
        if isinstance(value, str):
            try:
                return int(datetime.fromisoformat(value).timestamp() * 1e9)
            except ValueError:
                continue
    return UNKNOWN


def _regex(pattern: str) -> re.Pattern[str]:
    from fsspec.utils import glob_translate

    return re.compile(glob_translate(pattern))
