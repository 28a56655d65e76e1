"""Checkpoints of a run: ``RUN/checkpoints/step-00001234/``, each there whole or not at all.

A checkpoint holds ``model.safetensors``, ``config.yaml`` (the run's), ``trainer_state.pt`` (everything else that a
resumed run needs), what the caller adds, such as ``tokenizer.json``, and ``files.json``: sizes and digests, by
which a copy that was cut short is told from a whole one. It is written under a temporary name, flushed to the disk, and
renamed. ``checkpoints/best.json`` names the best one.
"""

from __future__ import annotations

import json
import logging
import pickle
import re
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from regionvlp.errors import InputError
from regionvlp.store.files import (
    flush,
    flush_and_sum,
    in_use,
    is_temporary,
    publish,
    replacing,
    sha256_of,
    temporary_path,
)
from regionvlp.training.best import Best
from regionvlp.weights.hub_models import fetch_folder, hub_name
from regionvlp.weights.modules import WEIGHTS, DamagedCheckpointError, save_weights

STATE = "trainer_state.pt"
CONFIG = "config.yaml"
FILES = "files.json"
BEST = "best.json"
# What makes a checkpoint to be opened: nothing else is ever taken from the hub.
SHARED = (WEIGHTS, "config.yaml", "tokenizer.json", "detector.json")
_NAME = re.compile(r"step-(\d{8,})")
logger = logging.getLogger(__name__)


def checkpoints(run: Path, *, to_resume: bool = True) -> list[Path]:
    """Returns the complete checkpoints of a run folder, newest first.

    Args:
        run: the folder.
        to_resume: only those that a run can go on from; to be opened a checkpoint needs no ``trainer_state.pt``.

    Raises:
        InputError: there are checkpoints, and files are missing from every one of them.
    """
    needed = (WEIGHTS, STATE) if to_resume else (WEIGHTS,)
    folder = run / "checkpoints"
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)] if folder.is_dir() else []
    complete = [path for path in found if all((path / name).is_file() for name in needed)]
    if found and not complete:
        hint = "restore them, or start in another folder, from these weights with --set init=..."
        raise InputError(f"{folder} holds checkpoints, but {' or '.join(needed)} is missing from each of them", hint)
    return sorted(complete, key=step_of, reverse=True)


def lacks(checkpoint: Path) -> str | None:
    """What is missing from a checkpoint, or is shorter than it was; None where it looks whole."""
    for name in (WEIGHTS, STATE):
        if not (checkpoint / name).is_file():
            return f"{name} is missing"
    for name, size, _ in _listed(checkpoint):
        try:
            found = (checkpoint / name).stat().st_size
        except OSError:
            return f"{name} is missing"
        if found != size:
            return f"{name} has {found:,} bytes instead of {size:,}"
    return None


def _listed(checkpoint: Path) -> list[tuple[str, int, str]]:
    """Name, bytes and SHA-256 of what a checkpoint was written with; nothing where no readable list is there."""
    try:
        listed = json.loads((checkpoint / FILES).read_text(encoding="utf-8"))
        return [(str(name), int(file["bytes"]), str(file["sha256"])) for name, file in listed.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []  # of a version that wrote none, or itself cut short: reading the files finds out


def latest(run: Path, *, to_resume: bool = True) -> Path | None:
    """Returns the newest complete checkpoint of a run folder, if any."""
    return next(iter(checkpoints(run, to_resume=to_resume)), None)


def best(run: Path, *, to_resume: bool = True) -> Path | None:
    """Returns the checkpoint with the best evaluation so far, if there was one and it is still there."""
    try:
        name = json.loads((run / "checkpoints" / BEST).read_text(encoding="utf-8"))["checkpoint"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        logger.warning("%s is damaged; the best checkpoint is not known", run / "checkpoints" / BEST)
        return None
    return next((path for path in checkpoints(run, to_resume=to_resume) if path.name == name), None)


def find_checkpoint(place: str | Path) -> Path:
    """The checkpoint folder that ``place`` is, or the best (else newest) one of the run that it is.

    Args:
        place: a folder, or ``hub:owner/name@revision``, which is downloaded into the hub's cache.

    Raises:
        InputError: nothing is there, or it is no checkpoint. WeightsError: the hub does not give it.
    """
    if name := hub_name(place):
        return fetch_folder(name, SHARED, what="checkpoint of regionvlp")
    path = Path(place)
    if not path.is_dir():
        raise InputError(f"there is no checkpoint at {path}", "give the folder of a run or of a checkpoint")
    if (path / WEIGHTS).is_file():
        return path
    found = best(path, to_resume=False) or latest(path, to_resume=False)
    if found is None:
        raise InputError(f"{path} holds no checkpoint", "give the folder of a run or of a checkpoint")
    return found


def step_of(checkpoint: Path) -> int:
    """Returns the number of optimizer steps done when ``checkpoint`` was written, from its name.

    Raises:
        InputError: the name is not that of a checkpoint.
    """
    match = _NAME.fullmatch(checkpoint.name)
    if match is None:
        raise InputError(f"{checkpoint} is no checkpoint to resume from", "name a folder like step-00001234")
    return int(match[1])


def path_of(run: Path, step: int) -> Path:
    """Returns where the checkpoint after ``step`` optimizer steps lies."""
    return run / "checkpoints" / f"step-{step:08d}"


def save(
    run: Path, step: int, module: nn.Module, state: dict[str, Any], save_extra: Callable[[Path], None] | None = None
) -> Path:
    """Writes a checkpoint and returns its folder. Another one of the same step is set aside.

    Args:
        run: the run folder.
        step: optimizer steps done.
        module: its weights are stored.
        state: plain containers and tensors only.
        save_extra: writes further files into the folder it is given.

    Raises:
        InputError: the disk is full, or the folder cannot be written to; what was there before is untouched.
    """
    path = path_of(run, step)
    temporary = temporary_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path.parent)
        temporary.mkdir()
        save_weights(module, temporary)
        torch.save(state, temporary / STATE)
        if (run / CONFIG).is_file():
            shutil.copyfile(run / CONFIG, temporary / CONFIG)
        if save_extra is not None:
            save_extra(temporary)
        _list_files(temporary)
        if path.exists():
            set_aside(path, "is written anew")
        publish(temporary, path)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise _unwritten(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path


def renew_state(run: Path, step: int, state: dict[str, Any]) -> None:
    """Replaces the state of a checkpoint that is there, whose weights stay; a kill leaves either state.

    Raises:
        InputError: as :func:`save`.
    """
    path = path_of(run, step)
    try:
        with replacing(path / STATE) as temporary:
            torch.save(state, temporary)
    except (OSError, RuntimeError) as error:
        raise _unwritten(path, error) from error


def _list_files(folder: Path) -> None:
    """Flushes all files of a checkpoint and writes their list.

    The state may be renewed, and carries sums of its own; the configuration may be edited by its owner.
    """
    listed = {}
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        name = file.relative_to(folder).as_posix()
        if name in (STATE, CONFIG):
            flush(file)
        else:
            listed[name] = {"bytes": file.stat().st_size, "sha256": flush_and_sum(file)}
    (folder / FILES).write_text(json.dumps(listed, indent=2) + "\n", encoding="utf-8")
    flush(folder / FILES)


def _unwritten(path: Path, error: Exception) -> BaseException:
    """What a failed save is to the user: torch and safetensors have errors of their own for a full disk.

    Anything that is not the disk's fault stays what it is.
    """
    system = next((e for e in (error, error.__cause__, error.__context__) if isinstance(e, OSError)), None)
    reason = system.strerror if system and system.strerror else str(error).strip().splitlines()[0]
    disk = any(
        word in str(error)
        for word in ("enforce fail", "inline_container", "PytorchStreamWriter", "iostream", "os error")
    )
    if system is None and not disk and not isinstance(error, SafetensorError):
        return error
    if disk and system is None:
        free = shutil.disk_usage(path.parent).free
        reason = f"its files do not get whole onto the disk ({free:,} bytes are free there)"
    return InputError(
        f"cannot write the checkpoint {path}: {reason}",
        "make room and run the same command again; the last one is whole",
    )


def check_whole(checkpoint: Path) -> None:
    """Compares a checkpoint with the list that was written with it; one without a list passes.

    Raises:
        DamagedCheckpointError: a file is missing, cut short or altered.
    """
    if reason := lacks(checkpoint):
        raise DamagedCheckpointError(f"{checkpoint} is not whole: {reason}", "use another checkpoint")
    for name, _, digest in _listed(checkpoint):
        if sha256_of(checkpoint / name) != digest:
            raise DamagedCheckpointError(f"{checkpoint / name} is not what was written", "use another checkpoint")


def load_state(checkpoint: Path) -> dict[str, Any]:
    """Returns what :func:`save` was given as ``state``, on the CPU.

    Raises:
        DamagedCheckpointError: the file is missing, cut short or altered.
    """
    path = checkpoint / STATE
    try:
        with zipfile.ZipFile(path) as archive:  # torch does not compare the sums that its files carry
            if (bad := archive.testzip()) is not None:
                raise ValueError(f"{bad} is not what was written")
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DamagedCheckpointError(f"cannot read {path}: {reason}", "use another checkpoint") from None
    return state


def mark_best(run: Path, best_so_far: Best) -> None:
    """Names the checkpoint of the best evaluation in ``best.json``."""
    values = {"checkpoint": path_of(run, best_so_far.step).name, **asdict(best_so_far)}
    with replacing(run / "checkpoints" / BEST) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def prune(run: Path, keep: int) -> None:
    """Removes all but the ``keep`` newest whole checkpoints and the best."""
    spared = best(run)
    for path in checkpoints(run)[keep:]:
        if path != spared:
            gone = temporary_path(path)  # a kill in the middle leaves no half of a checkpoint behind
            path.rename(gone)
            shutil.rmtree(gone)


def set_aside_after(run: Path, step: int) -> None:
    """Renames checkpoints of later steps, which a run resumed from ``step`` is about to write anew."""
    folder = run / "checkpoints"
    later = [path for path in sorted(folder.iterdir()) if _NAME.fullmatch(path.name)] if folder.is_dir() else []
    for path in later:
        if step_of(path) > step:
            reason = lacks(path)
            set_aside(path, f"is not whole ({reason})" if reason else "is newer than the step resumed from")


def set_aside(checkpoint: Path, why: str) -> None:
    """Gives a checkpoint a name under which nothing takes it for one, and says so."""
    name = f"{checkpoint.name}.set-aside"
    while checkpoint.with_name(name).exists():
        name += "-again"
    checkpoint.rename(checkpoint.with_name(name))
    logger.warning("%s %s, and is now called %s", checkpoint, why, name)


def _remove_leftovers(folder: Path) -> None:
    """Removes half-written checkpoints whose process on this machine is gone."""
    for path in folder.iterdir():
        if path.is_dir() and is_temporary(path.name) and not in_use(path.name):
            shutil.rmtree(path, ignore_errors=True)
