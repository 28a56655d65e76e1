"""Class names of a detector: a text file with one class a line, synonyms separated by commas. Free of torch."""

from __future__ import annotations

import re
from pathlib import Path

from regionvlp.errors import WeightsError

# kind -> the names under which a vocabulary lies beside weights; the first is ours
FILE_NAMES: dict[str, tuple[str, ...]] = {
    "objects": ("objects.txt", "objects_vocab.txt"),
    "attributes": ("attributes.txt", "attributes_vocab.txt"),
}


# What some vocabularies begin with, for what is no class: __background__, __no_attribute__.
_NOTHING = re.compile(r"_*(background|bg|no[ _]attribute)_*", re.IGNORECASE)


def read_names(path: Path | None, count: int) -> list[str] | None:
    """The lines of a vocabulary, which must be as many as the detector has classes; None where there is no file.

    A first line for the background, where there is one line too many, is left out.

    Raises:
        WeightsError: the file cannot be read, or names more or fewer classes than ``count``.
    """
    if path is None:
        return None
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"cannot read the vocabulary {path}: {error}", "expected one class a line") from None
    if len(names) == count + 1 and _NOTHING.fullmatch(names[0]):
        del names[0]
    if len(names) != count:
        raise WeightsError(
            f"{path} names {len(names)} classes, but the weights have {count}", "give the vocabulary of these weights"
        )
    return names


def beside(folder: Path, kind: str) -> Path | None:
    """The vocabulary of a ``kind`` (``objects`` or ``attributes``) that lies in ``folder``, if one does."""
    return next((folder / name for name in FILE_NAMES[kind] if (folder / name).is_file()), None)
