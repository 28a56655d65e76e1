"""Checkpoints of a run: ``RUN/checkpoints/step-00001234/``, each there whole or not at all.

A checkpoint holds ``model.safetensors``, ``config.yaml`` (the run's), ``trainer_state.pt`` (everything else that a
resumed run needs) and what the caller adds, such as ``tokenizer.json``. It is written under a temporary name, flushed
to the disk, and renamed. ``checkpoints/best.json`` names the best one.
"""

from __future__ import annotations

import json
import logging
import pickle
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from regionvlp.errors import InputError
from regionvlp.store.files import flush, in_use, is_temporary, publish, replacing, temporary_path
from regionvlp.training.best import Best
from regionvlp.weights.hub_models import fetch_folder, hub_name
from regionvlp.weights.modules import WEIGHTS, DamagedCheckpointError, save_weights

STATE = "trainer_state.pt"
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
    """Writes a checkpoint and returns its folder. One of the same step is replaced.

    Args:
        run: the run folder.
        step: optimizer steps done.
        module: its weights are stored.
        state: plain containers and tensors only.
        save_extra: writes further files into the folder it is given.
    """
    path = path_of(run, step)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path.parent)
    temporary, replaced = temporary_path(path), temporary_path(path.with_name(f"{path.name}-replaced"))
    try:
        temporary.mkdir()
        save_weights(module, temporary)
        torch.save(state, temporary / STATE)
        if (run / "config.yaml").is_file():
            shutil.copyfile(run / "config.yaml", temporary / "config.yaml")
        if save_extra is not None:
            save_extra(temporary)
        for file in temporary.rglob("*"):
            flush(file)
        if path.exists():
            path.rename(replaced)  # a folder cannot be renamed onto another
        publish(temporary, path)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise _unwritten(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)
    return path


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
        reason = f"{reason} ({free:,} bytes are free there)"
    return InputError(
        f"cannot write the checkpoint {path}: {reason}",
        "make room and run the same command again; the last one is whole",
    )


def load_state(checkpoint: Path) -> dict[str, Any]:
    """Returns what :func:`save` was given as ``state``, on the CPU.

    Raises:
        DamagedCheckpointError: the file is missing, cut short or altered.
    """
    path = checkpoint / STATE
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DamagedCheckpointError(f"cannot read {path}: {reason}", "use another checkpoint") from None
    return state


def mark_best(run: Path, best_so_far: Best) -> None:
    """Names the checkpoint of the best evaluation in ``best.json``."""
    values = {"checkpoint": path_of(run, best_so_far.step).name, **asdict(best_so_far)}
    with replacing(run / "checkpoints" / BEST) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def prune(run: Path, keep: int) -> None:
    """Removes all but the ``keep`` newest checkpoints and the best."""
    spared = best(run)
    for path in checkpoints(run)[keep:]:
        if path != spared:
            shutil.rmtree(path)


def set_aside_after(run: Path, step: int) -> None:
    """Renames checkpoints of later steps, which a run resumed from ``step`` is about to write anew."""
    folder = run / "checkpoints"
    later = [path for path in sorted(folder.iterdir()) if _NAME.fullmatch(path.name)] if folder.is_dir() else []
    for path in later:
        if step_of(path) <= step:
            continue
        name = f"{path.name}.set-aside"
        while (folder / name).exists():
            name += "-again"
        path.rename(folder / name)
        logger.warning("%s is newer than the step resumed from, and is now called %s", path, name)


def _remove_leftovers(folder: Path) -> None:
    """Removes half-written checkpoints whose process on this machine is gone."""
    for path in folder.iterdir():
        if path.is_dir() and is_temporary(path.name) and not in_use(path.name):
            shutil.rmtree(path, ignore_errors=True)
