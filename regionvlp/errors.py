"""The errors that users see.

Every error that a user can cause or mend is a :class:`RegionVLPError`: one sentence that says what is wrong and one
hint that says what to do. The command line prints both on one line each and exits with ``exit_code``; nothing else
about such an error is worth a traceback. Our own mistakes are assertions and stay ugly.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

_LINE = 160  # characters of somebody else's message


class RegionVLPError(Exception):
    """Something the user can mend.

    Args:
        message: what is wrong, naming the file, key or value.
        hint: what to do about it, as an instruction.
    """

    exit_code = 2

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def to_dict(self) -> dict[str, str]:
        """The error as JSON values, for another process; :func:`error_from` makes it an error again."""
        return {"kind": type(self).__name__, "message": self.message, "hint": self.hint}


class ConfigError(RegionVLPError):
    """A configuration that cannot be read: unknown key, wrong type, value out of range."""


class InputError(RegionVLPError):
    """A path, list or file given by the user that cannot be used."""


class VideoError(RegionVLPError):
    """A single video that cannot be used. In an extraction it becomes a failure row, never the end of the run.

    Args:
        message: what is wrong, in words for the failure row.
        stage: where it happened: ``open``, ``decode``, ``detect`` or ``write``.
        reason: a short stable word to count by, such as ``empty-file``, ``no-video-stream`` or ``timeout``.
        transient: whether trying again may help (a killed decoder, an I/O error), as opposed to a damaged file.
    """

    def __init__(self, message: str, *, stage: str, reason: str, transient: bool = False, hint: str = "") -> None:
        super().__init__(message, hint)
        self.stage = stage
        self.reason = reason
        self.transient = transient


class ShardError(RegionVLPError):
    """A shard folder that is not what it should be: another detector's, unreadable, incomplete."""


class UnreadableItemsError(ShardError):
    """Some items of a batch cannot be read: training leaves them out, whatever else reads them stops.

    Attributes:
        reasons: position in the batch -> what is wrong, item named.
    """

    def __init__(self, reasons: Mapping[int, str]) -> None:
        first = reasons[min(reasons)]
        more = f" (and {len(reasons) - 1} more of the batch)" if len(reasons) > 1 else ""
        super().__init__(first + more, "extract what cannot be read again; 'regionvlp shards verify' lists it")
        self.reasons = dict(reasons)


class WeightsError(RegionVLPError):
    """Detector or model weights that are missing, of another shape, or of another family."""


class NothingDoneError(RegionVLPError):
    """The run went through, and every single input failed."""

    exit_code = 3


class SaidElsewhereError(RegionVLPError):
    """Another process of the run failed and says why; this one ends without a word.

    Args:
        exit_code: of that process.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__("")
        self.exit_code = exit_code


def error_from(values: Mapping[str, str]) -> RegionVLPError:
    """The error that :meth:`RegionVLPError.to_dict` described; one of a kind that is not in this file as its base."""
    kinds = {kind.__name__: kind for kind in (ConfigError, InputError, ShardError, WeightsError, NothingDoneError)}
    return kinds.get(values["kind"], RegionVLPError)(values["message"], values["hint"])


def first_line(error: BaseException) -> str:
    """What somebody else's error says, in one line of at most 160 characters, whole sentences where that can be."""
    text = f"no {error}" if isinstance(error, KeyError) else str(error)
    line = (text.strip().splitlines() or [type(error).__name__])[0]
    if len(line) <= _LINE:
        return line
    sentences, stop, _ = line[:_LINE].rpartition(". ")
    return f"{sentences}." if stop else f"{line[: _LINE - 4].rpartition(' ')[0] or line[: _LINE - 4]} ..."


def nearest(word: str, choices: Iterable[str]) -> str:
    """Returns ``"; did you mean 'x'?"`` for the closest of ``choices``, or an empty string."""
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else ""
