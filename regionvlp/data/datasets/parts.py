"""What data sets with one list a part share: which part is meant, where its files are, and rows made a table."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, cast, get_args

import pyarrow as pa

from regionvlp.data.caption_table import Captions
from regionvlp.errors import InputError
from regionvlp.weights.unpickling import load_values

Part = Literal["train", "val", "test"]

WORD_LISTS = "raw-captions.pkl"


def parse_part(text: str | None, own: Part | None, name: str, *, needed: bool = False) -> Part:
    """Reads the name of a part.

    Args:
        text: the name, in any case of letters; None means the part of the file, or else ``test``.
        own: the part that the given file holds; None where it is a folder, or a file of all parts.
        name: the data set, for messages.
        needed: refuse to choose: who trains must not be given clips to test on.

    Raises:
        InputError: it is no part, not the file's, or missing.
    """
    known = f"parts are {', '.join(get_args(Part))}"
    if text is None:
        if own is None and needed:
            raise InputError(f"which part of {name} to train on is not said", f"set split; {known}")
        return own or "test"
    part = text.strip().lower()
    if part not in get_args(Part):
        raise InputError(f"unknown split of {name} '{text}'", known)
    if own not in (None, part):
        raise InputError(f"the file holds the {own} part of {name}, not '{part}'", "name the folder, or the other file")
    return cast(Part, part)


def files_below(folder: Path) -> Iterator[Path]:
    """Every file at or below a folder, in the order of their names."""
    for parent, folders, found in os.walk(folder):
        folders.sort()
        for name in sorted(found):
            yield Path(parent, name)


def find_files(path: Path, names: Collection[str], own: Part | None = None) -> dict[str, Path]:
    """Known name -> file.

    Args:
        path: the folder below which they lie; or one of them, which stands for its folder, or, where it holds a part
            of its own, for itself alone.
        names: those that are known.
        own: the part that the file at ``path`` holds.

    Raises:
        InputError: nothing is at ``path``.
    """
    if not path.exists():
        raise InputError(f"no annotations at {path}", "check the path")
    if own is not None:
        return {path.name: path}
    files: dict[str, Path] = {}
    for file in files_below(path if path.is_dir() else path.parent):
        if file.name in names:
            files.setdefault(file.name, file)
    return files


def read_text(path: Path) -> str:
    """The text of a file, without a byte order mark; line ends as they stand.

    Raises:
        InputError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}", "check the file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 at byte {error.start}", "save it as UTF-8") from None


def read_lines(path: Path) -> list[str]:
    """The lines of a file that hold anything; a sentence may hold what Unicode calls a line's end as well."""
    return [line for line in read_text(path).replace("\r\n", "\n").split("\n") if line.strip()]


def read_list(path: Path) -> list[str]:
    """The names of a list, one a line, without blanks around them."""
    return [line.strip() for line in read_lines(path)]


def check_count(path: Path, found: Sequence[str], expected: int, *, distinct: bool = True) -> None:
    """Holds that a file names what it should: a gallery cut short is easier, and its figures would be better.

    Raises:
        InputError: it names more or fewer, or, unless it may, one twice.
    """
    different = len(set(found))
    if len(found) != expected or (distinct and different != expected):
        raise InputError(
            f"{path} names {different} different clips in {len(found)} rows, {expected} expected",
            "the file is cut short or of another edition",
        )


def read_word_lists(path: Path) -> dict[str, list[str]]:
    """The ``raw-captions.pkl`` of Frozen in Time and its kin: clip -> captions, each there a list of words.

    Raises:
        InputError: the file is damaged, holds something else, or asks for code to be run.
    """
    try:
        with path.open("rb") as file:
            content = load_values(file)
        return {str(clip): [" ".join(words) for words in captions] for clip, captions in content.items()}
    # A damaged pickle may raise nearly anything.
    except Exception as error:
        raise InputError(f"{path} holds no captions as lists of words: {error}", "use the public file") from None


def captions_of(clips: Sequence[str], known: Mapping[str, list[str]], path: Path) -> list[tuple[str, str]]:
    """(clip, caption) of each clip, in the order of the list.

    Raises:
        InputError: a clip has none.
    """
    bare = [clip for clip in clips if not known.get(clip)]
    if bare:
        message = f"{path} has no caption for {len(bare)} of {len(clips)} clips, such as {bare[0]}"
        raise InputError(message, "the file is cut short or of another edition")
    return [(clip, caption) for clip in clips for caption in known[clip]]


def table(rows: Sequence[tuple[str, str]], source: str, split: Part) -> Captions:
    """A table of (clip, caption)."""
    clips, texts = (pa.chunked_array([pa.array([row[place] for row in rows], pa.string())]) for place in (0, 1))
    return Captions.build(clips, texts, source, split=split)
