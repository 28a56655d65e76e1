"""Folders of weights that appear whole or not at all.

In: a path where nothing is yet. Out: a folder, written under a temporary name beside it, flushed and renamed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from regionvlp.errors import InputError
from regionvlp.store.files import flush, remove_leftovers, temporary_path


def check_new(path: Path) -> None:
    """Says no to a folder that holds something already.

    Raises:
        InputError: ``path`` is a file or a folder that is not empty.
    """
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise InputError(f"{path} exists already", "choose another folder, or delete it first")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder to fill; renames it to ``path`` at the end, removes it on any exception.

    Raises:
        InputError: ``path`` holds something already, or cannot be written.
    """
    check_new(path)
    if path.parent.is_dir():
        remove_leftovers(path.parent, path.name)
    temporary = temporary_path(path)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        readers = temporary.stat().st_mode & 0o666
        for file in temporary.iterdir():
            file.chmod(readers)  # safetensors makes files that only their owner may read
            flush(file)
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:  # the latter is how safetensors reports a full disk
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot write {path}: {reason}", "choose another folder, or make room") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
