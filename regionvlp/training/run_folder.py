"""A run folder explains itself: which configuration, which versions, which seed, which command, since when.

``RUN/config.yaml`` is the resolved configuration and makes a folder a run; ``RUN/run.json`` says the rest. Beside
them come ``log.jsonl``, ``tensorboard/`` and ``checkpoints/``.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, TextIO
from weakref import WeakSet

import yaml

from regionvlp import __version__
from regionvlp.config import flatten, read_yaml
from regionvlp.errors import InputError
from regionvlp.store.files import is_temporary, replacing
from regionvlp.training.saving import checkpoints, latest, step_of

CONFIG = "config.yaml"
RECORD = "run.json"
LOCK = ".lock"
LIBRARIES = ("torch", "torchvision", "transformers", "numpy", "safetensors", "pydantic")


@dataclass(frozen=True)
class RunFolder:
    """A run folder that is ready to be written to.

    Attributes:
        path: the folder.
        candidates: checkpoints to resume from, best choice first; none for a new run. The later ones stand in when an
            earlier one turns out to be damaged.
    """

    path: Path
    candidates: tuple[Path, ...] = ()


def open_run(
    path: Path,
    config_text: str,
    resume: Literal["auto", "never"] | Path = "auto",
    *,
    seed: int | None = None,
    may_differ: Collection[str] = (),
    read: Callable[[Path], Mapping[str, Any]] = read_yaml,
) -> RunFolder:
    """Starts a run in ``path``, or finds where the one in it goes on. Call it on the main process only.

    Nothing is written before every check is through.

    Args:
        path: the run folder; made where it is missing.
        config_text: the resolved configuration as YAML.
        resume: ``auto`` goes on from the newest checkpoint where there is one, ``never`` wants a folder without a
            run, a path names a checkpoint, or a run whose newest is meant.
        seed: for the record.
        may_differ: dotted keys, or sections, whose change does not make it another run.
        read: gives the values of a stored configuration; one of an older version in today's form.

    Raises:
        InputError: ``path`` holds another run, or something else; or the checkpoint asked for is not there.
    """
    candidates = check_run(path, config_text, resume, may_differ=may_differ, read=read)
    path.mkdir(parents=True, exist_ok=True)
    _write(path / RECORD, json.dumps(_record(path / RECORD, seed), indent=2) + "\n")
    _write(path / CONFIG, config_text)
    return RunFolder(path, candidates)


def check_run(
    path: Path,
    config_text: str,
    resume: Literal["auto", "never"] | Path = "auto",
    *,
    may_differ: Collection[str] = (),
    read: Callable[[Path], Mapping[str, Any]] = read_yaml,
) -> tuple[Path, ...]:
    """Makes sure that a run may begin, or go on, in ``path``; arguments and errors as :func:`open_run`.

    A run that ended before its first checkpoint is none that could be lost: whatever comes takes its place.

    Returns:
        The checkpoints to resume from.
    """
    candidates = find_candidates(path, resume)
    if check_folder(path) and candidates:
        _check_same_run(path, config_text, may_differ, read)
    if isinstance(resume, Path):
        _check_same_run(candidates[0], config_text, may_differ, read)
    return candidates


class RunLock:
    """One process at a time writes to a run folder; a dead one holds no lock, since the system lets go of it.

    Where the file system has no locks nothing is held, and nothing is refused.

    Args:
        run: the run folder, which need not be there before :meth:`take`.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._file: TextIO | None = None

    def __enter__(self) -> RunLock:
        return self

    def take(self) -> None:
        """Takes the lock, for as long as the block lasts.

        Raises:
            InputError: another process has it.
        """
        self._run.mkdir(parents=True, exist_ok=True)
        file = (self._run / LOCK).open("a+", encoding="utf-8")
        try:
            import fcntl  # not on Windows

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            file.close()
            raise InputError(
                f"{self._run} is being trained by {holder}", "wait for it, or choose another folder"
            ) from None
        except (ImportError, OSError):
            file.close()
            return
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        self._file = file
        _held.add(self)

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


_held: WeakSet[RunLock] = WeakSet()


def _let_go() -> None:
    """Loader processes outlive a killed run by seconds, and would hold its lock, since they inherit its files."""
    for lock in _held:
        lock.__exit__()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def find_candidates(path: Path, resume: Literal["auto", "never"] | Path = "auto") -> tuple[Path, ...]:
    """The checkpoints that a run in ``path`` would go on from, best choice first; none for a new run.

    Raises:
        InputError: there is a run and ``resume`` is ``never``, or the checkpoint asked for is not there.
    """
    if check_folder(path) and resume == "never":
        raise InputError(f"{path} holds a run already", "choose another folder, or go on with --resume auto")
    return (_checkpoint_at(resume),) if isinstance(resume, Path) else tuple(checkpoints(path))


def check_folder(path: Path) -> bool:
    """Returns whether ``path`` holds a run; False for a folder that one can be started in.

    Raises:
        InputError: it is a file, or a folder of something else.
    """
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file, not a run folder", "choose another folder")
    if (path / CONFIG).is_file():
        return True
    others = [entry.name for entry in path.iterdir()] if path.is_dir() else []
    others = sorted(name for name in others if name not in (RECORD, LOCK) and not is_temporary(name))
    if others:
        raise InputError(f"{path} is no run folder: it holds {others[0]} and no {CONFIG}", "choose another folder")
    return False


def first_difference(
    old: Mapping[str, Any], new: Mapping[str, Any], may_differ: Collection[str] = ()
) -> tuple[str, Any, Any] | None:
    """Returns the first dotted key with unlike values, and both (None where absent); None where all agree."""
    was, now = flatten(old), flatten(new)
    for key in [*now, *(key for key in was if key not in now)]:
        # Of a list's items the number does not matter.
        parts = ["*" if part.isdigit() else part for part in key.split(".")]
        allowed = any(".".join(parts[: n + 1]) in may_differ for n in range(len(parts)))
        if not allowed and was.get(key) != now.get(key):
            return key, was.get(key), now.get(key)
    return None


def _check_same_run(
    path: Path, config_text: str, may_differ: Collection[str], read: Callable[[Path], Mapping[str, Any]]
) -> None:
    difference = first_difference(read(path / CONFIG), yaml.safe_load(config_text) or {}, may_differ)
    if difference:
        key, old, new = difference
        raise InputError(
            f"{path} is of another run: {key} is {old!r} there and {new!r} here",
            "choose another folder, or go on with the configuration stored there",
        )


def _checkpoint_at(path: Path) -> Path:
    if not path.is_dir():
        raise InputError(f"there is no checkpoint {path}", "check --resume")
    if (path / "checkpoints").is_dir():
        newest = latest(path)
        if newest is None:
            raise InputError(f"the run {path} has no complete checkpoint", "start it anew in another folder")
        return newest
    step_of(path)  # raises where the name is not a checkpoint's
    return path


def _record(path: Path, seed: int | None) -> dict[str, Any]:
    """What ``run.json`` says; the starts before this one stay in it."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
        created, starts = earlier["created"], earlier["starts"]
    except (OSError, ValueError, KeyError, TypeError):
        created, starts = now, []
    start = {"time": now, "command": shlex.join(sys.argv), "host": platform.node(), "versions": versions()}
    return {"created": created, "seed": seed, "starts": [*starts, start]}


def versions() -> dict[str, str]:
    """Returns the versions of this package, of Python, and of the libraries that shape a run."""
    found = {"regionvlp": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
