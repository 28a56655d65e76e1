"""What a run writes about itself: ``log.jsonl``, one JSON object a line, and the same for TensorBoard."""

from __future__ import annotations

import json
import logging
import math
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from regionvlp.errors import InputError
from regionvlp.store.files import replacing

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

LOG = "log.jsonl"
logger = logging.getLogger(__name__)


class Logbook:
    """The log of one run, kept by its main process.

    Call :meth:`rewind` before the first :meth:`write`: a resumed run writes the lines after its checkpoint again.

    Args:
        run: the run folder, which exists.
        tensorboard: whether to write ``run/tensorboard`` as well; without the package a note is logged instead.
    """

    def __init__(self, run: Path, tensorboard: bool = True) -> None:
        self._run, self._tensorboard = run, tensorboard
        self._file: TextIO | None = None
        self._board: SummaryWriter | None = None
        self._excepthook = threading.excepthook

    def rewind(self, step: int) -> None:
        """Opens the log for what follows ``step``; cuts what lies beyond, and a line that a kill left half-written."""
        self.close()
        path = self._run / LOG
        if path.exists():
            kept = [line for line in read_log(path) if line["step"] <= step]
            with replacing(path) as temporary:
                temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        self._file = path.open("a", encoding="utf-8")
        if self._tensorboard:
            self._board = _open_board(self._run / "tensorboard", step)
            threading.excepthook = self._unless_of_the_board

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Appends one line; it is on its way to the disk when this returns. What is not finite becomes null.

        Raises:
            InputError: it cannot be written: the disk is full.
        """
        assert self._file is not None, "rewind() first"
        finite = {key: value if math.isfinite(value) else None for key, value in values.items()}
        try:
            self._file.write(json.dumps({"step": step, **finite}) + "\n")
            self._file.flush()
            if self._board is not None:
                for key, value in values.items():
                    self._board.add_scalar(key, value, step)
        except OSError as error:
            raise InputError(
                f"cannot write the log of {self._run}: {error.strerror or error}",
                "make room and run the same command again; the last checkpoint is whole",
            ) from None

    def close(self) -> None:
        """Closes the files; a later :meth:`rewind` opens them again."""
        file, board, self._file, self._board = self._file, self._board, None, None
        with suppress(OSError):  # each line was flushed, and said where that failed
            if file is not None:
                file.close()
        with suppress(OSError):
            if board is not None:
                board.close()
        threading.excepthook = self._excepthook

    def _unless_of_the_board(self, failure: threading.ExceptHookArgs) -> None:
        """TensorBoard writes in a thread, whose traceback says nothing that the next :meth:`write` does not say."""
        if not type(failure.thread).__module__.startswith("tensorboard"):
            self._excepthook(failure)


def read_log(path: Path) -> list[dict[str, Any]]:
    """Returns the lines of a log as dictionaries, each with its ``step``; a half-written last line is left out.

    Args:
        path: ``log.jsonl``, or the run folder that holds it.

    Raises:
        InputError: the log is missing, or damaged before its last line.
    """
    file = path / LOG if path.is_dir() else path
    try:
        texts = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror or error}", "check the path") from None
    lines = []
    for number, text in enumerate(texts, start=1):
        try:
            line = json.loads(text)
            lines.append({"step": int(line["step"]), **line})
        except (ValueError, KeyError, TypeError):
            if number == len(texts):
                break
            raise InputError(f"{file}, line {number}: not a line of a log", "restore the file, or delete it") from None
    return lines


def _open_board(folder: Path, step: int) -> SummaryWriter | None:
    # Imported here: it takes seconds, and may be absent.
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        logger.info("tensorboard is not installed, so only %s is written", LOG)
        return None
    # TensorBoard forgets what an interrupted run wrote at and after purge_step.
    return SummaryWriter(str(folder), purge_step=step + 1)
